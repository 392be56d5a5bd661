package batch

import (
	"fmt"
	"strings"
)

// Identities. Distinct types so that a job cannot be passed for a task. Case
// is kept, yet two ids of one scope may not differ by case alone; [Key] gives
// the form in which they are compared and stored.
type (
	// AccountName names an account: 3 to 24 lower-case letters and digits.
	AccountName string
	// PoolID names a pool of an account.
	PoolID string
	// NodeID names a compute node; made by the service, unique on a server.
	NodeID string
	// JobID names a job of an account.
	JobID string
	// TaskID names a task of a job.
	TaskID string
)

// Key is the form of an id in which look-ups and uniqueness ignore case.
func Key[T ~string](id T) string { return strings.ToLower(string(id)) }

// maxIDLength is the service's limit for ids of pools, jobs and tasks.
const maxIDLength = 64

// checkID reports why an id is not legal, or "".
func checkID(id string) string {
	if id == "" {
		return "The id is required"
	}
	if len(id) > maxIDLength {
		return fmt.Sprintf("An id has at most %d characters, this one has %d", maxIDLength, len(id))
	}
	for _, r := range id {
		if !idRune(r) {
			return fmt.Sprintf("An id has letters, digits, hyphens and underscores only; %q is none of them", r)
		}
	}
	return ""
}

func idRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}
