package hostile_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
)

// TestStorageRequests sends bad requests to the storage endpoint.
func TestStorageRequests(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, s *server) {
		s.mustStore(t, http.MethodPut, "/box?restype=container", "")
		s.mustStore(t, http.MethodPut, "/box/ten", "0123456789", "x-ms-blob-type", "BlockBlob")
		s.mustStore(t, http.MethodPut, "/other-box?restype=container", "")
		s.mustStore(t, http.MethodPut, "/other-box/secret", canary, "x-ms-blob-type", "BlockBlob")
		for name, rows := range map[string]map[string]row{
			"names": badBlobNames(), "ranges": badRanges(), "queries": badStorageQueries(), "headers": badStorageHeaders(), "documents": badDocuments(),
			"signatures": s.badSignatures(t),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for what, r := range rows {
					t.Run(what, func(t *testing.T) {
						t.Parallel()
						a := s.send(t, s.storageRequest(t, r.method, r.path, r.body, r.headers...))
						r.want.check(t, a, faultOfStorage)
					})
				}
			})
		}
	})
}

// mustStore sends a request to the storage endpoint that a test needs to succeed.
func (s *server) mustStore(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	a := s.send(t, s.storageRequest(t, method, path, body, headers...))
	if a.status >= http.StatusBadRequest {
		t.Fatalf("%s %s: status %d: %s", method, path, a.status, a.body)
	}
	return a
}

// put is an upload under a name.
func put(name, body string, w want, headers ...string) row {
	return row{method: http.MethodPut, path: "/box/" + name, body: body, headers: append([]string{"x-ms-blob-type", "BlockBlob"}, headers...), want: w}
}

// badBlobNames are names of containers and blobs. Names of blobs are no paths here, so that what
// would lead out of a folder is a name as any other.
func badBlobNames() map[string]row {
	const name, uri = "InvalidResourceName", "InvalidUri"
	get := func(path string, w want) row { return row{method: http.MethodGet, path: path, want: w} }
	notFound := want{http.StatusNotFound, "BlobNotFound", ""}
	rows := map[string]row{
		"a NUL":                        put("a%00b", "x", refused(uri, "zero bytes")),
		"no UTF-8":                     put("%ff%fe", "x", refused(uri, "UTF-8")),
		"an overlong slash":            put("%c0%af", "x", refused(uri, "UTF-8")),
		"1024 characters are the most": put(strings.Repeat("x", 1024), "x", accepted(201)),
		"1025 are too many":            put(strings.Repeat("x", 1025), "x", refused(name, "1024")),
		"three thousand bytes":         put(strings.Repeat("%E2%98%83", 1000), "x", refused(name, "2048")),
		"a container above":            get("/..%2fother-box/secret", refused(name, "container")),
		"dots for a container":         get("/../ten", refused(name, "container")),
		"a container in capitals":      get("/BOX/ten", refused(name, "container")),
		"a container too short":        get("/ab?restype=container", refused(name, "3 to 63")),
		"a container too long":         get("/"+strings.Repeat("x", 64)+"?restype=container", refused(name, "3 to 63")),
		"a container with two hyphens": get("/a--b?restype=container", refused(name, "hyphens")),
		"a system container":           get("/$logs?restype=container&comp=list", refused(name, "$logs")),
		"the root container":           get("/$root/x", refused(name, "$root")),
		"a container with an umlaut":   get("/k%C3%BCche?restype=container", refused(name, "letters")),
		"a file of the server":         get("/box/..%2f..%2f..%2f..%2fetc%2fpasswd", notFound),
		"another container by dots":    get("/box/../other-box/secret", notFound),
		"another one escaped":          get("/box/%2e%2e/other-box/secret", notFound),
		"another one with backslashes": get(`/box/..%5cother-box%5csecret`, notFound),
		"a whole path":                 get("/box//etc/passwd", notFound),
		"the configuration":            get("/box/..%2f..%2fserver.toml", notFound),
		"a stream of Windows":          get("/box/ten::$DATA", notFound),
		"a copy of a file":             put("copy", "", refused("InvalidHeaderValue", "x-ms-copy-source"), "x-ms-blob-type", "", "x-ms-copy-source", "file:///etc/passwd"),
		"a copy of what is not here":   put("copy", "", refused("InvalidHeaderValue", "x-ms-copy-source"), "x-ms-blob-type", "", "x-ms-copy-source", "http://169.254.169.254/latest"),
	}
	for what, text := range map[string]string{
		"dots": "..%2f..%2fx", "a dot": ".", "a slash": "%2f", "a device": "%2fdev%2fnull", "a line break": "a%0d%0ab", "a colon": "c:%5cx", "blanks": "%20%20",
		"what is no XML": "%01", "an emoji": "%F0%9F%98%80", "a percent sign": "%2525", "another account": "..%2f..%2fother%2fbox%2fx",
	} {
		rows["a name may be "+what] = put(text, "x", accepted(201))
	}
	return rows
}

