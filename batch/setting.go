package batch

import (
	"encoding/json"
	"fmt"
	"strings"
)

// EnvironmentSetting is one variable of a task's environment. A setting
// without a value is the empty string.
type EnvironmentSetting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// MetadataItem is a name and a value that the service keeps for the user and
// never reads.
type MetadataItem struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// NameValue is one fact of a failure.
type NameValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Opaque is a part of a specification that is stored and given back as it
// came, because a machine of one's own has nothing it could mean.
type Opaque = json.RawMessage

// UserIdentity says as whom a task runs: a named user of the pool or an auto
// user. Without one it is the pool's auto user without administrator rights.
type UserIdentity struct {
	Username string    `json:"username,omitempty"`
	AutoUser *AutoUser `json:"autoUser,omitempty"`
}

// AutoUser is a user that the node makes: one a task, or one for the pool.
type AutoUser struct {
	Scope          AutoUserScope  `json:"scope,omitempty"`
	ElevationLevel ElevationLevel `json:"elevationLevel,omitempty"`
}

// AutoUserScope is how long an auto user lives.
type AutoUserScope string

// Scopes of auto users.
const (
	ScopeTask AutoUserScope = "task"
	ScopePool AutoUserScope = "pool"
)

// ElevationLevel is how much a user may do on its node.
type ElevationLevel string

// Levels of users.
const (
	ElevationNonAdmin ElevationLevel = "nonadmin"
	ElevationAdmin    ElevationLevel = "admin"
)

// UserAccount is a named user on every node of a pool. The password is kept
// for nobody: it is dropped when the pool is added, and never shown.
type UserAccount struct {
	Name                     string         `json:"name"`
	Password                 string         `json:"password,omitempty"`
	ElevationLevel           ElevationLevel `json:"elevationLevel,omitempty"`
	LinuxUserConfiguration   Opaque         `json:"linuxUserConfiguration,omitempty"`
	WindowsUserConfiguration Opaque         `json:"windowsUserConfiguration,omitempty"`
}

// Limits on what a specification may carry. The request body is bounded
// before; these keep a single resource reasonable.
const (
	maxDisplayName = 1024
	maxCommandLine = 32 * 1024
	maxSettings    = 1000
)

// normalizeUser leaves nil as it is: versions show the pool's auto user, whom it
// stands for, in words of their own.
func normalizeUser(property string, u *UserIdentity, scope AutoUserScope) (*UserIdentity, error) {
	if u == nil || (u.Username == "" && u.AutoUser == nil) {
		return nil, nil
	}
	if u.Username != "" {
		if u.AutoUser != nil {
			return nil, InvalidValue(property, u.Username, "username and autoUser are mutually exclusive")
		}
		return u, nil
	}
	auto := *u.AutoUser
	if auto.Scope == "" {
		auto.Scope = scope
	}
	if err := word(property+".autoUser.scope", &auto.Scope, ScopePool, ScopeTask); err != nil {
		return nil, err
	}
	if err := word(property+".autoUser.elevationLevel", &auto.ElevationLevel, ElevationNonAdmin, ElevationAdmin); err != nil {
		return nil, err
	}
	return &UserIdentity{AutoUser: &auto}, nil
}

// word brings an enumeration to the casing of the service; the first of the
// allowed words is the default.
func word[T ~string](property string, value *T, allowed ...T) error {
	if *value == "" {
		*value = allowed[0]
		return nil
	}
	for _, w := range allowed {
		if strings.EqualFold(string(*value), string(w)) {
			*value = w
			return nil
		}
	}
	return InvalidValue(property, *value, "It is one of %s", joinWords(allowed))
}

func joinWords[T ~string](words []T) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = string(w)
	}
	return strings.Join(parts, ", ")
}

func checkDisplayName(name string) error {
	if len([]rune(name)) > maxDisplayName {
		return InvalidValue("displayName", name, "A display name has at most %d characters", maxDisplayName)
	}
	return nil
}

func checkCommandLine(property, line string) error {
	switch {
	case strings.TrimSpace(line) == "":
		return Missing(property)
	case len(line) > maxCommandLine:
		return InvalidValue(property, line, "A command line has at most %d bytes", maxCommandLine)
	case strings.ContainsRune(line, 0):
		return InvalidValue(property, line, "A command line has no NUL character")
	}
	return nil
}

func checkEnvironment(property string, settings []EnvironmentSetting) error {
	if len(settings) > maxSettings {
		return InvalidValue(property, len(settings), "There are at most %d environment settings", maxSettings)
	}
	for i, s := range settings {
		at := fmt.Sprintf("%s[%d]", property, i)
		if s.Name == "" || strings.ContainsAny(s.Name, "=\x00") {
			return InvalidValue(at+".name", s.Name, "A name is not empty and has neither = nor NUL")
		}
		if strings.ContainsRune(s.Value, 0) {
			return InvalidValue(at+".value", s.Value, "A value has no NUL character")
		}
	}
	return nil
}

func checkMetadata(items []MetadataItem) error {
	if len(items) > maxSettings {
		return InvalidValue("metadata", len(items), "There are at most %d metadata items", maxSettings)
	}
	for i, item := range items {
		if item.Name == "" {
			return InvalidValue(fmt.Sprintf("metadata[%d].name", i), item.Name, "A metadata item has a name")
		}
	}
	return nil
}
