package hostile_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
)

// row is a request to the Batch endpoint and what is wanted of its answer.
type row struct {
	method, path string
	body         string
	headers      []string
	want         want
}

const (
	poolImage = `"vmSize":"STANDARD_D2_V3","virtualMachineConfiguration":{"nodeAgentSKUId":"batch.node.ubuntu 24.04",` +
		`"imageReference":{"publisher":"canonical","offer":"ubuntu-24_04-lts","sku":"server"}}`
	deep = 100_000
)

// TestBatchRequests sends bad requests to the Batch endpoint.
func TestBatchRequests(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, s *server) {
		s.must(t, http.MethodPost, "/pools", `{"id":"p",`+poolImage+`}`)
		s.must(t, http.MethodPost, "/jobs", `{"id":"j","poolInfo":{"poolId":"p"}}`)
		s.must(t, http.MethodPost, "/jobs/j/tasks", `{"id":"t","commandLine":"/bin/true"}`)
		for name, rows := range map[string]map[string]row{
			"bodies": badBodies(), "ids": badIDs(), "queries": badQueries(), "headers": badHeaders(), "credentials": badCredentials(s),
			"files": badFiles(),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for what, r := range rows {
					t.Run(what, func(t *testing.T) {
						t.Parallel()
						a := s.send(t, s.request(t, r.method, r.path, r.body, r.headers...))
						r.want.check(t, a, faultOfBatch)
					})
				}
			})
		}
	})
}

// must sends a request that a test needs to succeed.
func (s *server) must(t *testing.T, method, path, body string) answer {
	t.Helper()
	a := s.send(t, s.request(t, method, path, body))
	if a.status >= http.StatusBadRequest {
		t.Fatalf("%s %s: status %d: %s", method, path, a.status, a.body)
	}
	return a
}

func task(more string) string { return `{"id":"x","commandLine":"y"` + more + `}` }

func addTask(body string, w want) row {
	return row{method: http.MethodPost, path: "/jobs/j/tasks", body: body, want: w}
}

