package api

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

// taskAnswer is a task as the protocol shows it.
type taskAnswer struct {
	Metadata string `json:"odata.metadata,omitempty"`
	*batch.TaskSpecification
	resource
	State                       batch.TaskState      `json:"state"`
	StateTransitionTime         batch.Time           `json:"stateTransitionTime"`
	PreviousState               batch.TaskState      `json:"previousState,omitempty"`
	PreviousStateTransitionTime *batch.Time          `json:"previousStateTransitionTime,omitempty"`
	ExecutionInfo               *batch.ExecutionInfo `json:"executionInfo"`
	NodeInfo                    *taskNode            `json:"nodeInfo,omitzero"`
}

// taskNode is where a task runs or has run.
type taskNode struct {
	AffinityID           string       `json:"affinityId,omitempty"`
	NodeURL              string       `json:"nodeUrl,omitempty"`
	PoolID               batch.PoolID `json:"poolId,omitempty"`
	NodeID               batch.NodeID `json:"nodeId,omitempty"`
	TaskRootDirectory    string       `json:"taskRootDirectory,omitempty"`
	TaskRootDirectoryURL string       `json:"taskRootDirectoryUrl,omitempty"`
}

// poolScopes is the first version that shows the scope of the user that tasks
// have without being told one.
const poolScopes = "2019-08-01"

// defaultUser is the user that a task has without being told one, as versions
// since then show it. What older ones show is in versions.go.
var defaultUser = &batch.UserIdentity{AutoUser: &batch.AutoUser{Scope: batch.ScopePool, ElevationLevel: batch.ElevationNonAdmin}}

// showTask shows the specification as it was sent, with defaults filled in, and what
// became of it beside it. What runs is an attempt of the task; its node is told only
// once that attempt has begun.
func showTask(c *call, t *batch.Task) any {
	answer := &taskAnswer{
		TaskSpecification: &t.TaskSpecification,
		resource:          c.resource(taskPath(t.Job, t.ID), t.Stamp, t.CreationTime),
		State:             t.State, StateTransitionTime: batch.At(t.StateTransitionTime),
		PreviousState: t.PreviousState, PreviousStateTransitionTime: optionalTime(batch.At(t.PreviousStateTransitionTime)),
		ExecutionInfo: &t.ExecutionInfo,
	}
	if t.UserIdentity == nil && !c.version.before(poolScopes) {
		t.UserIdentity = defaultUser
	}
	// A node that holds a task it has not begun is not shown: it may give the
	// task back.
	switch {
	case t.Node != "" && t.ExecutionInfo.StartTime != nil:
		node := c.url(nodePath(t.Pool, t.Node))
		root := "workitems/" + string(t.Job) + "/job-1/" + string(t.ID)
		answer.NodeInfo = &taskNode{
			AffinityID: affinityID(t.Node), NodeURL: node, PoolID: t.Pool, NodeID: t.Node,
			TaskRootDirectory: root, TaskRootDirectoryURL: node + "/files/" + root,
		}
	case t.State == batch.TaskCompleted:
		answer.NodeInfo = &taskNode{} // it was ended before it ran
	}
	return answer
}

func taskPath(job batch.JobID, task batch.TaskID) string {
	return jobPath(job) + "/tasks/" + url.PathEscape(string(task))
}

// addTask is for a task alone; clients with many use addTaskCollection, which costs
// one commit for up to a hundred.
func addTask(c *call) error {
	var spec batch.TaskSpecification
	if err := c.decode(kindTask, &spec); err != nil {
		return err
	}
	stamp, err := c.Control.AddTask(c.context(), c.account, c.job(), spec)
	if err != nil {
		return err
	}
	return c.created(taskPath(c.job(), spec.ID), stamp)
}

