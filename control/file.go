package control

import (
	"context"
	"errors"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// FileTarget names the directory that a file request is about: a task's, or
// with Pool and Node the root of a node.
type FileTarget struct {
	Account batch.AccountName
	Job     batch.JobID
	Task    batch.TaskID
	Pool    batch.PoolID
	Node    batch.NodeID
}

// FileHome finds the node that has the files of a target, and completes the
// request with its job and task.
//
// TaskFilesUnavailable: the task has not run, or its node is gone.
// TaskFilesCleanedup: the retention of its files is over. NodeNotReady: the
// node is not in contact.
func (s *Service) FileHome(ctx context.Context, target FileTarget, request *batch.FileRequest) (batch.NodeID, error) {
	var node batch.NodeID
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		node, err = fileNode(tx, target, request)
		return err
	})
	return node, err
}

// fileNode finds the node that has the files, and completes the request.
func fileNode(tx *store.Tx, target FileTarget, request *batch.FileRequest) (batch.NodeID, error) {
	if target.Node != "" {
		n, err := findNode(tx, target.Account, target.Pool, target.Node)
		if err != nil {
			return "", err
		}
		return n.ID, nodeAnswers(&n)
	}
	t, err := findTask(tx, target.Account, target.Job, target.Task)
	if err != nil {
		return "", err
	}
	switch {
	case t.FilesRemoved:
		return "", batch.Errorf(batch.CodeTaskFilesCleanedup, "The files of the task were removed because their retention time is over.")
	case t.Node == "" || t.Bound && t.State == batch.TaskActive && t.ExecutionInfo.StartTime == nil:
		return "", batch.Errorf(batch.CodeTaskFilesUnavailable, "The task has no files because it has not run yet.")
	}
	request.Job, request.Task = t.Job, t.ID
	n, err := tx.Node(t.Node)
	if errors.Is(err, store.ErrNotFound) {
		return "", batch.Errorf(batch.CodeTaskFilesUnavailable, "The files of the task are gone with the compute node on which it ran.")
	}
	if err != nil {
		return "", err
	}
	return n.ID, nodeAnswers(&n)
}

func nodeAnswers(n *batch.Node) error {
	if n.InContact() {
		return nil
	}
	return batch.Errorf(batch.CodeNodeNotReady, "The compute node is in state %s and cannot answer.", n.State)
}