// badBodies are JSON texts, or none, that tasks cannot be made of.
func badBodies() map[string]row {
	const syntax, value, missing = "InvalidRequestBody", "InvalidPropertyValue", "MissingRequiredProperty"
	rows := map[string]row{
		"none":                           addTask("", refused(syntax, "")),
		"blanks":                         addTask(" \n\t ", refused(syntax, "")),
		"no JSON":                        addTask("<xml/>", refused(syntax, "Reason")),
		"a NUL":                          addTask("\x00", refused(syntax, "Reason")),
		"a NUL behind the object":        addTask(task("")+"\x00", refused(syntax, "Reason")),
		"another object behind it":       addTask(task("")+task(""), refused(syntax, "Reason")),
		"a byte order mark twice":        addTask("\xef\xbb\xbf\xef\xbb\xbf"+task(""), refused(syntax, "Reason")),
		"UTF-16":                         addTask("\xff\xfe{\x00}\x00", refused(syntax, "Reason")),
		"invalid UTF-8 in a value":       addTask(`{"id":"x","commandLine":"`+"\xc3\x28"+`"}`, refused(syntax, "commandLine")),
		"invalid UTF-8 in a name":        addTask(`{"`+"\xff"+`":1}`, refused(syntax, "Reason")),
		"half a surrogate pair":          addTask(`{"id":"x","commandLine":"\ud800"}`, refused(syntax, "commandLine")),
		"a control character in a value": addTask("{\"id\":\"x\",\"commandLine\":\"\x01\"}", refused(syntax, "Reason")),
		"an escaped NUL":                 addTask(`{"id":"x","commandLine":"a\u0000b"}`, refused(value, "commandLine")),
		"a name twice":                   addTask(`{"id":"x","id":"y","commandLine":"z"}`, refused(syntax, "id")),
		"a name twice, once escaped":     addTask(`{"id":"x","\u0069d":"y","commandLine":"z"}`, refused(syntax, "id")),
		"a hundred thousand arrays":      addTask(`{"id":`+strings.Repeat("[", deep), refused(syntax, "Reason")),
		"as many that are closed":        addTask(`{"id":`+strings.Repeat("[", deep)+strings.Repeat("]", deep)+`}`, refused(syntax, "Reason")),
		"a hundred thousand objects":     addTask(strings.Repeat(`{"a":`, deep), refused(syntax, "Reason")),
		"an array of objects":            addTask(`[`+task("")+`]`, refused(value, "It is an object")),
		"null":                           addTask(`null`, refused(value, "id")),
		"a text":                         addTask(`"x"`, refused(value, "It is an object")),
		"an unknown property":            addTask(task(`,"colour":1`), refused(syntax, "PropertyName=colour")),
		"an unknown one inside":          addTask(task(`,"constraints":{"colour":1}`), refused(syntax, "PropertyName=constraints.colour")),
		"a property in another case":     addTask(`{"ID":"x","commandLine":"y"}`, refused(syntax, "PropertyName=ID")),
		"a trailing comma":               addTask(`{"id":"x","commandLine":"y",}`, refused(syntax, "Reason")),
		"a comment":                      addTask(`{"id":"x"/**/,"commandLine":"y"}`, refused(syntax, "Reason")),
		"single quotes":                  addTask(`{'id':'x'}`, refused(syntax, "Reason")),
		"a number that is no JSON":       addTask(task(`,"requiredSlots":01`), refused(syntax, "Reason")),
		"not a number":                   addTask(task(`,"requiredSlots":NaN`), refused(syntax, "Reason")),
		"a number without bound":         addTask(task(`,"requiredSlots":1e999`), refused(value, "PropertyName=requiredSlots")),
		"a number of ten thousand digits": addTask(task(`,"requiredSlots":`+strings.Repeat("9", 10_000)),
			refused(value, "PropertyName=requiredSlots")),
		"a number beyond 64 bits": addTask(task(`,"requiredSlots":9223372036854775808`), refused(value, "9223372036854775808")),
		"the largest of 64 bits":  addTask(task(`,"requiredSlots":9223372036854775807`), refused(value, "9223372036854775807")),
		"a negative number":       addTask(task(`,"requiredSlots":-1`), refused(value, "PropertyValue=-1")),
		"a fraction":              addTask(task(`,"requiredSlots":1.5`), refused(value, "1.5")),
		"a number with exponent":  addTask(task(`,"requiredSlots":1e0`), refused(value, "1e0")),
		"a number in words":       addTask(task(`,"requiredSlots":"one"`), refused(value, "requiredSlots")),
		"a body beyond the limit": addTask(`{"id":"`+strings.Repeat("x", 2<<20)+`"}`,
			want{http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "MaxLimit=1048576"}),
		"no id":           addTask(`{"commandLine":"y"}`, refused(value, "PropertyName=id")),
		"an empty id":     addTask(`{"id":"","commandLine":"y"}`, refused(value, "PropertyName=id")),
		"no command":      addTask(`{"id":"x"}`, refused(missing, "PropertyName=commandLine")),
		"a blank command": addTask(`{"id":"x","commandLine":"  "}`, refused(missing, "PropertyName=commandLine")),
		"too long a command": addTask(`{"id":"x","commandLine":"`+strings.Repeat("x", 33<<10)+`"}`,
			refused(value, "PropertyName=commandLine")),
		"a variable without a name": addTask(task(`,"environmentSettings":[{"name":"","value":"x"}]`), refused(value, "environmentSettings[0].name")),
		"a variable with =":         addTask(task(`,"environmentSettings":[{"name":"A=B","value":"x"}]`), refused(value, "PropertyValue=A=B")),
		"many variables": addTask(task(`,"environmentSettings":[`+strings.TrimSuffix(strings.Repeat(`{"name":"a"},`, 1001), ",")+`]`),
			refused(value, "PropertyName=environmentSettings")),
		"null among variables":          addTask(task(`,"environmentSettings":[null]`), refused(value, "environmentSettings[0].name")),
		"an exit range upside down":     addTask(task(`,"exitConditions":{"exitCodeRanges":[{"start":2,"end":1}]}`), refused(value, "exitCodeRanges[0].end")),
		"an action that there is not":   addTask(task(`,"exitConditions":{"default":{"jobAction":"explode"}}`), refused(value, "PropertyValue=explode")),
		"a scope that there is not":     addTask(task(`,"userIdentity":{"autoUser":{"scope":"world"}}`), refused(value, "userIdentity.autoUser.scope")),
		"an elevation that there isn't": addTask(task(`,"userIdentity":{"autoUser":{"elevationLevel":"root"}}`), refused(value, "PropertyValue=root")),
		"two users":                     addTask(task(`,"userIdentity":{"username":"a","autoUser":{}}`), refused(value, "userIdentity")),
		"too many tasks": {method: http.MethodPost, path: "/jobs/j/addtaskcollection",
			body: `{"value":[` + strings.TrimSuffix(strings.Repeat(`{},`, 101), ",") + `]}`, want: refused(value, "PropertyName=value")},
		"a collection of nothing": {method: http.MethodPost, path: "/jobs/j/addtaskcollection", body: `{}`, want: refused(missing, "value")},
		"a collection of text":    {method: http.MethodPost, path: "/jobs/j/addtaskcollection", body: `{"value":"x"}`, want: refused(value, "value")},
		"a collection without end": {method: http.MethodPost, path: "/jobs/j/addtaskcollection",
			body: `{"value":` + strings.Repeat("[", deep), want: refused(syntax, "Reason")},
		"nodes without end": {method: http.MethodPost, path: "/pools",
			body: `{"id":"many","targetDedicatedNodes":2147483648,` + poolImage + `}`, want: refused(value, "targetDedicatedNodes")},
		"fewer nodes than none": {method: http.MethodPost, path: "/pools",
			body: `{"id":"few","targetDedicatedNodes":-1,` + poolImage + `}`, want: refused(value, "PropertyValue=-1")},
		"a size that there is not": {method: http.MethodPost, path: "/pools",
			body: `{"id":"size","vmSize":"custom_9223372036854775807c_9223372036854775807g"}`, want: refused(value, "vmSize")},
		"a priority beyond the bounds": {method: http.MethodPost, path: "/jobs",
			body: `{"id":"prio","priority":1001,"poolInfo":{"poolId":"p"}}`, want: refused(value, "priority")},
		"a job in no pool": {method: http.MethodPost, path: "/jobs", body: `{"id":"lost","poolInfo":{}}`,
			want: refused(missing, "poolInfo")},
	}
	for name, row := range badFilesOfTasks() {
		rows[name] = row
	}
	for name, row := range badDurations() {
		rows[name] = row
	}
	return rows
}

