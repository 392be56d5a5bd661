package api

import (
	"net/url"

	"github.com/batchyard/batchyard/batch"
)

// unsupported answers an operation of the protocol that this release does not
// have, and says what to do instead if there is something.
func unsupported(reason string) handler {
	return func(*call) error {
		return &batch.Error{
			Code:    batch.CodeNotImplemented,
			Message: "The operation is not supported by this service: " + reason,
			Details: []batch.Detail{{Key: "Reason", Value: reason}},
		}
	}
}

// Reasons that several operations share.
const (
	noAutoScale    = "pools are not scaled automatically by this release; set targetDedicatedNodes and resize the pool"
	noSchedules    = "job schedules are not supported by this release; add the job when it is due"
	noCertificates = "certificates are not supported by this release; use resourceFiles"
	noNodeUsers    = "nodes have no users that could sign in"
	noRemoteLogin  = "nodes offer no remote login; the machine itself is yours"
	noVirtual      = "nodes are processes on machines of your own and cannot be deallocated or started; resize the pool"
	noStatistics   = "statistics over the lifetime of an account are not kept"
	noNodeLogs     = "nodes do not upload their logs; the agent writes them on its machine"
	noUpgrade      = "the operating system of a node is that of its machine and is upgraded there"
)

// missing answers for something of which an account has none.
func missing(code batch.Code, noun string) handler {
	return func(c *call) error {
		return batch.Errorf(code, "The specified %s does not exist: %q.", noun, clip(lastParameter(c)))
	}
}

func lastParameter(c *call) string {
	if len(c.params) == 0 {
		name, err := url.PathUnescape(c.r.URL.EscapedPath())
		if err != nil {
			return ""
		}
		return name
	}
	return c.params[len(c.params)-1]
}

// onNode answers for something of a node, after it is clear that there is such
// a node.
func onNode(then handler) handler {
	return func(c *call) error {
		if _, err := c.Control.Node(c.context(), c.account, c.pool(), c.node()); err != nil {
			return err
		}
		return then(c)
	}
}

// usageMetrics is what the service itself answers since it retired them.
func usageMetrics(*call) error {
	return batch.Errorf(codeUsageMetricsRetired, "Pool usage metrics are retired and not kept by this service.")
}
