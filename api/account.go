package api

import (
	"github.com/batchyard/batchyard/batch"
)

// maxCountsPage is the most pools of which the node counts operation tells at
// a time.
const maxCountsPage = 10

// countsOfPool are the nodes of a pool by state.
type countsOfPool struct {
	PoolID      batch.PoolID `json:"poolId"`
	Dedicated   nodeCounts   `json:"dedicated"`
	LowPriority nodeCounts   `json:"lowPriority"`
}

// nodeCounts names every state that the protocol has; nodes here are never in
// some of them.
type nodeCounts struct {
	Creating            int `json:"creating"`
	Idle                int `json:"idle"`
	Offline             int `json:"offline"`
	Preempted           int `json:"preempted"`
	Rebooting           int `json:"rebooting"`
	Reimaging           int `json:"reimaging"`
	Running             int `json:"running"`
	Starting            int `json:"starting"`
	StartTaskFailed     int `json:"startTaskFailed"`
	LeavingPool         int `json:"leavingPool"`
	Unknown             int `json:"unknown"`
	Unusable            int `json:"unusable"`
	WaitingForStartTask int `json:"waitingForStartTask"`
	Deallocated         int `json:"deallocated"`
	Deallocating        int `json:"deallocating"`
	UpgradingOS         int `json:"upgradingOS"`
	Total               int `json:"total"`
}

// showNodeCounts leaves the states that no node here is ever in at zero: clients
// add up what they find and expect every name.
func showNodeCounts(n batch.NodeCounts) nodeCounts {
	total := 0
	for _, count := range n {
		total += count
	}
	return nodeCounts{
		Creating: n[batch.NodeCreating], Idle: n[batch.NodeIdle], Offline: n[batch.NodeOffline],
		Preempted: n[batch.NodePreempted], Rebooting: n[batch.NodeRebooting], Reimaging: n[batch.NodeReimaging],
		Running: n[batch.NodeRunning], Starting: n[batch.NodeStarting], StartTaskFailed: n[batch.NodeStartTaskFailed],
		LeavingPool: n[batch.NodeLeavingPool], Unknown: n[batch.NodeUnknown], Unusable: n[batch.NodeUnusable],
		WaitingForStartTask: n[batch.NodeWaitingForStart], Total: total,
	}
}

// listNodeCounts tells of all pools of the account, a page of which is shorter than
// one of any other list, as the service has it.
func listNodeCounts(c *call) error {
	q, err := c.page(maxCountsPage)
	if err != nil {
		return err
	}
	page, err := c.Control.PoolNodeCounts(c.context(), c.account, q)
	if err != nil {
		return err
	}
	return list(c, kindPoolNodeCounts, "poolnodecounts", page, func(_ *call, n *batch.PoolNodeCounts) any {
		return &countsOfPool{n.Pool, showNodeCounts(n.Dedicated), showNodeCounts(n.LowPriority)}
	})
}