// badFilesOfTasks are resource files and output files that no node may be told of.
func badFilesOfTasks() map[string]row {
	const value, missing = "InvalidPropertyValue", "MissingRequiredProperty"
	rows := map[string]row{}
	resource := func(name, text string, w want) {
		rows["a resource file "+name] = addTask(task(`,"resourceFiles":[`+text+`]`), w)
	}
	for name, path := range map[string]string{
		"above its folder": "../x", "above it by a way round": "a/../../x", "at the root": "/etc/passwd", "in the folder itself": ".",
		"with a backslash above": `..\\x`, "in the folder by a way round": "a/b/../..", "with a backslash in between": `a\\..\\..\\b`, "that is too long": strings.Repeat("x", 1025),
		"with a name that is too long": strings.Repeat("x", 256),
	} {
		resource(name, `{"httpUrl":"https://example.org/x","filePath":"`+path+`"}`, refused(value, "PropertyName=resourceFiles[0].filePath"))
	}
	for name, address := range map[string]string{
		"of the node": "file:///etc/shadow", "by FTP": "ftp://example.org/x", "by gopher": "gopher://x/1", "without a host": "http://",
		"without a scheme": "//example.org/x", "that is no URL": "http://[::1", "with a port that is none": "http://x:99999/",
		"from a container by file": "jar:file:///x", "in blanks": "http://exa mple.org/",
	} {
		resource("from a place "+name, `{"httpUrl":"`+address+`","filePath":"x"}`, refused(value, "resourceFiles[0].httpUrl"))
	}
	resource("without a source", `{"filePath":"x"}`, refused(value, "resourceFiles[0]"))
	resource("of two sources", `{"httpUrl":"https://a/x","storageContainerUrl":"https://a/c","filePath":"x"}`, refused(value, "resourceFiles[0]"))
	resource("without a path", `{"httpUrl":"https://a/x"}`, refused(missing, "resourceFiles[0].filePath"))
	resource("with set-user-id", `{"httpUrl":"https://a/x","filePath":"x","fileMode":"4755"}`, refused(value, "resourceFiles[0].fileMode"))
	resource("with a mode that is none", `{"httpUrl":"https://a/x","filePath":"x","fileMode":"0999"}`, refused(value, "PropertyValue=0999"))
	resource("that is null", `null`, refused(value, "resourceFiles[0]"))

	output := func(name, pattern, url string, w want) {
		rows["an output file "+name] = addTask(task(`,"outputFiles":[{"filePattern":"`+pattern+`","destination":{"container":{"containerUrl":"`+url+
			`"}},"uploadOptions":{"uploadCondition":"taskcompletion"}}]`), w)
	}
	output("without a pattern", "", "https://a/c", refused(missing, "outputFiles[0].filePattern"))
	output("with a pattern that is too long", strings.Repeat("*", 1025), "https://a/c", refused(value, "outputFiles[0].filePattern"))
	output("to the node", "x", "file:///tmp", refused(value, "outputFiles[0].destination.container.containerUrl"))
	return rows
}

