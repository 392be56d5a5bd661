package control

import (
	"context"
	"errors"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

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

// DesiredNodes returns all nodes that should exist, of all accounts, ordered by
// account, pool and id. TopicNodes is announced when they become others.
func (s *Service) DesiredNodes(ctx context.Context) ([]NodeWanted, error) {
	var nodes []batch.Node
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		nodes, err = tx.AllNodes()
		return err
	})
	if err != nil {
		return nil, err
	}
	wanted := make([]NodeWanted, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		size, err := batch.SizeOf(n.VMSize)
		if err != nil {
			return nil, err
		}
		wanted[i] = NodeWanted{
			Node: n.ID, Account: n.Account, Pool: n.Pool, Dedicated: n.Dedicated, VMSize: n.VMSize, Size: size,
			Slots: n.Slots, State: n.State, Leaving: n.Leaving != "",
		}
	}
	return wanted, nil
}

// NewNodeToken makes the secret of a node's agent and keeps its hash. An
// earlier one of the node is void from then on.
func (s *Service) NewNodeToken(ctx context.Context, node batch.NodeID) (string, error) {
	token := auth.NewToken()
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(node)
		if errors.Is(err, store.ErrNotFound) {
			return batch.NotFound("compute node", node)
		}
		if err != nil {
			return err
		}
		n.TokenHash = []byte(auth.HashToken(token))
		return tx.UpdateNode(&n)
	})
	if err != nil {
		return "", err
	}
	return token, nil
}

// NodeNotHeard notes on a node that nobody has heard of it yet, or any more,
// with the last word of its agent, and tells whether that is so. What it notes
// is taken back when the node is heard.
func (s *Service) NodeNotHeard(ctx context.Context, node batch.NodeID, word string) (bool, error) {
	silent := false
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(node)
		if silent = err == nil && (n.State == batch.NodeCreating || n.State == batch.NodeUnknown); !silent {
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			return err
		}
		message := "The node has not been heard of. The last line of its agent's log: " + word
		if word == "" {
			message = "The node has not been heard of, and its agent has said nothing."
		}
		if !n.Notice(batch.NodeError{Code: batch.NoticeNotHeard, Message: message}) {
			return nil
		}
		return tx.UpdateNode(&n)
	})
	return silent, err
}
