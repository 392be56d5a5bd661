package shapetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

var (
	timeForm     = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z$`)
	durationForm = regexp.MustCompile(`^-?P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d{0,6}[1-9])?S)?)?$`)
)

// casingOpen is the date of the first api-version of which no answer of the service is known. Its
// clients compare words in lower case, so either casing may be right.
const casingOpen = "2025-01-01"

// selection reads the top-level fields of $select. The value is false for a field of which only
// a part was asked (executionInfo/exitCode), whose own fields are then free to be missing.
func selection(text string) map[string]bool {
	if text == "" {
		return nil
	}
	selected := map[string]bool{}
	for name := range strings.SplitSeq(text, ",") {
		top, _, partial := strings.Cut(strings.TrimSpace(name), "/")
		selected[top] = selected[top] || !partial
	}
	return selected
}

// checkObject judges the fields of one object of the named model. Where names the object in
// problems; selected is nil unless the request had $select.
func (a *answer) checkObject(object map[string]any, model, where string, selected map[string]bool) {
	fields := reference().models[model]
	for _, name := range slices.Sorted(maps.Keys(object)) {
		spec, known := fields[name]
		switch {
		case strings.Contains(name, "@odata."):
		case !known:
			a.problemf("%s.%s is not a field of the protocol", where, name)
		case spec.from > a.version:
			a.problemf("%s.%s came only with api-version %s", where, name, spec.from)
		case spec.to != "" && spec.to <= a.version:
			a.problemf("%s.%s went away with api-version %s", where, name, spec.to)
		default:
			a.checkField(object[name], name, spec.kind, where, selected)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		a.checkPresence(object, name, fields[name], where, selected)
	}
}

func (a *answer) checkField(value any, name, kind, where string, selected map[string]bool) {
	whole, asked := selected[name]
	if selected != nil && !asked {
		a.problemf("%s.%s was not selected", where, name)
	}
	if selected != nil && asked && !whole {
		a.checkPart(value, kind, where+"."+name)
		return
	}
	a.checkValue(value, kind, where+"."+name, nil)
}

// checkPart judges an object of which the request selected only some fields.
func (a *answer) checkPart(value any, kind, where string) {
	object, ok := value.(map[string]any)
	fields, isModel := reference().models[kind]
	if !ok || !isModel {
		a.checkValue(value, kind, where, nil)
		return
	}
	for name, v := range object {
		if spec, known := fields[name]; known {
			a.checkPart(v, spec.kind, where+"."+name)
		} else {
			a.problemf("%s.%s is not a field of the protocol", where, name)
		}
	}
}

func (a *answer) checkPresence(object map[string]any, name string, spec field, where string, selected map[string]bool) {
	if _, there := object[name]; there {
		return
	}
	if _, asked := selected[name]; selected != nil && !asked {
		return
	}
	if spec.from > a.version || spec.to != "" && spec.to <= a.version {
		return
	}
	switch {
	case spec.presence == always && a.version >= spec.alwaysSince:
		a.problemf("%s.%s is missing", where, name)
	case spec.with != "" && object[spec.with] != nil:
		a.problemf("%s.%s is missing beside %s", where, name, spec.with)
	case spec.whenField != "" && fmt.Sprint(object[spec.whenField]) == spec.whenValue:
		a.problemf("%s.%s is missing although %s is %s", where, name, spec.whenField, spec.whenValue)
	}
}

// checkValue judges one value of any kind: a plain one, a model, or an array of either.
func (a *answer) checkValue(value any, kind, where string, selected map[string]bool) {
	if item, isArray := strings.CutPrefix(kind, "["); isArray {
		items, ok := value.([]any)
		if !ok {
			a.problemf("%s is %s, want an array", where, kindOf(value))
			return
		}
		for i, v := range items {
			a.checkValue(v, strings.TrimSuffix(item, "]"), fmt.Sprintf("%s[%d]", where, i), selected)
		}
		return
	}
	if isPlain(kind) {
		if !a.plainForm(value, kind) {
			a.problemf("%s is %s, want %s", where, describe(value), kind)
		}
		return
	}
	object, ok := value.(map[string]any)
	if !ok {
		a.problemf("%s is %s, want an object", where, kindOf(value))
		return
	}
	a.checkObject(object, kind, where, selected)
}

// isPlain tells the kinds that are no models.
func isPlain(kind string) bool {
	switch kind {
	case "string", "integer", "number", "boolean", "time", "duration", "url", "map", "any":
		return true
	}
	return strings.HasPrefix(kind, "word(")
}

func (a *answer) plainForm(value any, kind string) bool {
	switch v := value.(type) {
	case string:
		switch kind {
		case "string", "any":
			return true
		case "time":
			return timeForm.MatchString(v)
		case "duration":
			return durationForm.MatchString(v) && !strings.HasSuffix(v, "P") && !strings.HasSuffix(v, "T")
		case "url":
			return isURL(v)
		}
		words, isWord := strings.CutPrefix(kind, "word(")
		return isWord && slices.ContainsFunc(strings.Split(strings.TrimSuffix(words, ")"), "|"), func(word string) bool {
			return word == v || a.version >= casingOpen && strings.EqualFold(word, v)
		})
	case json.Number:
		return kind == "number" || kind == "any" || kind == "integer" && !strings.ContainsAny(v.String(), ".eE")
	case bool:
		return kind == "boolean" || kind == "any"
	case map[string]any:
		return kind == "map" || kind == "any"
	case []any:
		return kind == "any"
	}
	return false // null is never sent
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func describe(value any) string {
	if s, ok := value.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return kindOf(value)
}

func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null or missing"
	case json.Number:
		return "the number " + v.String()
	case bool:
		return fmt.Sprint(v)
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	}
	return "a string"
}