// badDurations are lengths of time and dates that are none, or none that a task can have.
func badDurations() map[string]row {
	rows := map[string]row{}
	for name, text := range map[string]string{
		"empty": `""`, "of words": `"one day"`, "beyond all": `"P9999999999D"`, "that overflows": `"P99999999999999999999D"`,
		"just beyond": `"P10675199DT2H48M5.4775808S"`, "negative": `"-PT1S"`, "of nothing": `"P"`, "of no time": `"PT"`, "doubled": `"PPT1S"`,
		"of a thousand digits": `"P` + strings.Repeat("9", 1000) + `D"`, "a number": `60`, "an object": `{}`, "with letters": `"PT1X"`,
		"in other digits": `"PT٣S"`, "with spaces": `"P T1S"`, "zero": `"PT0S"`, "not a string": `true`,
	} {
		rows["a duration "+name] = addTask(task(`,"constraints":{"maxWallClockTime":`+text+`}`),
			refused("InvalidPropertyValue", "constraints.maxWallClockTime"))
	}
	for name, text := range map[string]string{
		"too short": `"PT4M59S"`, "too long": `"P8D"`, "negative": `"-PT15M"`,
	} {
		rows["a resize timeout "+name] = row{method: http.MethodPost, path: "/pools", body: `{"id":"slow","resizeTimeout":` + text + `,` + poolImage + `}`,
			want: refused("InvalidPropertyValue", "resizeTimeout")}
	}
	return rows
}