// getTask reads all of a task, its specification included. A client that polls
// sends the ETag of its copy along and is told only that it is still right.
func getTask(c *call) error {
	if err := c.checkExpand(); err != nil {
		return err
	}
	task, err := c.Control.Task(c.context(), c.account, c.job(), c.task())
	if err != nil {
		return err
	}
	if err := c.fresh(task.Stamp); err != nil {
		return err
	}
	answer := showTask(c, &task).(*taskAnswer)
	answer.Metadata = c.metadata("tasks/@Element")
	c.setStamp(task.Stamp)
	return c.element(kindTask, answer)
}

// listTasks reads of each task what the selection needs and no more: the whole
// specification of a thousand tasks is most of the work of a page.
func listTasks(c *call) error {
	q, err := c.page(maxPage)
	if err != nil {
		return err
	}
	if q.Detail, err = c.detail(); err != nil {
		return err
	}
	page, err := c.Control.Tasks(c.context(), c.account, c.job(), q)
	if err != nil {
		return err
	}
	return list(c, kindTask, "tasks", page, showTask)
}

// detail is how much of each task has to be read for what is selected.
func (c *call) detail() (store.Detail, error) {
	selected, err := c.selection(kindTask)
	if err != nil || selected.All() || c.version.shapes[kindTask] != nil {
		return store.WholeTask, err
	}
	detail := store.TaskState
	for _, m := range c.project(kindTask, selected) {
		switch m.name {
		case "id", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime", "previousState",
			"previousStateTransitionTime":
		case "executionInfo", "nodeInfo":
			detail = store.TaskRun
		default:
			return store.WholeTask, nil
		}
	}
	return detail, nil
}

func updateTask(c *call) error {
	var update batch.TaskUpdate
	conditions, err := c.decodeConditional(kindTask, &update)
	if err != nil {
		return err
	}
	stamp, err := c.Control.UpdateTask(c.context(), c.account, c.job(), c.task(), update, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusOK, stamp)
}

func deleteTask(c *call) error {
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	if err := c.Control.DeleteTask(c.context(), c.account, c.job(), c.task(), conditions); err != nil {
		return err
	}
	return c.writeDone(http.StatusOK)
}

func terminateTask(c *call) error {
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	stamp, err := c.Control.TerminateTask(c.context(), c.account, c.job(), c.task(), conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusNoContent, stamp)
}

// reactivateTask is the one action whose answer has no DataServiceId.
func reactivateTask(c *call) error {
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	stamp, err := c.Control.ReactivateTask(c.context(), c.account, c.job(), c.task(), conditions)
	if err != nil {
		return err
	}
	c.setStamp(stamp)
	return c.writeDone(http.StatusNoContent)
}

// listSubtasks is empty for every task that is not multi-instance, and no task
// is.
func listSubtasks(c *call) error {
	if _, err := c.Control.Task(c.context(), c.account, c.job(), c.task()); err != nil {
		return err
	}
	return empty("subtaskinfo")(c)
}

// maxCollection is how many tasks may be added at once.
const maxCollection = 100

// addStatus is what became of one task of a collection.
type addStatus string

const (
	addSuccess     addStatus = "Success"
	addClientError addStatus = "ClientError"
	addServerError addStatus = "ServerError"
)

// addAnswer is the result of adding one task of a collection.
type addAnswer struct {
	Status       addStatus    `json:"status"`
	TaskID       batch.TaskID `json:"taskId"`
	ETag         string       `json:"eTag,omitempty"`
	LastModified *batch.Time  `json:"lastModified,omitempty"`
	Location     string       `json:"location,omitempty"`
	Error        *errorBody   `json:"error,omitempty"`
}

