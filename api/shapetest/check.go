package shapetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Check holds one answer against the protocol and returns what is wrong with it, one sentence a
// problem, or nil.
//
// Path is the request's path as it was sent, percent-encoding included, with its query behind a
// question mark if it had one: $select lifts the duty to send every field. An empty apiVersion
// stands for the api-version of the query. The body of a file read is not looked at and may be
// nil. Paths beside the data plane (management, extensions, health) are not judged.
func Check(method, path, apiVersion string, status int, header http.Header, body []byte) []string {
	a := newAnswer(method, path, apiVersion, status)
	if a.foreign() {
		return nil
	}
	a.checkEnvelope(header)
	switch {
	case status == http.StatusNotModified:
		a.checkNoBody(header, body)
	case status >= 400:
		a.checkError(header, body)
	case a.operation == nil:
		a.problemf("the protocol has no such operation")
	default:
		a.checkSuccess(header, body)
	}
	return a.problems
}

// answer is one answer under examination.
type answer struct {
	method    string
	path      string // without the leading slash
	version   string // date of the api-version, as 2020-09-01
	label     string // names the answer in problems
	status    int
	query     url.Values
	operation *operation
	selected  map[string]bool // top-level fields of $select; true if the whole field
	problems  []string
}

func newAnswer(method, path, apiVersion string, status int) *answer {
	path, rawQuery, _ := strings.Cut(path, "?")
	query, err := url.ParseQuery(rawQuery)
	if apiVersion == "" {
		apiVersion = query.Get("api-version")
	}
	a := &answer{
		method:   method,
		path:     strings.TrimPrefix(path, "/"),
		version:  versionDate(apiVersion),
		status:   status,
		query:    query,
		selected: selection(query.Get("$select")),
	}
	a.path = appendOldAction(method, a.path, a.version, query)
	a.operation = reference().find(method, a.path)
	a.label = method + " " + a.path
	if a.operation != nil {
		a.label = a.operation.Name
	}
	a.label = fmt.Sprintf("%s (%s) %d", a.label, apiVersion, status)
	if err != nil {
		a.problemf("the query cannot be read: %v", err)
	}
	return a
}

// foreign tells paths that do not belong to the data plane.
func (a *answer) foreign() bool {
	first, _, _ := strings.Cut(a.path, "/")
	switch first {
	case "", "ext", "subscriptions", "portal", "healthz", "readyz", "metrics", "debug":
		return true
	}
	return false
}

func (a *answer) problemf(format string, args ...any) {
	a.problems = append(a.problems, a.label+": "+fmt.Sprintf(format, args...))
}

// checkEnvelope judges what every answer carries, whatever its status.
func (a *answer) checkEnvelope(header http.Header) {
	if got := header.Get("DataServiceVersion"); got != "3.0" {
		a.problemf("header DataServiceVersion is %q, want 3.0", got)
	}
	if !isGUID(header.Get("request-id")) {
		a.problemf("header request-id is %q, want a GUID", header.Get("request-id"))
	}
}

func (a *answer) checkSuccess(header http.Header, body []byte) {
	op := a.operation
	if a.status != op.Status {
		a.problemf("status %d, want %d", a.status, op.Status)
		return
	}
	for _, h := range watchedHeaders {
		a.checkHeader(h, op.presence(h), header.Get(h))
	}
	switch {
	case op.Body == fileBody:
		return
	case op.Body == "":
		a.checkEmpty(body)
		return
	}
	object, ok := a.decode(body)
	if !ok {
		return
	}
	a.checkMetadata(object)
	if op.list {
		a.checkList(object)
		return
	}
	delete(object, metadataName)
	a.checkObject(object, op.model, op.model, a.selected)
	a.checkAgreement(header, object)
}

func (a *answer) checkList(object map[string]any) {
	items, ok := object["value"].([]any)
	if !ok {
		a.problemf("value is %s, want an array", kindOf(object["value"]))
		return
	}
	for i, item := range items {
		a.checkValue(item, a.operation.model, fmt.Sprintf("value[%d]", i), a.selected)
	}
	for name, v := range object {
		switch name {
		case "value", metadataName:
		case "odata.nextLink":
			a.checkValue(v, "url", name, nil)
		default:
			a.problemf("unknown field %s beside value", name)
		}
	}
}

// checkMetadata judges odata.metadata, the account's URL with the name of what follows.
func (a *answer) checkMetadata(object map[string]any) {
	got, ok := object[metadataName].(string)
	if !ok {
		a.problemf("odata.metadata is missing")
		return
	}
	name := a.operation.Metadata
	for before, old := range a.operation.MetadataBefore {
		if a.version < before {
			name = old
		}
	}
	want := "/$metadata#" + name
	if !a.operation.list && !strings.Contains(want, "Entities.") {
		want += "/@Element"
	}
	if !strings.HasSuffix(got, want) || !isURL(got) {
		a.problemf("odata.metadata is %q, want a URL that ends in %s", got, want)
	}
}

// checkAgreement compares the headers that repeat fields of the body.
func (a *answer) checkAgreement(header http.Header, object map[string]any) {
	if etag := header.Get("ETag"); etag != "" && object["eTag"] != nil && object["eTag"] != etag {
		a.problemf("header ETag is %q and field eTag %q", etag, object["eTag"])
	}
	text, _ := object["lastModified"].(string)
	inBody, err := time.Parse(time.RFC3339, text)
	inHeader, headerErr := http.ParseTime(header.Get("Last-Modified"))
	if err == nil && headerErr == nil && !inBody.Truncate(time.Second).Equal(inHeader) {
		a.problemf("header Last-Modified is %q and field lastModified %q", header.Get("Last-Modified"), text)
	}
}

func (a *answer) checkError(header http.Header, body []byte) {
	if a.method == http.MethodHead {
		a.checkEmpty(body)
		return
	}
	a.checkHeader("Content-Type", always, header.Get("Content-Type"))
	object, ok := a.decode(body)
	if !ok {
		return
	}
	const want = "/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element"
	if got, _ := object[metadataName].(string); !strings.HasSuffix(got, want) {
		a.problemf("odata.metadata of the error is %q, want a URL that ends in %s", got, want)
	}
	delete(object, metadataName)
	a.checkObject(object, "error", "error", nil)
	code, _ := object["code"].(string)
	if status, known := reference().errors[code]; known && status != a.status {
		a.problemf("error %s has status %d, want %d", code, a.status, status)
	}
	message, _ := object["message"].(map[string]any)
	if text, _ := message["value"].(string); !strings.Contains(text, "\nRequestId:") || !strings.Contains(text, "\nTime:") {
		a.problemf("error message %q does not end in lines RequestId and Time", text)
	}
}

func (a *answer) checkNoBody(header http.Header, body []byte) {
	a.checkEmpty(body)
	if a.method != http.MethodGet && a.method != http.MethodHead {
		a.problemf("only GET and HEAD may be answered with 304")
	}
	if header.Get("Content-Type") != "" {
		a.problemf("header Content-Type is %q without a body", header.Get("Content-Type"))
	}
}

func (a *answer) checkEmpty(body []byte) {
	if len(body) > 0 {
		a.problemf("a body of %d bytes, want none", len(body))
	}
}

func (a *answer) decode(body []byte) (map[string]any, bool) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		a.problemf("the body is no JSON object: %v", err)
		return nil, false
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		a.problemf("the body goes on behind the JSON object")
	}
	return object, true
}
