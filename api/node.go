package api

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/batchyard/batchyard/batch"
)

// nodeAnswer is a compute node as the protocol shows it.
type nodeAnswer struct {
	Metadata              string                `json:"odata.metadata,omitempty"`
	ID                    batch.NodeID          `json:"id"`
	URL                   string                `json:"url"`
	State                 batch.NodeState       `json:"state"`
	SchedulingState       batch.SchedulingState `json:"schedulingState"`
	StateTransitionTime   batch.Time            `json:"stateTransitionTime"`
	LastBootTime          *batch.Time           `json:"lastBootTime,omitempty"`
	AllocationTime        batch.Time            `json:"allocationTime"`
	IPAddress             string                `json:"ipAddress"`
	IPv6Address           string                `json:"ipv6Address"`
	AffinityID            string                `json:"affinityId"`
	VMSize                string                `json:"vmSize"`
	TotalTasksRun         int                   `json:"totalTasksRun"`
	RunningTasksCount     int                   `json:"runningTasksCount"`
	RunningTaskSlotsCount int                   `json:"runningTaskSlotsCount"`
	TotalTasksSucceeded   int                   `json:"totalTasksSucceeded"`
	RecentTasks           []recentTask          `json:"recentTasks,omitempty"`
	StartTask             *batch.StartTask      `json:"startTask,omitempty"`
	StartTaskInfo         *batch.StartTaskInfo  `json:"startTaskInfo,omitempty"`
	Errors                []batch.NodeError     `json:"errors,omitempty"`
	IsDedicated           bool                  `json:"isDedicated"`
	EndpointConfiguration nodeEndpoints         `json:"endpointConfiguration"`
	NodeAgentInfo         *nodeAgentInfo        `json:"nodeAgentInfo,omitempty"`
	VirtualMachineInfo    machineInfo           `json:"virtualMachineInfo"`
}

// recentTask is a task that the node ran lately, with its address.
type recentTask struct {
	TaskURL string `json:"taskUrl"`
	batch.RecentTask
}

// nodeEndpoints are ports of the node that a load balancer forwards to; a
// machine of one's own has none in front of it.
type nodeEndpoints struct {
	InboundEndpoints []struct{} `json:"inboundEndpoints"`
}

type nodeAgentInfo struct {
	Version        string     `json:"version"`
	LastUpdateTime batch.Time `json:"lastUpdateTime"`
}

// machineInfo is what a node knows of its virtual machine, which is none.
type machineInfo struct {
	ImageReference *batch.ImageReference `json:"imageReference,omitempty"`
}

// showNode shows a process on a machine of one's own in the words for a virtual
// machine: what has no counterpart is there and empty, since clients read it without
// asking whether it is.
func showNode(c *call, n *batch.Node) any {
	at := nodePath(n.Pool, n.ID)
	answer := &nodeAnswer{
		ID: n.ID, URL: c.url(at), State: n.State, SchedulingState: n.SchedulingState,
		StateTransitionTime: batch.At(n.StateTransitionTime), AllocationTime: batch.At(n.AllocationTime),
		LastBootTime: optionalTime(batch.At(n.LastBootTime)),
		IPAddress:    n.IPAddress, IPv6Address: ipv6(n.IPAddress), AffinityID: affinityID(n.ID), VMSize: strings.ToLower(n.VMSize),
		TotalTasksRun: n.TotalTasksRun, TotalTasksSucceeded: n.TotalTasksSucceeded,
		RunningTasksCount: n.RunningTasks, RunningTaskSlotsCount: n.RunningSlots,
		StartTask: c.showStartTask(n.StartTask), StartTaskInfo: n.StartTaskInfo, Errors: n.Troubles(), IsDedicated: n.Dedicated,
	}
	for _, r := range n.Recent {
		answer.RecentTasks = append(answer.RecentTasks, recentTask{c.url(taskPath(r.Job, r.Task)), r})
	}
	if n.AgentVersion != "" {
		answer.NodeAgentInfo = &nodeAgentInfo{n.AgentVersion, batch.At(n.AgentTime)}
	}
	return answer
}

func nodePath(pool batch.PoolID, node batch.NodeID) string {
	return poolPath(pool) + "/nodes/" + url.PathEscape(string(node))
}

// affinityID is by what a task says that it likes to run on a node.
func affinityID(node batch.NodeID) string { return string(node) }

// ipv6 is the address if it is one of that family, for clients that look for it
// apart.
func ipv6(address string) string {
	if a, err := netip.ParseAddr(address); err == nil && a.Is6() {
		return address
	}
	return ""
}

func getNode(c *call) error {
	node, err := c.Control.Node(c.context(), c.account, c.pool(), c.node())
	if err != nil {
		return err
	}
	answer := showNode(c, &node).(*nodeAnswer)
	answer.Metadata = c.metadata("nodes/@Element")
	return c.element(kindNode, answer)
}

func listNodes(c *call) error {
	q, err := c.page(maxPage)
	if err != nil {
		return err
	}
	page, err := c.Control.Nodes(c.context(), c.account, c.pool(), q)
	if err != nil {
		return err
	}
	return list(c, kindNode, "nodes", page, showNode)
}

func rebootNode(c *call) error {
	var body struct {
		Option batch.RebootOption `json:"nodeRebootOption"`
	}
	if err := c.decodeOptional(kindOther, &body); err != nil {
		return err
	}
	if err := batch.NormalizeRebootOption("nodeRebootOption", &body.Option); err != nil {
		return err
	}
	if err := c.Control.RebootNode(c.context(), c.account, c.pool(), c.node(), body.Option); err != nil {
		return err
	}
	return c.acted(http.StatusAccepted)
}

func reimageNode(c *call) error {
	var body struct {
		Option batch.RebootOption `json:"nodeReimageOption"`
	}
	if err := c.decodeOptional(kindOther, &body); err != nil {
		return err
	}
	if err := batch.NormalizeRebootOption("nodeReimageOption", &body.Option); err != nil {
		return err
	}
	if err := c.Control.ReimageNode(c.context(), c.account, c.pool(), c.node(), body.Option); err != nil {
		return err
	}
	return c.acted(http.StatusAccepted)
}

// disableScheduling gives the node no more tasks; what becomes of those that it has
// is the option of the body. A node has no stamp, and so no conditions.
func disableScheduling(c *call) error {
	var body struct {
		Option batch.DisableSchedulingOption `json:"nodeDisableSchedulingOption"`
	}
	if err := c.decodeOptional(kindOther, &body); err != nil {
		return err
	}
	if err := c.Control.DisableScheduling(c.context(), c.account, c.pool(), c.node(), body.Option); err != nil {
		return err
	}
	return c.acted(http.StatusOK)
}

func enableScheduling(c *call) error {
	if err := c.Control.EnableScheduling(c.context(), c.account, c.pool(), c.node()); err != nil {
		return err
	}
	return c.acted(http.StatusOK)
}