// addTaskCollection adds up to a hundred tasks in one transaction. Each task
// that cannot be added has its own error and holds up no other.
func addTaskCollection(c *call) error {
	body, err := c.readBody()
	if err != nil {
		return err
	}
	specs, refused, err := c.decodeCollection(body)
	if err != nil {
		return err
	}
	if n := len(specs) + len(refused); n > maxCollection {
		return batch.InvalidValue("value", n, "At most %d tasks can be added in one request", maxCollection)
	}
	var results []control.AddResult
	if len(specs) > 0 {
		if results, err = c.Control.AddTasks(c.context(), c.account, c.job(), specs); err != nil {
			return err
		}
	}
	answers := make([]addAnswer, 0, len(results)+len(refused))
	for _, r := range results {
		// Answers stand in the order of the request, the refused ones in their places.
		for len(refused) > 0 && refused[0].at == len(answers) {
			answers, refused = append(answers, c.showAdd(refused[0].AddResult)), refused[1:]
		}
		answers = append(answers, c.showAdd(r))
	}
	for _, r := range refused {
		answers = append(answers, c.showAdd(r.AddResult))
	}
	return list(c, kindOther, "taskaddresult", control.Page[addAnswer]{Items: answers}, func(_ *call, a *addAnswer) any { return a })
}

// showAdd is an error of one task as the whole request would have it, without its
// status: the request has succeeded, and its answer says for each task how.
func (c *call) showAdd(r control.AddResult) addAnswer {
	if r.Err == nil {
		modified := batch.At(r.Stamp.Modified())
		return addAnswer{
			Status: addSuccess.in(c.version), TaskID: r.ID, ETag: r.Stamp.ETag(), LastModified: &modified,
			Location: c.url(taskPath(c.job(), r.ID)),
		}
	}
	e, code := shown(r.Err)
	status := addClientError
	if code >= http.StatusInternalServerError {
		status = addServerError
		c.Log.ErrorContext(c.context(), "adding a task failed", c.logged("task", string(r.ID), "error", r.Err)...)
	}
	body := c.errorBody(e)
	return addAnswer{Status: status.in(c.version), TaskID: r.ID, Error: &body}
}

// lowerWords is the first version whose clients compare these words as they
// come, and know them in lower case.
const lowerWords = "2025-06-01"

// in words a status for a version.
func (s addStatus) in(v *version) addStatus {
	if v.before(lowerWords) {
		return s
	}
	return addStatus(strings.ToLower(string(s)))
}

// refusedTask is a task of a collection that could not be decoded, and its
// place.
type refusedTask struct {
	at int
	control.AddResult
}

// decodeCollection reads tasks straight into specifications. If one of them is
// wrong, all are read one by one to find which.
func (c *call) decodeCollection(body []byte) (specs []batch.TaskSpecification, refused []refusedTask, err error) {
	// The short way is for a version without rewrites, a body in which nothing
	// points to a refusal, and no more tasks than there may be: what would have to
	// be looked at task by task would be read twice.
	if c.version.shapes[kindTask] == nil && !c.version.refusals[kindTask].mayApply(body) && c.measured.items <= maxCollection && !mayHaveNUL(body) {
		var whole struct {
			Value *[]batch.TaskSpecification `json:"value"`
		}
		err := json.Unmarshal(body, &whole, json.RejectUnknownMembers(true))
		if err == nil && whole.Value != nil {
			return *whole.Value, nil, nil
		}
	}
	var items struct {
		Value *[]jsontext.Value `json:"value"`
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil, batch.Missing("value")
	}
	if err := c.parse(body, kindOther, &items); err != nil {
		return nil, nil, err
	}
	if items.Value == nil {
		return nil, nil, batch.Missing("value")
	}
	if n := len(*items.Value); n > maxCollection {
		return nil, nil, batch.InvalidValue("value", n, "At most %d tasks can be added in one request", maxCollection)
	}
	for i, text := range *items.Value {
		var spec batch.TaskSpecification
		if err := c.unmarshal(text, kindTask, &spec); err != nil {
			refused = append(refused, refusedTask{i, control.AddResult{ID: idOf(text), Err: err}})
			continue
		}
		specs = append(specs, spec)
	}
	return specs, refused, nil
}

// idOf finds the id of a task that could not be decoded, for the caller to
// recognise it by.
func idOf(text jsontext.Value) batch.TaskID {
	o, ok, err := parseObject(text)
	if err != nil || !ok {
		return ""
	}
	var id batch.TaskID
	if err := json.Unmarshal(o.get("id"), &id); err != nil {
		return ""
	}
	return id
}
