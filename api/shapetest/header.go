package shapetest

import (
	"net/http"
	"regexp"
	"strings"
)

// watchedHeaders are the headers whose presence depends on the operation. One that the reference
// does not name for an operation must be absent there.
var watchedHeaders = []string{
	"Content-Type", "ETag", "Last-Modified", "DataServiceId", "Location",
	"ocp-batch-file-isdirectory", "ocp-batch-file-mode", "ocp-batch-file-url", "ocp-creation-time",
}

var (
	jsonType = regexp.MustCompile(`^application/json; ?odata=minimalmetadata$`)
	etagForm = regexp.MustCompile(`^0x[0-9A-F]+$`)
	modeForm = regexp.MustCompile(`^0o[0-7]+$`)
	guidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

func (a *answer) checkHeader(name string, p presence, value string) {
	switch {
	case value == "" && p == always:
		a.problemf("header %s is missing", name)
	case value == "":
	case p == never:
		a.problemf("header %s is %q, want none", name, value)
	case !a.headerForm(name, value):
		a.problemf("header %s is %q, which is not its form", name, value)
	}
}

// headerForm tells whether the value has the form that the service gives this header.
func (a *answer) headerForm(name, value string) bool {
	switch name {
	case "Content-Type":
		return a.typeForm(value)
	case "ETag":
		return etagForm.MatchString(value)
	case "Last-Modified", "ocp-creation-time":
		_, err := http.ParseTime(value)
		return err == nil
	case "DataServiceId", "Location", "ocp-batch-file-url":
		return isURL(value)
	case "ocp-batch-file-isdirectory":
		return value == "True" || value == "False"
	case "ocp-batch-file-mode":
		return modeForm.MatchString(value)
	}
	return true
}

// typeForm knows the two media types of a file and the two spellings of the JSON one.
func (a *answer) typeForm(value string) bool {
	isFile := a.operation != nil && strings.HasSuffix(a.operation.Name, "/files/{fileName}")
	if a.status < 400 && (isFile || a.operation.Body == fileBody) {
		media, _, _ := strings.Cut(value, ";")
		return media == "application/octet-stream" || media == "text/plain"
	}
	return jsonType.MatchString(value)
}

func isGUID(s string) bool {
	return guidForm.MatchString(strings.ToLower(s))
}