// badIDs are names that nothing has, in bodies and in paths.
func badIDs() map[string]row {
	const value, uri = "InvalidPropertyValue", "InvalidUri"
	rows := map[string]row{
		"64 characters are the most":  addTask(`{"id":"`+strings.Repeat("x", 64)+`","commandLine":"y"}`, accepted(http.StatusCreated)),
		"65 are too many":             addTask(`{"id":"`+strings.Repeat("x", 65)+`","commandLine":"y"}`, refused(value, "64")),
		"another case is the same id": addTask(`{"id":"T","commandLine":"y"}`, want{http.StatusConflict, "TaskExists", ""}),
		"in the path too":             {method: http.MethodGet, path: "/jobs/J/tasks/T", want: accepted(http.StatusOK)},
		"a Kelvin sign is no k":       addTask(`{"id":"\u212a","commandLine":"y"}`, refused(value, "PropertyName=id")),
		"nothing in the path":         {method: http.MethodGet, path: "/jobs//tasks", want: refused(uri, "")},
		"a path that goes up":         {method: http.MethodGet, path: "/pools/../jobs/j", want: refused(uri, "")},
		"a path that goes up escaped": {method: http.MethodGet, path: "/jobs/%2e%2e", want: want{http.StatusNotFound, "JobNotFound", `".."`}},
		"an escaped slash":            {method: http.MethodGet, path: "/jobs/j%2ftasks%2ft", want: want{http.StatusNotFound, "JobNotFound", `"j/tasks/t"`}},
		"a doubly escaped slash":      {method: http.MethodGet, path: "/jobs/j%252f", want: want{http.StatusNotFound, "JobNotFound", `"j%2f"`}},
		"a backslash":                 {method: http.MethodGet, path: `/jobs/..%5cj`, want: want{http.StatusNotFound, "JobNotFound", ""}},
		"a NUL":                       {method: http.MethodGet, path: "/jobs/j%00", want: refused(uri, "UTF-8")},
		"no UTF-8":                    {method: http.MethodGet, path: "/jobs/%ff", want: refused(uri, "UTF-8")},
		"an overlong dot":             {method: http.MethodGet, path: "/jobs/%c0%ae", want: refused(uri, "UTF-8")},
		"a line break":                {method: http.MethodGet, path: "/jobs/j%0d%0aX-Evil:1", want: want{http.StatusNotFound, "JobNotFound", ""}},
		"a very long one":             {method: http.MethodGet, path: "/jobs/" + strings.Repeat("x", 16<<10), want: want{http.StatusNotFound, "JobNotFound", ""}},
		"an operator":                 {method: http.MethodGet, path: "/jobs/j'%20or%20'1'='1", want: want{http.StatusNotFound, "JobNotFound", ""}},
		"a wildcard of SQL":           {method: http.MethodGet, path: "/jobs/%25", want: want{http.StatusNotFound, "JobNotFound", ""}},
		"a method that there is not":  {method: "BREW", path: "/jobs/j", want: want{http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "BREW"}},
		"a node of another pool":      {method: http.MethodGet, path: "/pools/p/nodes/..%2f..%2fetc", want: want{http.StatusNotFound, "NodeNotFound", ""}},
		"a path of a thousand parts":  {method: http.MethodGet, path: strings.Repeat("/x", 1000), want: refused(uri, "")},
	}
	for name, id := range map[string]string{
		"a slash": "a/b", "a dot": "..", "a blank": "a b", "a colon": "a:b", "a percent sign": "a%2f", "umlauts": "ünï", "an emoji": "☃", "a quote": "a'b",
		"a newline": `a\nb`, "a bidirectional override": "a\u202eb", "a zero width blank": "a\u200bb", "a wide letter": "ａ",
	} {
		rows["no id has "+name] = addTask(`{"id":"`+id+`","commandLine":"y"}`, refused(value, "PropertyName=id"))
	}
	return rows
}

// list is a request for tasks with a query.
func list(name, value string, w want) row {
	return row{method: http.MethodGet, path: "/jobs/j/tasks?" + name + "=" + url.QueryEscape(value), want: w}
}

