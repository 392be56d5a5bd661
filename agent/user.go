package agent

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/agent/uid"
	"github.com/batchyard/batchyard/batch"
)

// UIDs is how many user numbers belong to one node: the pool's auto user, up
// to 63 named users, and users that tasks have for themselves.
const UIDs = uid.BlockSize

// firstTaskUID is the first number of a block that tasks have for themselves.
const firstTaskUID = 64

// users maps identities to users of the machine. They have numbers and no
// entry in the machine's user database, so that nothing of them stays behind.
type users struct {
	base uint32
	// admin: tasks may be administrators. root: the agent is root on the machine,
	// and own: it has numbers to give. As root without numbers it runs
	// administrators' tasks and no others.
	admin, root, own bool
	tasks            *taskNumbers
}

// user is who a command runs as; a nil run is the agent's own user.
type user struct {
	run   *run.User
	admin bool
	name  string
}

// resolve is the user that an identity means. The slot and the number are those
// of a task with a user of its own.
func (u users) resolve(accounts []batch.UserAccount, identity *batch.UserIdentity, slot int, own uint32) (user, error) {
	number, name, level := u.base, "_azbatch", batch.ElevationNonAdmin
	switch {
	case identity == nil:
	case identity.Username != "":
		i := slices.IndexFunc(accounts, func(a batch.UserAccount) bool { return batch.Key(a.Name) == batch.Key(identity.Username) })
		if i < 0 || i >= firstTaskUID-1 {
			return user{}, userFailure(batch.FailureUserNotFound, fmt.Sprintf("The pool has no user account %q", identity.Username))
		}
		number, name, level = u.base+1+uint32(i), accounts[i].Name, accounts[i].ElevationLevel
	case identity.AutoUser != nil:
		level = identity.AutoUser.ElevationLevel
		if identity.AutoUser.Scope == batch.ScopeTask {
			number, name = own, fmt.Sprintf("_azbatchtask_%d", slot)
		}
	}
	switch {
	case level == batch.ElevationAdmin && !u.admin:
		return user{}, userFailure(batch.FailureElevation, "The task is to run as an administrator, which this compute node cannot do",
			detail("Message", noAdminMessage))
	case level == batch.ElevationAdmin:
		return user{admin: true, name: name}, nil
	case u.own:
		return user{run: &run.User{UID: number, GID: number}, name: name}, nil
	case u.root:
		return user{}, &taskFailure{batch.FailureInfo{
			Category: batch.ServerError, Code: batch.FailureCommandLaunch, Message: "The compute node could not prepare the task",
			Details: []batch.NameValue{detail("Message", noUsersMessage)},
		}}
	}
	return user{name: name}, nil
}

const (
	noAdminMessage = "The node's agent is not root on its machine. Run the server as root, or leave out elevationLevel admin."
	noUsersMessage = "The node was given no user numbers, and tasks are not run as root."
)

// taskNumbers are the user numbers of tasks that have a user of their own. None
// is given twice as long as the machine has more, since whatever such a task left
// anywhere would be the next one's.
type taskNumbers struct {
	base uint32
	// more hands out another block of the machine's; nil where there are no more
	// than the node's own, which then go round.
	more func() (uint32, error)

	mu   sync.Mutex // guards all below
	next uint32     // 0 before the first
	last uint32
	busy map[uint32]bool
}

// take is a number that no task has.
func (n *taskNumbers) take() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if n.next == 0 || n.next > n.last {
			n.turn()
		}
		number := n.next
		n.next++
		if !n.busy[number] {
			n.busy[number] = true
			return number
		}
	}
}

// turn begins another block. The caller holds the lock.
func (n *taskNumbers) turn() {
	if n.more != nil {
		if first, err := n.more(); err == nil {
			n.next, n.last = first, first+UIDs-1
			return
		}
	}
	n.next, n.last = n.base+firstTaskUID, n.base+UIDs-1
}

// hold keeps a number that a task has from before from being given away.
func (n *taskNumbers) hold(number uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy[number] = true
}

// leave notes that nothing runs under a number any more.
func (n *taskNumbers) leave(number uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, number)
}

// lookAtUsers tells of what keeps tasks from having users of their own. As root
// they are not run without: the node takes none until that is over.
func (a *Agent) lookAtUsers() {
	way := a.tree.path
	if a.hidden != "" {
		way = filepath.Dir(a.hidden) // within it they are shown the way
	}
	switch closed := ClosedParent(way); {
	case !a.users.root:
	case !a.users.own:
		a.health.tell(causeUsers, true, errorNoUsers, noUsersMessage)
	case closed != "":
		a.health.tell(causeUsers, true, errorNoUsers, fmt.Sprintf(
			"Tasks run as users of their own, who cannot pass the folder %s, and tasks are not run as root. chmod o+x %s opens it.", closed, closed))
	default:
		a.health.over(causeUsers)
	}
}