func badRanges() map[string]row {
	get := func(w want, headers ...string) row {
		return row{method: http.MethodGet, path: "/box/ten", headers: headers, want: w}
	}
	rows := map[string]row{
		"behind the end":              get(want{http.StatusRequestedRangeNotSatisfiable, "InvalidRange", ""}, "x-ms-range", "bytes=10-"),
		"far behind the end":          get(want{http.StatusRequestedRangeNotSatisfiable, "InvalidRange", ""}, "x-ms-range", "bytes=9223372036854775807-"),
		"to the end of numbers":       get(accepted(http.StatusPartialContent), "x-ms-range", "bytes=1-9223372036854775807"),
		"of the usual header, passed": get(accepted(http.StatusOK), "Range", "bytes=5-1"),
	}
	for _, text := range []string{"bytes=", "bytes=-", "bytes=5-1", "bytes=-5", "bytes=a-b", "bytes=0-1,2-3", "bytes=9223372036854775808-", "bytes=+1-2", "words=0-1", "bytes=0x0-1"} {
		rows[text] = get(refused("InvalidHeaderValue", "x-ms-range"), "x-ms-range", text)
	}
	return rows
}

func badStorageQueries() map[string]row {
	get := func(query string, w want) row {
		return row{method: http.MethodGet, path: "/box?restype=container&comp=list&" + query, want: w}
	}
	marker := func(text string) string { return "marker=" + base64.RawURLEncoding.EncodeToString([]byte(text)) }
	const code = "InvalidQueryParameterValue"
	rows := map[string]row{
		"a marker that is no base64":   get("marker=!!!", refused(code, "marker")),
		"a marker with a NUL":          get(marker("a\x00"), refused(code, "marker")),
		"a marker that is no UTF-8":    get(marker("\xff"), refused(code, "marker")),
		"a long marker":                get(marker(strings.Repeat("x", 3000)), refused(code, "marker")),
		"a marker of dots":             get(marker("../../etc"), accepted(200)),
		"a prefix with a NUL":          get("prefix=%00", refused(code, "prefix")),
		"a prefix that is no UTF-8":    get("prefix=%ff", refused(code, "prefix")),
		"a long prefix":                get("prefix="+strings.Repeat("x", 3000), refused(code, "prefix")),
		"a prefix of wildcards":        get("prefix=%25", accepted(200)),
		"a delimiter with a NUL":       get("delimiter=%00", refused(code, "delimiter")),
		"no page":                      get("maxresults=0", refused("OutOfRangeQueryParameterValue", "maxresults")),
		"a negative page":              get("maxresults=-1", refused("OutOfRangeQueryParameterValue", "maxresults")),
		"a page of words":              get("maxresults=many", refused(code, "maxresults")),
		"a page beyond 64 bits":        get("maxresults=9223372036854775808", refused(code, "maxresults")),
		"what cannot be included":      get("include=secrets", refused(code, "secrets")),
		"a snapshot":                   {method: http.MethodGet, path: "/box/ten?snapshot=x", want: refused("UnsupportedQueryParameter", "snapshot")},
		"an operation that isn't":      {method: http.MethodGet, path: "/box/ten?comp=explode", want: refused(code, "explode")},
		"a thing that isn't":           {method: http.MethodGet, path: "/box/ten?restype=explode", want: refused(code, "explode")},
		"a query that is not encoded":  {method: http.MethodGet, path: "/box/ten?a=%zz", want: refused("InvalidUri", "query")},
		"a semicolon":                  {method: http.MethodGet, path: "/box/ten?a;b=c", want: refused("InvalidUri", "query")},
		"a block without a name":       {method: http.MethodPut, path: "/box/b?comp=block", body: "x", want: refused("MissingRequiredQueryParameter", "blockid")},
		"a block that is no base64":    {method: http.MethodPut, path: "/box/b?comp=block&blockid=%21", body: "x", want: refused("InvalidBlockId", "")},
		"a block with a long name":     {method: http.MethodPut, path: "/box/b?comp=block&blockid=" + strings.Repeat("QUFB", 30), body: "x", want: refused("InvalidBlockId", "64")},
		"a block of nothing":           {method: http.MethodPut, path: "/box/b?comp=block&blockid=QUFB", want: refused("InvalidHeaderValue", "Content-Length")},
		"a method that there is not":   {method: "BREW", path: "/box/ten", want: want{http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "BREW"}},
		"blocks of a kind that aren't": {method: http.MethodGet, path: "/box/ten?comp=blocklist&blocklisttype=x", want: refused(code, "blocklisttype")},
	}
	return rows
}