// badQueries are filters, selections, tokens and numbers of the query.
func badQueries() map[string]row {
	const code = "InvalidQueryParameterValue"
	token := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	bad := func(name, value string) row { return list(name, value, refused(code, "QueryParameterName="+name)) }
	rows := map[string]row{
		"a token that is no base64":      bad("$skiptoken", "!!!"),
		"a token that is not of here":    list("$skiptoken", token("zzz"), accepted(http.StatusOK)),
		"a token with a NUL":             bad("$skiptoken", token("a\x00b")),
		"a token that is no UTF-8":       bad("$skiptoken", token("\xff\xfe")),
		"a token that is too long":       bad("$skiptoken", token(strings.Repeat("x", 8<<10))),
		"a timeout of nothing":           bad("timeout", "0"),
		"a negative timeout":             bad("timeout", "-5"),
		"a timeout that overflows":       bad("timeout", "9223372036854775808"),
		"the longest timeout":            list("timeout", "9223372036854775807", accepted(http.StatusOK)),
		"a timeout of words":             bad("timeout", "soon"),
		"no version":                     {method: http.MethodGet, path: "/jobs?api-version=", want: refused("MissingRequiredQueryParameter", "")},
		"a version that there is not":    {method: http.MethodGet, path: "/jobs?api-version=2014-01-01.9.0", want: refused("UnsupportedApiVersion", "2014")},
		"a version that is a path":       {method: http.MethodGet, path: "/jobs?api-version=..%2f..%2fetc", want: refused("UnsupportedApiVersion", "../../etc")},
		"a query that is not encoded":    {method: http.MethodGet, path: "/jobs?$filter=%zz", want: refused("InvalidUri", "query")},
		"a query half encoded":           {method: http.MethodGet, path: "/jobs?a=%2", want: refused("InvalidUri", "query")},
		"ten thousand parameters":        {method: http.MethodGet, path: "/jobs?" + strings.Repeat("a&", 10_000) + "b=1", want: accepted(http.StatusOK)},
		"a flag that is none":            {method: http.MethodDelete, path: "/jobs/none?force=maybe", want: refused(code, "maybe")},
		"an expansion that there is not": bad("$expand", "secrets"),
	}
	for name, filter := range map[string]string{
		"empty": " ", "half": "id eq", "words": "give me all", "SQL": "id eq 'a' or 1=1 --", "a field that there is not": "secret eq 'x'",
		"a wrong type": "id eq 5", "an unclosed text": "id eq 'a", "deeply nested": strings.Repeat("(", 1500) + "id eq 'a'" + strings.Repeat(")", 1500),
		"many nots": strings.Repeat("not ", 1500) + "id eq 'a'", "many terms": "id eq 'a'" + strings.Repeat(" or id eq 'a'", 500),
		"a NUL": "id eq 'a\x00b'", "no UTF-8": "id eq '\xff'", "a number too large": "executionInfo/exitCode eq 99999999999999999999",
		"too long": "id eq '" + strings.Repeat("x", 9000) + "'", "a function": "substringof('a', id)", "a date that is none": "creationTime gt DateTime'2030-13-45'",
		"a deep name": strings.Repeat("a/", 20) + "b eq 1", "a lone quote": "'", "a comma": ",", "a time of the year 99999": "creationTime gt DateTime'99999-01-01'",
	} {
		rows["a filter: "+name] = bad("$filter", filter)
	}
	rows["a filter as deep as it may be"] = list("$filter", strings.Repeat("(", 40)+"id eq 'a'"+strings.Repeat(")", 40), accepted(http.StatusOK))
	rows["a filter with a quote in a text"] = list("$filter", "id eq 'a''; drop table task; --'", accepted(http.StatusOK))
	for name, selected := range map[string]string{
		"six thousand names": strings.Repeat("id,", 5999) + "id", "a member that there is not": "secret", "empty names": ",,", "a path": "../id", "a star in it": "id*",
		"deep": strings.Repeat("constraints/", 200) + "x", "a NUL": "id\x00", "no UTF-8": "\xff",
	} {
		rows["a selection: "+name] = bad("$select", selected)
	}
	for _, number := range []string{"0", "-1", "1001", "9223372036854775808", "1.5", "ten", "1e2", "+5", " 5"} {
		rows["a page of "+number] = bad("maxresults", number)
	}
	for _, name := range []string{"$orderby", "$top", "$skip", "$count", "$search"} {
		rows["the option "+name] = bad(name, "1")
	}
	return rows
}

