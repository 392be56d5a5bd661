package store

import (
	"fmt"

	"github.com/batchyard/batchyard/batch"
)

// Specification is a task as it was specified.
type Specification struct {
	Job  batch.JobID // its key
	Task batch.TaskSpecification
	Size int // in bytes, as it is stored
}

// taskBody is the specification where a query reads tasks. It is no join, which
// PostgreSQL might begin with.
const taskBody = `(
				SELECT specification.body
				FROM specification
				WHERE specification.account = task.account AND specification.job = task.job AND specification.id = task.id)`

// SpecificationsByRef returns how the named tasks were specified, as far as they
// exist, in any order.
func (tx *Tx) SpecificationsByRef(account batch.AccountName, refs []TaskRef) ([]Specification, error) {
	return byRef(tx, "specification", account, refs, "specification.job, specification.body", func(row scanner) (s Specification, err error) {
		var body []byte
		if err := row.Scan(&s.Job, &body); err != nil {
			return s, err
		}
		s.Size = len(body)
		return s, decode(body, &s.Task)
	})
}

// insertSpecifications keeps how tasks of one job are specified, those that were
// inserted; bodies are the encoded specifications.
func (tx *Tx) insertSpecifications(tasks []batch.Task, inserted []bool, bodies []string) error {
	var which []int
	for i := range tasks {
		if inserted[i] {
			which = append(which, i)
		}
	}
	for from, to := range cut(len(which)) {
		args := make([]any, 2, 2+2*(to-from))
		args[0], args[1] = string(tasks[0].Account), batch.Key(tasks[0].Job)
		for _, i := range which[from:to] {
			args = append(args, batch.Key(tasks[i].ID), bodies[i])
		}
		_, err := tx.Exec(`
			INSERT INTO specification (account, job, id, body)
			SELECT $1, $2, v.column1, v.column2
			FROM (VALUES `+tuples(3, to-from, "text", "jsontext")+`) AS v`, args...)
		if err != nil {
			return fmt.Errorf("insert specifications: %w", err)
		}
	}
	return nil
}

// saveSpecification writes how a task is specified now.
func (tx *Tx) saveSpecification(t *batch.Task) error {
	body, err := encode(&t.TaskSpecification)
	if err != nil {
		return err
	}
	return tx.changeOne("save specification", `
		UPDATE specification
		SET body = $4
		WHERE account = $1 AND job = $2 AND id = $3`, string(t.Account), batch.Key(t.Job), batch.Key(t.ID), body)
}

// dropSpecification removes that of a task.
func (tx *Tx) dropSpecification(account batch.AccountName, job batch.JobID, id batch.TaskID) error {
	_, err := tx.Exec(`
		DELETE FROM specification
		WHERE account = $1 AND job = $2 AND id = $3`, string(account), batch.Key(job), batch.Key(id))
	if err != nil {
		return fmt.Errorf("drop specification: %w", err)
	}
	return nil
}

// dropSpecifications removes those of the first tasks of a job in the order of
// keys, as many as DeleteTasks removes tasks.
func (tx *Tx) dropSpecifications(account batch.AccountName, job batch.JobID, limit int) error {
	_, err := tx.Exec(`
		DELETE FROM specification
		WHERE account = $1 AND job = $2 AND id IN (
			SELECT id
			FROM specification
			WHERE account = $1 AND job = $2
			ORDER BY id
			LIMIT $3)`, string(account), batch.Key(job), limit)
	if err != nil {
		return fmt.Errorf("drop specifications: %w", err)
	}
	return nil
}
