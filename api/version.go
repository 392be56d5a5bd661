package api

import (
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// parseVersion finds the version that a request names. One that is not known
// but has a date is served as the newest that is not younger: what was published
// beside the others differs little from it, and clients of the day after
// tomorrow find a server.
func (s *server) parseVersion(name string) (*version, error) {
	if v, ok := s.versions[name]; ok {
		return v, nil
	}
	if name == "" {
		return nil, &batch.Error{
			Code:    batch.CodeMissingParameter,
			Message: "A query parameter that is mandatory for this request is not specified.",
			Details: []batch.Detail{
				{Key: "QueryParameterName", Value: "api-version"},
				{Key: "Reason", Value: "The newest version is " + published[len(published)-1]},
			},
		}
	}
	if known := nearest(name); known != "" {
		if s.strange.first(name) {
			s.Log.Info("api-version not known, served as another", "version", name, "as", known)
		}
		return s.versions[known], nil
	}
	reason := "The newest version is " + published[len(published)-1]
	for _, old := range otherProtocol {
		if strings.EqualFold(name, old) {
			reason = "This version is another protocol, of work items and virtual machines; the oldest version served is " + published[0]
		}
	}
	return nil, &batch.Error{
		Code:    batch.CodeUnsupportedVersion,
		Message: "The api-version of the request is not supported.",
		Details: []batch.Detail{
			{Key: "QueryParameterName", Value: "api-version"},
			{Key: "QueryParameterValue", Value: clip(name)},
			{Key: "Reason", Value: reason},
		},
	}
}

// dated is the form of all versions: a date, and in most a number of the
// protocol behind it.
var dated = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(\.\d{1,4}\.\d{1,4})?$`)

// nearest is the newest published version that is not younger than a name with
// a date; "" if there is none, or no date.
func nearest(name string) string {
	if !dated.MatchString(name) {
		return ""
	}
	day := name[:len(time.DateOnly)]
	if _, err := time.Parse(time.DateOnly, day); err != nil {
		return ""
	}
	found := ""
	for _, v := range published {
		if v[:len(time.DateOnly)] <= day {
			found = v
		}
	}
	return found
}

// strangers are names of versions that were told of in the log.
type strangers struct {
	mu    sync.Mutex // guards names
	names map[string]bool
}

// maxStrangers bounds them: anybody may send names.
const maxStrangers = 100

// first tells whether a name is new here, once.
func (s *strangers) first(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] || len(s.names) >= maxStrangers {
		return false
	}
	if s.names == nil {
		s.names = map[string]bool{}
	}
	s.names[name] = true
	return true
}