func badStorageHeaders() map[string]row {
	const code = "InvalidHeaderValue"
	md5 := base64.StdEncoding.EncodeToString(make([]byte, 16))
	return map[string]row{
		"no type of blob":               put("h", "x", refused("MissingRequiredHeader", "x-ms-blob-type"), "x-ms-blob-type", ""),
		"a type that there is not":      put("h", "x", refused(code, "CowBlob"), "x-ms-blob-type", "CowBlob"),
		"a sum that is none":            put("h", "x", refused("InvalidMd5", ""), "Content-MD5", "!"),
		"a short sum":                   put("h", "x", refused("InvalidMd5", ""), "Content-MD5", "QUFB"),
		"another sum":                   put("h", "x", refused("Md5Mismatch", ""), "Content-MD5", md5),
		"a version that is none":        put("h", "x", refused(code, "x-ms-version"), "x-ms-version", "tomorrow"),
		"metadata with a hyphen":        put("h", "x", refused("InvalidMetadata", "x-ms-meta-a-b"), "x-ms-meta-a-b", "x"),
		"metadata that is no UTF-8":     put("h", "x", refused("InvalidMetadata", "x-ms-meta-a"), "x-ms-meta-a", "\xff"),
		"metadata without end":          put("h", "x", refused("MetadataTooLarge", "8192"), "x-ms-meta-a", strings.Repeat("x", 9<<10)),
		"a type without end":            put("h", "x", refused(code, "x-ms-blob-content-type"), "x-ms-blob-content-type", strings.Repeat("x", 3<<10)),
		"a type that is no UTF-8":       put("h", "x", refused(code, "x-ms-blob-content-type"), "x-ms-blob-content-type", "\xff"),
		"a tier":                        put("h", "x", refused("UnsupportedHeader", "x-ms-access-tier"), "x-ms-access-tier", "Hot"),
		"a lease":                       put("h", "x", want{http.StatusPreconditionFailed, "LeaseNotPresentWithBlobOperation", ""}, "x-ms-lease-id", "x"),
		"a date that is none":           put("ten", "x", refused(code, "If-Modified-Since"), "If-Modified-Since", "yesterday"),
		"a tag that is none":            put("ten", "x", want{http.StatusPreconditionFailed, "ConditionNotMet", "If-Match"}, "If-Match", "\x80"),
		"many tags":                     put("ten", "x", want{http.StatusPreconditionFailed, "ConditionNotMet", "If-Match"}, "If-Match", strings.Repeat(`"x",`, 5000)),
		"public access":                 {method: http.MethodPut, path: "/public?restype=container", headers: []string{"x-ms-blob-public-access", "blob"}, want: want{http.StatusConflict, "PublicAccessNotPermitted", ""}},
		"headers of 40 KiB":             put("h", "x", want{http.StatusForbidden, "AuthenticationFailed", "longer than"}, "X-Long", strings.Repeat("x", 40<<10)),
		"a sum of a range too large":    {method: http.MethodGet, path: "/box/ten", headers: []string{"x-ms-range-get-content-md5", "true", "x-ms-range", "bytes=0-"}, want: accepted(http.StatusPartialContent)},
		"no length":                     {method: http.MethodPut, path: "/box/h", headers: []string{"x-ms-blob-type", "BlockBlob"}, want: accepted(http.StatusCreated)},
		"a body that is an enumeration": {method: http.MethodPost, path: "/box/ten", body: "x", want: want{http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "POST"}},
	}
}

