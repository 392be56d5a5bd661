package uid

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// BlockSize is how many numbers belong to one node: the pool's auto user, up to
// 63 named users, and the users that tasks have for themselves.
const BlockSize = 512

// Space is a range of numbers that are used as users and as groups.
type Space struct {
	First, Last uint32
}

// The numbers of an ordinary machine, above those that service managers and
// containers take and below the sign of 32 bits, which some programs take for
// one. A container that has 16 bits of numbers has those above its people's and
// below its service manager's.
var (
	wide   = Space{0x7000_0000, 0x7ffd_ffff}
	narrow = Space{10_000, 60_000}
)

func (s Space) blocks() uint32 {
	if s.Last < s.First {
		return 0
	}
	return uint32((uint64(s.Last) - uint64(s.First) + 1) / BlockSize)
}

func (s Space) empty() bool           { return s == Space{} }
func (s Space) block(n uint32) uint32 { return s.First + n*BlockSize }
func (s Space) has(first uint32) bool {
	return first >= s.First && (first-s.First)%BlockSize == 0 && (first-s.First)/BlockSize < s.blocks()
}
func (s Space) after(first uint32) uint32 {
	return s.block(((first-s.First)/BlockSize + 1) % s.blocks())
}
func (s Space) within(o Space) Space { return Space{max(s.First, o.First), min(s.Last, o.Last)} }

// errNoNumbers says that this process cannot become other users.
var errNoNumbers = errors.New("this process has no user numbers to give to tasks: its user namespace has too few")

// Available tells whether this process may run tasks as users of their own as
// far as numbers go.
func Available() bool {
	_, err := machineSpace()
	return err == nil
}

// machineSpace is what this process may hand out: in a user namespace not all
// numbers mean somebody.
func machineSpace() (Space, error) {
	users, err := mapped("/proc/self/uid_map")
	if err != nil {
		return Space{}, err
	}
	groups, err := mapped("/proc/self/gid_map")
	if err != nil {
		return Space{}, err
	}
	for _, wanted := range []Space{wide, narrow} {
		var best Space
		for _, u := range users {
			for _, g := range groups {
				if s := wanted.within(u).within(g); s.blocks() > best.blocks() {
					best = s
				}
			}
		}
		if best.blocks() > 0 {
			return best, nil
		}
	}
	return Space{}, errNoNumbers
}

// mapped reads the ranges of numbers that mean somebody, as seen inside.
func mapped(file string) ([]Space, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read user numbers of the namespace: %w", err)
	}
	return parseMap(string(text))
}

func parseMap(text string) ([]Space, error) {
	var all []Space
	for line := range strings.Lines(text) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return nil, fmt.Errorf("read user numbers of the namespace: %w", err)
		}
		if count > 0 {
			all = append(all, Space{uint32(inside), uint32(min(inside+count-1, 1<<32-1))})
		}
	}
	return all, nil
}
