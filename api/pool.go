package api

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// poolAnswer is a pool as the protocol shows it.
type poolAnswer struct {
	Metadata string `json:"odata.metadata,omitempty"`
	*batch.PoolSpecification
	resource
	State                         batch.PoolState       `json:"state"`
	StateTransitionTime           batch.Time            `json:"stateTransitionTime"`
	AllocationState               batch.AllocationState `json:"allocationState"`
	AllocationStateTransitionTime batch.Time            `json:"allocationStateTransitionTime"`
	CurrentDedicatedNodes         int                   `json:"currentDedicatedNodes"`
	CurrentLowPriorityNodes       int                   `json:"currentLowPriorityNodes"`
	CurrentCommunicationMode      string                `json:"currentNodeCommunicationMode,omitempty"`
	ResizeErrors                  []batch.ResizeError   `json:"resizeErrors,omitempty"`
}

// resource is what pools, jobs and tasks have in common.
type resource struct {
	URL          string     `json:"url"`
	ETag         string     `json:"eTag"`
	LastModified batch.Time `json:"lastModified"`
	CreationTime batch.Time `json:"creationTime"`
}

// resource is made of the stamp, the one number from which the ETag and the time
// of the last change follow; at is where the resource is, without the host.
func (c *call) resource(at string, s batch.Stamp, created time.Time) resource {
	return resource{URL: c.url(at), ETag: s.ETag(), LastModified: batch.At(s.Modified()), CreationTime: batch.At(created)}
}

// showPool fills the answer from the pool, whose copy it may change: nobody else
// has it.
func showPool(c *call, p *batch.Pool) any {
	p.StartTask = c.showStartTask(p.StartTask)
	p.VMSize = strings.ToLower(p.VMSize) // it may have been added before that was seen to
	if p.AllocationState != batch.AllocationSteady && p.RunningTimeout > 0 {
		p.ResizeTimeout = &p.RunningTimeout
	}
	return &poolAnswer{
		PoolSpecification: &p.PoolSpecification,
		resource:          c.resource(poolPath(p.ID), p.Stamp, p.CreationTime),
		State:             p.State, StateTransitionTime: batch.At(p.StateTransitionTime),
		AllocationState: p.AllocationState, AllocationStateTransitionTime: batch.At(p.AllocationStateTransitionTime),
		CurrentDedicatedNodes: p.CurrentDedicatedNodes, CurrentLowPriorityNodes: p.CurrentLowPriorityNodes,
		CurrentCommunicationMode: communicationMode(p),
		ResizeErrors:             p.ResizeErrors,
	}
}

// communicationMode is how nodes that are there talk, in words of the service.
func communicationMode(p *batch.Pool) string {
	switch {
	case p.CurrentDedicatedNodes+p.CurrentLowPriorityNodes == 0:
		return ""
	case strings.EqualFold(p.TargetNodeCommunicationMode, "simplified"):
		return "simplified"
	}
	return "classic"
}

// showStartTask is a start task with the user that it has without being told
// one, in the versions that show it whole.
func (c *call) showStartTask(t *batch.StartTask) *batch.StartTask {
	if t == nil || t.UserIdentity != nil || c.version.before(poolScopes) {
		return t
	}
	shown := *t
	shown.UserIdentity = defaultUser
	return &shown
}

func poolPath(id batch.PoolID) string { return "pools/" + url.PathEscape(string(id)) }

// addPool, like every handler here, leaves to package batch what a pool may be and
// to control whether there may be one more.
func addPool(c *call) error {
	var spec batch.PoolSpecification
	if err := c.decode(kindPool, &spec); err != nil {
		return err
	}
	stamp, err := c.Control.AddPool(c.context(), c.account, spec)
	if err != nil {
		return err
	}
	return c.created(poolPath(spec.ID), stamp)
}

