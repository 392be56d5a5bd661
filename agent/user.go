package agent

import (
	"fmt"
	"slices"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/agent/uid"
	"github.com/batchyard/batchyard/batch"
)

// UIDs is how many user numbers belong to one node: the pool's auto user, up
// to 63 named users, and an auto user for each slot.
const UIDs = uid.BlockSize

const firstSlotUID = 64

// users maps identities to users of the machine. They have numbers and no
// entry in the machine's user database, so that nothing of them stays behind.
type users struct {
	base uint32
	// own is false where all tasks run as the agent's user.
	own bool
}

// user is who a command runs as; a nil run is the agent's own user.
type user struct {
	run   *run.User
	admin bool
	name  string
}

func (u users) resolve(accounts []batch.UserAccount, identity *batch.UserIdentity, slot int) (user, error) {
	number, name, level := u.base, "_azbatch", batch.ElevationNonAdmin
	switch {
	case identity == nil:
	case identity.Username != "":
		i := slices.IndexFunc(accounts, func(a batch.UserAccount) bool { return batch.Key(a.Name) == batch.Key(identity.Username) })
		if i < 0 || i >= firstSlotUID-1 {
			return user{}, userFailure(batch.FailureUserNotFound, fmt.Sprintf("The pool has no user account %q", identity.Username))
		}
		number, name, level = u.base+1+uint32(i), accounts[i].Name, accounts[i].ElevationLevel
	case identity.AutoUser != nil:
		level = identity.AutoUser.ElevationLevel
		if identity.AutoUser.Scope == batch.ScopeTask {
			number = u.base + firstSlotUID + uint32(slot)
			name = fmt.Sprintf("_azbatchtask_%d", slot)
		}
	}
	admin := level == batch.ElevationAdmin
	if admin || !u.own {
		return user{admin: admin, name: name}, nil
	}
	return user{run: &run.User{UID: number, GID: number}, name: name}, nil
}

// slotOf is the slot whose auto user has a number, or -1.
func (u users) slotOf(uid uint32) int {
	if first := u.base + firstSlotUID; u.own && uid >= first && uid < u.base+UIDs {
		return int(uid - first)
	}
	return -1
}
