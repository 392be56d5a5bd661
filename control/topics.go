package control

import "github.com/batchyard/batchyard/batch"

// Topics that verbs announce, for those who watch the store. Each says "look
// again"; none says what happened.
const (
	// TopicPools: a pool was added or is gone.
	TopicPools = "pools"
	// TopicNodes: the set of nodes that should exist has changed.
	TopicNodes = "nodes"
	// TopicResize: a pool has to move towards its target, or a step of that is
	// done.
	TopicResize = "resize"
	// TopicEndings: a job is to be disabled, terminated or deleted.
	TopicEndings = "endings"
	// TopicUnfit: tasks may wait for a pool that has no node large enough.
	TopicUnfit = "unfit"
	// TopicExpiries: the wall clock of a job was set.
	TopicExpiries = "expiries"
)

// ReadyTopic is announced when tasks of a pool became ready or slots of it
// free.
func ReadyTopic(account batch.AccountName, pool batch.PoolID) string {
	return "ready/" + batch.Key(account) + "/" + batch.Key(pool)
}