// badHeaders are headers with values that are none.
func badHeaders() map[string]row {
	get := func(w want, headers ...string) row {
		return row{method: http.MethodGet, path: "/jobs/j", headers: headers, want: w}
	}
	change := func(w want, headers ...string) row {
		return row{method: http.MethodPatch, path: "/jobs/j", body: `{"priority":1}`, headers: headers, want: w}
	}
	const code = "InvalidHeaderValue"
	unmet := want{http.StatusPreconditionFailed, "ConditionNotMet", "If-Match"}
	return map[string]row{
		"an ETag that is none":             get(unmet, "If-Match", "\"\x80garbage"),
		"an ETag without end":              get(unmet, "If-Match", strings.Repeat("x", 16<<10)),
		"many ETags":                       get(unmet, "If-Match", strings.Repeat(`"x",`, 5000)),
		"an ETag with SQL":                 get(unmet, "If-Match", `"0x8D' or '1'='1"`),
		"commas for an ETag":               get(unmet, "If-Match", ",,,"),
		"no ETag fits a change":            change(unmet, "If-Match", "\"0x8DFFFFFFFFFFFFFFFF\""),
		"every ETag but none":              change(want{http.StatusPreconditionFailed, "ConditionNotMet", "If-None-Match"}, "If-None-Match", "*"),
		"a date that is none":              get(refused(code, "HeaderName=If-Modified-Since"), "If-Modified-Since", "yesterday"),
		"a date of the 31st of February":   get(refused(code, "HeaderValue=Mon, 31 Feb"), "If-Unmodified-Since", "Mon, 31 Feb 2030 00:00:00 GMT"),
		"a date of the year 0":             get(accepted(http.StatusOK), "If-Modified-Since", "Mon, 01 Jan 0000 00:00:00 GMT"),
		"a compressed body":                change(refused(code, "HeaderName=Content-Encoding"), "Content-Encoding", "gzip"),
		"a doubly compressed one":          change(refused(code, "identity, gzip"), "Content-Encoding", "identity, gzip"),
		"a body of another type":           change(accepted(http.StatusOK), "Content-Type", "text/html"),
		"a request id that is a page":      get(accepted(http.StatusOK), "client-request-id", "<script>", "return-client-request-id", "true"),
		"a request id without end":         get(accepted(http.StatusOK), "client-request-id", strings.Repeat("x", 16<<10), "return-client-request-id", "true"),
		"a signed request of 40 KiB":       get(refused("InvalidUri", "too long"), "X-Long", strings.Repeat("x", 40<<10)),
		"another method in a header":       get(accepted(http.StatusOK), "X-HTTP-Method-Override", "DELETE"),
		"a range on what is no file":       get(accepted(http.StatusOK), "Range", "bytes=5-1"),
		"a forwarded host":                 get(accepted(http.StatusOK), "X-Forwarded-Host", "evil.example"),
		"a version of the protocol of old": get(accepted(http.StatusOK), "DataServiceVersion", "-1"),
	}
}