// badDocuments are lists of blocks that are none.
func badDocuments() map[string]row {
	rows := map[string]row{}
	for name, tc := range map[string]struct{ text, code, value string }{
		"nothing":                {"", "InvalidXmlDocument", "does not parse"},
		"text":                   {"blocks", "InvalidXmlDocument", "text outside"},
		"JSON":                   {"{}", "InvalidXmlDocument", "text outside"},
		"half":                   {"<BlockList><Latest>QUFB", "InvalidXmlDocument", "does not parse"},
		"another":                {"<Blocks/>", "InvalidXmlDocument", "must be one BlockList"},
		"an entity of a file":    {`<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><BlockList><Latest>&e;</Latest></BlockList>`, "InvalidXmlDocument", "does not parse"},
		"laughs":                 {`<!DOCTYPE x [<!ENTITY a "` + strings.Repeat("ha", 1000) + `"><!ENTITY b "&a;&a;&a;">]><BlockList><Latest>&b;</Latest></BlockList>`, "InvalidXmlDocument", "too long"},
		"depth":                  {"<BlockList><Latest>" + strings.Repeat("<a>", deep), "InvalidXmlDocument", "has elements in it"},
		"something else":         {"<BlockList><Foo>x</Foo></BlockList>", "InvalidXmlDocument", "something else"},
		"too many":               {"<BlockList>" + strings.Repeat("<Latest>QUFB</Latest>", 50_001) + "</BlockList>", "BlockListTooLong", "50000"},
		"a block that isn't":     {"<BlockList><Latest>QUFB</Latest></BlockList>", "InvalidBlockList", "QUFB"},
		"a NUL":                  {"<BlockList><Latest>\x00</Latest></BlockList>", "InvalidXmlDocument", ""},
		"no UTF-8":               {"<BlockList><Latest>\xff</Latest></BlockList>", "InvalidXmlDocument", ""},
		"another encoding":       {`<?xml version="1.0" encoding="utf-7"?><BlockList/>`, "InvalidXmlDocument", ""},
		"two documents":          {"<BlockList/><BlockList/>", "InvalidXmlDocument", ""},
		"a block with a newline": {"<BlockList><Latest>\n</Latest></BlockList>", "InvalidBlockList", ""},
	} {
		w := refused(tc.code, tc.value)
		rows[name] = row{method: http.MethodPut, path: "/box/listed-" + url.PathEscape(name) + "?comp=blocklist", body: tc.text, want: w}
	}
	return rows
}

