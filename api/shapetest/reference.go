package shapetest

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

//go:embed testdata/operations.json testdata/models.json
var testdata embed.FS

// fileBody is the body of an operation that answers with the bytes of a file.
const fileBody = "file"

// metadataName is the field that opens every JSON answer.
const metadataName = "odata.metadata"

// shapes is the knowledge of testdata, parsed.
type shapes struct {
	operations []*operation
	errors     map[string]int // status of each error code the service was seen to answer
	models     map[string]map[string]field
}

// operation is one row of operations.json.
type operation struct {
	Name     string `json:"operation"` // method and path template
	Status   int    `json:"status"`
	Body     string `json:"body"`
	Metadata string `json:"metadata"`
	// MetadataBefore has what Metadata was in the versions before a date.
	MetadataBefore map[string]string `json:"metadataBefore"`
	Headers        string            `json:"headers"`

	method  string
	path    *regexp.Regexp
	list    bool
	model   string
	headers map[string]presence // by lower-case name
}

// presence says when a field or a header is there.
type presence int

const (
	never presence = iota
	sometimes
	always
)

// field is one field of a model; testdata/README.md explains the words it is parsed from.
type field struct {
	kind        string
	presence    presence
	alwaysSince string // date of the first api-version that always sends it, or empty
	from, to    string // dates: first api-version with the field, first one without it again
	with        string // neighbour that it accompanies
	whenField   string // neighbour and its value that make it due
	whenValue   string
}

// reference parses testdata once. A mistake there is a mistake of this package, hence the panic.
var reference = sync.OnceValue(func() *shapes {
	s, err := parseShapes()
	if err != nil {
		panic("shapetest: " + err.Error())
	}
	return s
})

func parseShapes() (*shapes, error) {
	var table struct {
		Operations []*operation   `json:"operations"`
		Errors     map[string]int `json:"errors"`
	}
	if err := readJSON("operations.json", &table); err != nil {
		return nil, err
	}
	var models map[string]map[string]string
	if err := readJSON("models.json", &models); err != nil {
		return nil, err
	}
	s := &shapes{operations: table.Operations, errors: table.Errors, models: map[string]map[string]field{}}
	for name, fields := range models {
		s.models[name] = map[string]field{}
		for f, text := range fields {
			parsed, err := parseField(text)
			if err != nil {
				return nil, fmt.Errorf("model %s, field %s: %w", name, f, err)
			}
			s.models[name][f] = parsed
		}
	}
	for _, op := range s.operations {
		op.parse()
	}
	return s, s.checkKinds()
}

func readJSON(name string, into any) error {
	text, err := testdata.ReadFile("testdata/" + name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// checkKinds refuses a kind that names no model.
func (s *shapes) checkKinds() error {
	for name, fields := range s.models {
		for f, spec := range fields {
			kind := strings.Trim(spec.kind, "[]")
			if _, isModel := s.models[kind]; !isModel && !isPlain(kind) {
				return fmt.Errorf("model %s, field %s: unknown kind %s", name, f, kind)
			}
		}
	}
	for _, op := range s.operations {
		if _, isModel := s.models[op.model]; op.model != "" && !isModel {
			return fmt.Errorf("operation %s: unknown model %s", op.Name, op.model)
		}
	}
	return nil
}

func parseField(text string) (field, error) {
	words := strings.Fields(text)
	f := field{kind: words[0], presence: sometimes}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "always":
			f.presence, f.alwaysSince = always, value
		case "from":
			f.from = value
		case "to":
			f.to = value
		case "with":
			f.with = value
		case "when":
			f.whenField, f.whenValue, _ = strings.Cut(value, ":")
		default:
			return field{}, fmt.Errorf("unknown word %q", word)
		}
	}
	return f, nil
}

func (op *operation) parse() {
	method, template, _ := strings.Cut(op.Name, " ")
	op.method = method
	pattern := regexp.QuoteMeta(template)
	pattern = strings.ReplaceAll(pattern, `\{fileName\}`, `.+`)
	pattern = regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(pattern, `[^/]+?`)
	op.path = regexp.MustCompile(`^` + pattern + `$`)
	if op.Body != fileBody {
		op.model, op.list = strings.CutPrefix(op.Body, "list of ")
	}
	op.headers = map[string]presence{}
	for _, word := range strings.Fields(op.Headers) {
		name, optional := strings.CutSuffix(word, "?")
		op.headers[strings.ToLower(name)] = always
		if optional {
			op.headers[strings.ToLower(name)] = sometimes
		}
	}
}

func (op *operation) presence(header string) presence {
	return op.headers[strings.ToLower(header)]
}

func (s *shapes) find(method, path string) *operation {
	for _, op := range s.operations {
		if op.method == method && op.path.MatchString(path) {
			return op
		}
	}
	return nil
}

// oldActions are the words that the first two api-versions wrote into the query where later ones
// have a path segment: POST pools/p?resize.
var oldActions = []string{
	"resize", "stopresize", "enableautoscale", "disableautoscale", "evaluateautoscale", "upgradeos",
	"removenodes", "updateproperties", "enable", "disable", "terminate", "reboot", "reimage",
	"enablescheduling", "disablescheduling", "canceldelete",
}

func appendOldAction(method, path, version string, query url.Values) string {
	if method != "POST" || version >= "2015-12-01" {
		return path
	}
	for _, action := range oldActions {
		if query.Has(action) {
			return path + "/" + action
		}
	}
	return path
}

// versionDate is the date of an api-version, by which versions are ordered. An answer to a
// request without one is judged as the newest version.
func versionDate(apiVersion string) string {
	const length = len("2006-01-02")
	if len(apiVersion) < length {
		return "9999-12-31"
	}
	return apiVersion[:length]
}