// badCredentials are signatures that are none, or not of now.
func badCredentials(s *server) map[string]row {
	get := func(w want, headers ...string) row {
		return row{method: http.MethodGet, path: "/jobs/j", headers: headers, want: w}
	}
	const detail = "AuthenticationErrorDetail="
	malformed := func(value string) want {
		return want{http.StatusUnauthorized, "InvalidAuthenticationInfo", detail + value}
	}
	wrong := func(value string) want { return want{http.StatusForbidden, "AuthenticationFailed", detail + value} }
	signature := strings.Repeat("A", 43) + "="
	rows := map[string]row{
		"none":                  get(malformed("the request has no Authorization header"), "Authorization", ""),
		"a scheme of another":   get(malformed(`authorization scheme "Bearer"`), "Authorization", "Bearer x.y.z"),
		"a scheme alone":        get(malformed("the Authorization header must read"), "Authorization", "SharedKey"),
		"no signature":          get(malformed("the signature must be"), "Authorization", "SharedKey acme:"),
		"no account":            get(malformed("the Authorization header must read"), "Authorization", "SharedKey :"+signature),
		"an account as a path":  get(malformed("the Authorization header must read"), "Authorization", "SharedKey ../acme:"+signature),
		"a long account":        get(malformed("the Authorization header must read"), "Authorization", "SharedKey "+strings.Repeat("a", 65)+":"+signature),
		"a signature as a page": get(malformed("the signature must be"), "Authorization", "SharedKey acme:<script>"),
		"a long signature":      get(malformed("the signature must be"), "Authorization", "SharedKey acme:"+strings.Repeat("A", 4000)),
		"a very long header":    get(malformed("the Authorization header is longer"), "Authorization", "SharedKey acme:"+strings.Repeat("A", 9000)),
		"control characters":    get(malformed("authorization scheme"), "Authorization", "Shared\tKey acme:x"),
		"an unknown account":    get(wrong(""), "Authorization", "SharedKey nobody:"+signature, "ocp-date", time.Now().UTC().Format(http.TimeFormat)),
		"a wrong signature":     get(wrong(""), "Authorization", "SharedKey acme:"+signature, "ocp-date", time.Now().UTC().Format(http.TimeFormat)),
		"no date":               get(wrong("the request has neither"), "Authorization", "SharedKey acme:"+signature),
		"a date that is none":   get(wrong("the header"), "Authorization", "SharedKey acme:"+signature, "ocp-date", "tomorrow"),
		"a date without end":    get(wrong("the header"), "Authorization", "SharedKey acme:"+signature, "ocp-date", strings.Repeat("x", 8<<10)),
		"a signature of before": get(wrong("the request says it was made at"), "ocp-date", time.Now().Add(-auth.DateWindow-time.Minute).UTC().Format(http.TimeFormat)),
		"a signature of later":  get(wrong("the request says it was made at"), "ocp-date", time.Now().Add(auth.DateWindow+time.Minute).UTC().Format(http.TimeFormat)),
		"a signature of the year 9999": get(wrong("the request says it was made at"), "ocp-date",
			time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Format(http.TimeFormat)),
	}
	return rows
}

// badFiles are requests for files of a task that has not run, and of nodes that are none: what is
// wrong with the request itself is said first.
func badFiles() map[string]row {
	get := func(path string, w want, headers ...string) row {
		return row{method: http.MethodGet, path: "/jobs/j/tasks/t/files" + path, headers: headers, want: w}
	}
	unavailable := want{http.StatusConflict, "TaskFilesUnavailable", ""}
	rows := map[string]row{
		"a token that is no base64": get("?$skiptoken=!", refused("InvalidQueryParameterValue", "$skiptoken")),
		"a filter that is none":     get("?$filter=size%20gt%205", refused("InvalidQueryParameterValue", "startswith")),
		"a flag that is none":       get("?recursive=deeply", refused("InvalidQueryParameterValue", "deeply")),
		"a NUL in a name":           get("/a%00b", refused("InvalidUri", "UTF-8")),
		"a name that is no UTF-8":   get("/%ff%fe", refused("InvalidUri", "UTF-8")),
		"a task that has not run":   get("/wd/x", unavailable),
		"a node that is none": {method: http.MethodGet, path: "/pools/p/nodes/none/files/etc/passwd",
			want: want{http.StatusNotFound, "NodeNotFound", "none"}},
	}
	for _, text := range []string{
		"bytes=", "bytes=-", "bytes=5-1", "bytes=-0", "bytes=a-b", "bytes=0-1,5-6", "items=0-1", "bytes=9223372036854775808-", "bytes=0-9223372036854775808",
		"bytes=--5", "bytes=-5-", "bytes=0x1-2", "bytes=+1-+2", "bytes= 1-2", "0-1", strings.Repeat("bytes=0-1,", 1000),
	} {
		rows["the range "+text[:min(len(text), 40)]] = get("/wd/x", refused("InvalidHeaderValue", "HeaderName=ocp-range"), "ocp-range", text)
	}
	return rows
}
