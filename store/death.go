package store

import (
	"fmt"

	"github.com/batchyard/batchyard/batch"
)

// Deaths are how often agents died under a task, since it was added or
// reactivated.
type Deaths struct {
	// Nodes is on how many nodes, Crashes how often by themselves.
	Nodes, Crashes int
}

// AddDeath keeps that the agent of a task's node died under its attempt, and
// tells how often that has been. Attempts of an earlier task of the same id have
// smaller numbers than the task's sequence, and do not count.
func (tx *Tx) AddDeath(t *batch.Task, crashed bool) (Deaths, error) {
	var d Deaths
	_, err := tx.Exec(`
		INSERT INTO death (account, job, task, attempt, node, crashed)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT DO NOTHING`, string(t.Account), batch.Key(t.Job), batch.Key(t.ID), t.Attempt, batch.Key(t.Node), crashed)
	if err == nil {
		err = tx.QueryRow(`
			SELECT count(DISTINCT node), coalesce(sum(CASE WHEN crashed THEN 1 ELSE 0 END), 0)
			FROM death
			WHERE account = $1 AND job = $2 AND task = $3 AND attempt > $4`,
			string(t.Account), batch.Key(t.Job), batch.Key(t.ID), t.Sequence).Scan(&d.Nodes, &d.Crashes)
	}
	if err != nil {
		return d, fmt.Errorf("keep death of agent: %w", err)
	}
	return d, nil
}

// ForgetDeaths forgets how often agents died under a task, or, without one,
// under those of a job.
func (tx *Tx) ForgetDeaths(account batch.AccountName, job batch.JobID, task batch.TaskID) error {
	_, err := tx.Exec(`
		DELETE FROM death
		WHERE account = $1 AND job = $2 AND ($3 = '' OR task = $3)`, string(account), batch.Key(job), batch.Key(task))
	if err != nil {
		return fmt.Errorf("forget deaths of agents: %w", err)
	}
	return nil
}
