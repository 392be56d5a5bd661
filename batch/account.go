package batch

import "time"

// Account owns pools, jobs and all below. Two keys let clients move from one
// to the other while it is replaced.
type Account struct {
	Name AccountName
	// Keys are the two access keys, decoded: what Shared Key signs with.
	Keys [2][]byte
	// Created is when the account was added to this server.
	Created time.Time
}

// Validate checks the name: 3 to 24 lower-case letters and digits.
func (a Account) Validate() error {
	if len(a.Name) < 3 || len(a.Name) > 24 {
		return InvalidValue("name", a.Name, "An account name has 3 to 24 characters")
	}
	for _, r := range a.Name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return InvalidValue("name", a.Name, "An account name has lower-case letters and digits only")
		}
	}
	return nil
}
