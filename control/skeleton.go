package control

import (
	"context"
	"errors"
	"io"

	"github.com/batchyard/batchyard/batch"
)

type accounts struct{}
type contacts struct{}
type files struct{}

var errSoon = errors.New("not written yet")

// Query selects a page of a list.
type Query struct {
	// Filter is an OData filter; empty selects all.
	Filter string
	// Max is the size of the page, 1 to 1000; 0 is the default of 1000.
	Max int
	// Token is the Next of the page before; empty for the first page.
	Token string
}

// Page is a part of a list. Next is the token of the page after it, or empty.
type Page[T any] struct {
	Items []T
	Next  string
}

// AddResult is what became of one task of AddTasks.
type AddResult struct {
	ID    batch.TaskID
	Stamp batch.Stamp
	// Err is nil if the task was added; a *batch.Error says why not.
	Err error
}

// FileTarget names the directory that a file request is about: of a task, or
// of a whole node.
type FileTarget struct {
	Account batch.AccountName
	Job     batch.JobID
	Task    batch.TaskID
	Pool    batch.PoolID
	Node    batch.NodeID
}

// FileStream is an agent's answer to a file request.
type FileStream struct {
	Answer batch.FileAnswer
	// Body is the bytes of a read, nil for other requests; close it.
	Body io.ReadCloser
}

// NodeWanted is a compute node that should exist.
type NodeWanted struct {
	Node      batch.NodeID
	Account   batch.AccountName
	Pool      batch.PoolID
	Dedicated bool
	VMSize    string
	Size      batch.Size
	Slots     int
	State     batch.NodeState
	// Leaving is set while the node is asked to leave its pool; it is wanted
	// until it has left.
	Leaving bool
}

func (s *Service) Account(ctx context.Context, name batch.AccountName) (batch.Account, error) {
	return batch.Account{}, errSoon
}
func (s *Service) AddAccount(ctx context.Context, a batch.Account) error { return errSoon }
func (s *Service) Accounts(ctx context.Context) ([]batch.Account, error) { return nil, errSoon }

func (s *Service) AddPool(ctx context.Context, account batch.AccountName, spec batch.PoolSpecification) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) Pool(ctx context.Context, account batch.AccountName, id batch.PoolID) (batch.Pool, error) {
	return batch.Pool{}, errSoon
}
func (s *Service) Pools(ctx context.Context, account batch.AccountName, q Query) (Page[batch.Pool], error) {
	return Page[batch.Pool]{}, errSoon
}
func (s *Service) PatchPool(ctx context.Context, account batch.AccountName, id batch.PoolID, patch batch.PoolPatch, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) ReplacePool(ctx context.Context, account batch.AccountName, id batch.PoolID, patch batch.PoolPatch, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) DeletePool(ctx context.Context, account batch.AccountName, id batch.PoolID, c batch.Conditions) error {
	return errSoon
}
func (s *Service) ResizePool(ctx context.Context, account batch.AccountName, id batch.PoolID, r batch.PoolResize, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) StopResize(ctx context.Context, account batch.AccountName, id batch.PoolID, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) RemoveNodes(ctx context.Context, account batch.AccountName, id batch.PoolID, r batch.NodeRemoval, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) PoolNodeCounts(ctx context.Context, account batch.AccountName, q Query) (Page[batch.PoolNodeCounts], error) {
	return Page[batch.PoolNodeCounts]{}, errSoon
}

func (s *Service) Node(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID) (batch.Node, error) {
	return batch.Node{}, errSoon
}
func (s *Service) Nodes(ctx context.Context, account batch.AccountName, pool batch.PoolID, q Query) (Page[batch.Node], error) {
	return Page[batch.Node]{}, errSoon
}
func (s *Service) RebootNode(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID, option batch.RebootOption) error {
	return errSoon
}
func (s *Service) ReimageNode(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID, option batch.RebootOption) error {
	return errSoon
}
func (s *Service) DisableScheduling(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID, option batch.DisableSchedulingOption) error {
	return errSoon
}
func (s *Service) EnableScheduling(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID) error {
	return errSoon
}

func (s *Service) AddJob(ctx context.Context, account batch.AccountName, spec batch.JobSpecification) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) Job(ctx context.Context, account batch.AccountName, id batch.JobID) (batch.Job, error) {
	return batch.Job{}, errSoon
}
func (s *Service) Jobs(ctx context.Context, account batch.AccountName, q Query) (Page[batch.Job], error) {
	return Page[batch.Job]{}, errSoon
}
func (s *Service) PatchJob(ctx context.Context, account batch.AccountName, id batch.JobID, patch batch.JobPatch, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) ReplaceJob(ctx context.Context, account batch.AccountName, id batch.JobID, patch batch.JobPatch, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) DeleteJob(ctx context.Context, account batch.AccountName, id batch.JobID, c batch.Conditions) error {
	return errSoon
}
func (s *Service) DisableJob(ctx context.Context, account batch.AccountName, id batch.JobID, tasks batch.DisableTasks, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) EnableJob(ctx context.Context, account batch.AccountName, id batch.JobID, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) TerminateJob(ctx context.Context, account batch.AccountName, id batch.JobID, reason string, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) TaskCounts(ctx context.Context, account batch.AccountName, job batch.JobID) (batch.TaskCounts, error) {
	return batch.TaskCounts{}, errSoon
}

func (s *Service) AddTask(ctx context.Context, account batch.AccountName, job batch.JobID, spec batch.TaskSpecification) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) AddTasks(ctx context.Context, account batch.AccountName, job batch.JobID, specs []batch.TaskSpecification) ([]AddResult, error) {
	return nil, errSoon
}
func (s *Service) Task(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID) (batch.Task, error) {
	return batch.Task{}, errSoon
}
func (s *Service) Tasks(ctx context.Context, account batch.AccountName, job batch.JobID, q Query) (Page[batch.Task], error) {
	return Page[batch.Task]{}, errSoon
}
func (s *Service) UpdateTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, u batch.TaskUpdate, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) DeleteTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, c batch.Conditions) error {
	return errSoon
}
func (s *Service) TerminateTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}
func (s *Service) ReactivateTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, c batch.Conditions) (batch.Stamp, error) {
	return 0, errSoon
}

func (s *Service) OpenFile(ctx context.Context, target FileTarget, request batch.FileRequest) (*FileStream, error) {
	return nil, errSoon
}
func (s *Service) AnswerFile(ctx context.Context, node batch.NodeID, token, id string, answer batch.FileAnswer, body io.Reader) error {
	return errSoon
}

func (s *Service) Sync(ctx context.Context, node batch.NodeID, token string, report batch.NodeReport) (batch.NodeOrders, error) {
	return batch.NodeOrders{}, errSoon
}

func (s *Service) DesiredNodes(ctx context.Context) ([]NodeWanted, error) { return nil, errSoon }
func (s *Service) NewNodeToken(ctx context.Context, node batch.NodeID) (string, error) {
	return "", errSoon
}
func (s *Service) NodeGone(ctx context.Context, node batch.NodeID) error { return errSoon }