// badSignatures are shared access signatures and headers that allow nothing, or something else.
func (s *server) badSignatures(t *testing.T) map[string]row {
	t.Helper()
	target := auth.Target{Account: storageAccount, Container: "box"}
	sign := func(change func(*auth.SAS), target auth.Target) url.Values {
		sas := auth.SAS{Permissions: "r", Expiry: time.Now().Add(time.Hour)}
		change(&sas)
		text, err := auth.SignServiceSAS(sas, target, s.storageKey)
		if err != nil {
			t.Fatal(err)
		}
		query, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		return query
	}
	good := func() url.Values { return sign(func(*auth.SAS) {}, target) }
	with := func(name, value string) url.Values {
		q := good()
		q.Set(name, value)
		return q
	}
	get := func(path string, query url.Values, w want) row {
		return row{method: http.MethodGet, path: path + "?" + query.Encode(), want: w}
	}
	const failed = "AuthenticationFailed"
	forbidden := func(code, value string) want { return want{http.StatusForbidden, code, value} }
	twice := good().Encode() + "&sp=rwdl"
	rows := map[string]row{
		"good":                              get("/box/ten", good(), accepted(200)),
		"for another container":             get("/other-box/secret", good(), forbidden(failed, "signature")),
		"for another by dots":               get("/box/../other-box/secret", good(), want{http.StatusNotFound, "BlobNotFound", ""}),
		"with more permissions":             get("/box/ten", with("sp", "rwdl"), forbidden(failed, "")),
		"with a later end":                  get("/box/ten", with("se", "2999-01-01"), forbidden(failed, "")),
		"without a signature":               get("/box/ten", with("sig", ""), want{http.StatusUnauthorized, "NoAuthenticationInformation", ""}),
		"with half a signature":             get("/box/ten", with("sig", "QUFB"), forbidden(failed, "sig")),
		"with a page for a signature":       get("/box/ten", with("sig", "<script>"), forbidden(failed, "sig")),
		"with a version of old":             get("/box/ten", with("sv", "2009-01-01"), forbidden(failed, "version")),
		"with a version of words":           get("/box/ten", with("sv", "new"), forbidden(failed, "sv")),
		"of a file share":                   get("/box/ten", with("sr", "f"), forbidden(failed, "sr=f")),
		"from words":                        get("/box/ten", with("sip", "everywhere"), forbidden(failed, "sip")),
		"from a range upside down":          get("/box/ten", with("sip", "10.0.0.9-10.0.0.1"), forbidden(failed, "sip")),
		"over a protocol that is none":      get("/box/ten", with("spr", "gopher"), forbidden(failed, "spr")),
		"with a line break":                 get("/box/ten", with("rscd", "a\r\nX-Evil: 1"), forbidden(failed, "line break")),
		"with an end that is none":          get("/box/ten", with("se", "never"), forbidden(failed, "se")),
		"with a value without end":          get("/box/ten", with("rscc", strings.Repeat("x", 20<<10)), forbidden(failed, "longer")),
		"with permissions in capitals":      get("/box/ten", with("sp", "RWDL"), forbidden(failed, "sp")),
		"expired":                           get("/box/ten", sign(func(g *auth.SAS) { g.Expiry = time.Now().Add(-time.Second) }, target), forbidden(failed, "expired")),
		"not yet valid":                     get("/box/ten", sign(func(g *auth.SAS) { g.Start = time.Now().Add(time.Minute) }, target), forbidden(failed, "valid from")),
		"from elsewhere":                    get("/box/ten", sign(func(g *auth.SAS) { g.Address = "10.0.0.1" }, target), forbidden("AuthorizationSourceIPMismatch", "10.0.0.1")),
		"without the permission":            {method: http.MethodDelete, path: "/box/ten?" + good().Encode(), want: forbidden("AuthorizationPermissionMismatch", "sp=r")},
		"without the permission to list":    get("/box", url.Values{"restype": {"container"}, "comp": {"list"}, "sig": good()["sig"], "sv": good()["sv"], "sp": good()["sp"], "se": good()["se"], "sr": good()["sr"]}, forbidden("AuthorizationPermissionMismatch", "sp=r")),
		"of a blob for its container":       get("/box/ten", sign(func(*auth.SAS) {}, auth.Target{Account: storageAccount, Container: "box", Blob: "other"}), forbidden(failed, "")),
		"with a permission twice":           {method: http.MethodGet, path: "/box/ten?" + twice, want: forbidden(failed, "twice")},
		"with a header that says otherwise": {method: http.MethodGet, path: "/box/ten?" + good().Encode(), headers: []string{"Authorization", "SharedKey x"}, want: refused("InvalidAuthenticationInfo", "")},
		"none":                              {method: http.MethodGet, path: "/box/ten", headers: []string{"Authorization", ""}, want: want{http.StatusUnauthorized, "NoAuthenticationInformation", ""}},
		"of another account": {method: http.MethodGet, path: "/box/ten", headers: []string{"Authorization", "SharedKey other:" + strings.Repeat("A", 43) + "="},
			want: forbidden(failed, `"other"`)},
	}
	for i, text := range []string{"SharedKey", "SharedKey " + storageAccount + ":", "SharedKey " + storageAccount + ":x:y", "Bearer x", "SharedKeyLite " + storageAccount + ":AAAA", strings.Repeat("x", 9<<10)} {
		w := refused("InvalidAuthenticationInfo", "")
		if i == 3 {
			w = want{http.StatusUnauthorized, "InvalidAuthenticationInfo", "Bearer"}
		} else if i == 5 {
			w.value = "longer"
		}
		rows[fmt.Sprintf("in a header that is none %d", i)] = row{method: http.MethodGet, path: "/box/ten", headers: []string{"Authorization", text}, want: w}
	}
	return rows
}