func getPool(c *call) error {
	if err := c.checkExpand(); err != nil {
		return err
	}
	pool, err := c.Control.Pool(c.context(), c.account, c.pool())
	if err != nil {
		return err
	}
	if err := c.fresh(pool.Stamp); err != nil {
		return err
	}
	answer := showPool(c, &pool).(*poolAnswer)
	answer.Metadata = c.metadata("pools/@Element")
	c.setStamp(pool.Stamp)
	return c.element(kindPool, answer)
}

// poolExists is getPool without the pool: the stamp alone tells whether a copy is
// still right.
func poolExists(c *call) error {
	pool, err := c.Control.Pool(c.context(), c.account, c.pool())
	if err != nil {
		return err
	}
	if err := c.fresh(pool.Stamp); err != nil {
		return err
	}
	c.setStamp(pool.Stamp)
	return c.writeDone(http.StatusOK)
}

func listPools(c *call) error {
	q, err := c.page(maxPage)
	if err != nil {
		return err
	}
	page, err := c.Control.Pools(c.context(), c.account, q)
	if err != nil {
		return err
	}
	return list(c, kindPool, "pools", page, showPool)
}

func patchPool(c *call) error {
	var patch batch.PoolPatch
	conditions, err := c.decodeConditional(kindPool, &patch)
	if err != nil {
		return err
	}
	stamp, err := c.Control.PatchPool(c.context(), c.account, c.pool(), patch, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusOK, stamp)
}

// poolReplacement is the body of updateproperties, which knows less than a
// patch does.
type poolReplacement struct {
	StartTask                    *batch.StartTask      `json:"startTask"`
	Metadata                     *[]batch.MetadataItem `json:"metadata"`
	TargetNodeCommunicationMode  string                `json:"targetNodeCommunicationMode"`
	ApplicationPackageReferences []batch.Opaque        `json:"applicationPackageReferences"`
	CertificateReferences        []batch.Opaque        `json:"certificateReferences"`
}

// replacePool sets what the body leaves out to nothing, which a patch does not.
func replacePool(c *call) error {
	var r poolReplacement
	conditions, err := c.decodeConditional(kindPool, &r)
	if err != nil {
		return err
	}
	stamp, err := c.Control.ReplacePool(c.context(), c.account, c.pool(), batch.PoolPatch{
		StartTask: r.StartTask, Metadata: r.Metadata, TargetNodeCommunicationMode: r.TargetNodeCommunicationMode,
		ApplicationPackageReferences: r.ApplicationPackageReferences, CertificateReferences: r.CertificateReferences,
	}, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusNoContent, stamp)
}

// deletePool answers when the pool is on its way out and no longer takes work. Its
// nodes leave later, and it is there until they have.
func deletePool(c *call) error {
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	if err := c.Control.DeletePool(c.context(), c.account, c.pool(), conditions); err != nil {
		return err
	}
	return c.writeDone(http.StatusAccepted)
}

// resizePool sets the target. How far the pool is with it shows in its allocation
// state, which clients wait for.
func resizePool(c *call) error {
	var resize batch.PoolResize
	conditions, err := c.decodeConditional(kindPool, &resize)
	if err != nil {
		return err
	}
	stamp, err := c.Control.ResizePool(c.context(), c.account, c.pool(), resize, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusAccepted, stamp)
}

// stopResize answers at once. The pool is steady when it has stopped, which clients
// wait for as they wait for the resize.
func stopResize(c *call) error {
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	stamp, err := c.Control.StopResize(c.context(), c.account, c.pool(), conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusAccepted, stamp)
}

func removeNodes(c *call) error {
	var removal batch.NodeRemoval
	conditions, err := c.decodeConditional(kindOther, &removal)
	if err != nil {
		return err
	}
	stamp, err := c.Control.RemoveNodes(c.context(), c.account, c.pool(), removal, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusAccepted, stamp)
}

// decodeConditional reads the conditional headers and then the body.
func (c *call) decodeConditional(k kind, into any) (batch.Conditions, error) {
	conditions, err := c.conditions()
	if err != nil {
		return conditions, err
	}
	return conditions, c.decode(k, into)
}
