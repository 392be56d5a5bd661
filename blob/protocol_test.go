package blob_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/blob"
)

// TestErrors holds what is refused against the codes of the protocol.
func TestErrors(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.container(t, "inputs")
	e.put(t, "/inputs/empty", "")
	e.put(t, "/inputs/blob", "0123456789")
	block := request{method: "PUT", path: "/inputs/staged?comp=block&blockid=MDAx", body: "x"}
	if a := e.do(t, block); a.status != http.StatusCreated {
		t.Fatal(a)
	}
	put := func(path string, header ...string) request {
		q := request{method: "PUT", path: path, body: "text", header: map[string]string{"X-Ms-Blob-Type": "BlockBlob"}}
		for i := 0; i+1 < len(header); i += 2 {
			q.header[header[i]] = header[i+1]
		}
		return q
	}
	with := func(method, path string, header ...string) request {
		q := put(path, header...)
		delete(q.header, "X-Ms-Blob-Type")
		q.method, q.body = method, ""
		return q
	}
	source := e.url + "/inputs/blob"
	list := func(xml string) request {
		return request{method: "PUT", path: "/inputs/staged?comp=blocklist", body: xml}
	}
	for name, tc := range map[string]struct {
		request request
		status  int
		code    string
	}{
		"an address of nothing":                {with("GET", ""), 400, "InvalidUri"},
		"a container without restype":          {with("PUT", "/inputs"), 400, "InvalidUri"},
		"a container name against the rules":   {with("PUT", "/In?restype=container"), 400, "InvalidResourceName"},
		"the root container":                   {with("PUT", "/$root?restype=container"), 400, "InvalidResourceName"},
		"a container that is there":            {with("PUT", "/inputs?restype=container"), 409, "ContainerAlreadyExists"},
		"a container open to all":              {with("PUT", "/open?restype=container", "X-Ms-Blob-Public-Access", "blob"), 409, "PublicAccessNotPermitted"},
		"a container that is not there":        {with("GET", "/nowhere?restype=container"), 404, "ContainerNotFound"},
		"deleting it":                          {with("DELETE", "/nowhere?restype=container"), 404, "ContainerNotFound"},
		"listing it":                           {with("GET", "/nowhere?restype=container&comp=list"), 404, "ContainerNotFound"},
		"a blob in it":                         {with("GET", "/nowhere/blob"), 404, "ContainerNotFound"},
		"writing a blob in it":                 {put("/nowhere/blob"), 404, "ContainerNotFound"},
		"a block in it":                        {request{method: "PUT", path: "/nowhere/b?comp=block&blockid=MDAx", body: "x"}, 404, "ContainerNotFound"},
		"a blob that is not there":             {with("GET", "/inputs/none"), 404, "BlobNotFound"},
		"its metadata":                         {with("GET", "/inputs/none?comp=metadata"), 404, "BlobNotFound"},
		"setting its metadata":                 {with("PUT", "/inputs/none?comp=metadata"), 404, "BlobNotFound"},
		"setting its properties":               {with("PUT", "/inputs/none?comp=properties"), 404, "BlobNotFound"},
		"deleting it under a condition":        {with("DELETE", "/inputs/none", "If-Match", `"x"`), 404, "BlobNotFound"},
		"its block list":                       {with("GET", "/inputs/none?comp=blocklist"), 404, "BlobNotFound"},
		"a blob with blocks and no list":       {with("GET", "/inputs/staged"), 404, "BlobNotFound"},
		"a blob without a type":                {with("PUT", "/inputs/b"), 400, "MissingRequiredHeader"},
		"a page blob":                          {put("/inputs/b", "X-Ms-Blob-Type", "PageBlob"), 409, "FeatureNotSupportedForAccount"},
		"an append blob":                       {put("/inputs/b", "X-Ms-Blob-Type", "AppendBlob"), 409, "FeatureNotSupportedForAccount"},
		"a blob of no known type":              {put("/inputs/b", "X-Ms-Blob-Type", "Heap"), 400, "InvalidHeaderValue"},
		"a tier":                               {put("/inputs/b", "X-Ms-Access-Tier", "Cool"), 400, "UnsupportedHeader"},
		"tags":                                 {put("/inputs/b", "X-Ms-Tags", "a=b"), 400, "UnsupportedHeader"},
		"a lease that is not held":             {put("/inputs/b", "X-Ms-Lease-Id", "x"), 412, "LeaseNotPresentWithBlobOperation"},
		"a lease":                              {with("PUT", "/inputs/blob?comp=lease"), 409, "FeatureNotSupportedForAccount"},
		"a snapshot":                           {with("PUT", "/inputs/blob?comp=snapshot"), 409, "FeatureNotSupportedForAccount"},
		"reading a snapshot":                   {with("GET", "/inputs/blob?snapshot=2020"), 400, "UnsupportedQueryParameter"},
		"a policy":                             {with("PUT", "/inputs?restype=container&comp=acl"), 409, "FeatureNotSupportedForAccount"},
		"a batch":                              {with("POST", "?comp=batch"), 409, "FeatureNotSupportedForAccount"},
		"an unknown action":                    {with("PUT", "/inputs/blob?comp=paint"), 400, "InvalidQueryParameterValue"},
		"an unknown kind of resource":          {with("GET", "?restype=moon"), 400, "InvalidQueryParameterValue"},
		"a verb that does not fit":             {with("DELETE", "/inputs/blob?comp=block"), 405, "UnsupportedHttpVerb"},
		"a verb that is none":                  {with("BREW", "/inputs/blob"), 405, "UnsupportedHttpVerb"},
		"a version that is none":               {with("GET", "/inputs/blob", "X-Ms-Version", "next"), 400, "InvalidHeaderValue"},
		"a name of metadata against the rules": {put("/inputs/b", "X-Ms-Meta-A-B", "x"), 400, "InvalidMetadata"},
		"metadata that are too long":           {put("/inputs/b", "X-Ms-Meta-A", strings.Repeat("x", 9<<10)), 400, "MetadataTooLarge"},
		"an MD5 that is none":                  {put("/inputs/b", "Content-Md5", "eA=="), 400, "InvalidMd5"},
		"an MD5 that does not fit":             {put("/inputs/b", "Content-Md5", "AAAAAAAAAAAAAAAAAAAAAA=="), 400, "Md5Mismatch"},
		"an MD5 to keep that does not fit":     {put("/inputs/b", "X-Ms-Blob-Content-Md5", "AAAAAAAAAAAAAAAAAAAAAA=="), 400, "Md5Mismatch"},
		"a CRC64 that does not fit":            {put("/inputs/b", "X-Ms-Content-Crc64", "AAAAAAAAAAA="), 400, "Crc64Mismatch"},
		"a CRC64 that is none":                 {put("/inputs/b", "X-Ms-Content-Crc64", "x"), 400, "InvalidHeaderValue"},
		"a date that is none":                  {with("GET", "/inputs/blob", "If-Modified-Since", "yesterday"), 400, "InvalidHeaderValue"},
		"a read if there is nothing":           {with("GET", "/inputs/blob", "If-None-Match", "*"), 400, "UnsatisfiableCondition"},
		"a write if there is something":        {put("/inputs/b", "If-Match", "*"), 412, "ConditionNotMet"},
		"a range behind the end":               {with("GET", "/inputs/blob", "Range", "bytes=10-"), 416, "InvalidRange"},
		"a range of an empty blob":             {with("GET", "/inputs/empty", "X-Ms-Range", "bytes=0-3"), 416, "InvalidRange"},
		"a range of another form":              {with("GET", "/inputs/blob", "X-Ms-Range", "bytes=-5"), 400, "InvalidHeaderValue"},
		"a block without a name":               {request{method: "PUT", path: "/inputs/b?comp=block", body: "x"}, 400, "MissingRequiredQueryParameter"},
		"a block whose name is not base64":     {request{method: "PUT", path: "/inputs/b?comp=block&blockid=*", body: "x"}, 400, "InvalidBlockId"},
		"a block whose name is too long":       {request{method: "PUT", path: "/inputs/b?comp=block&blockid=" + url.QueryEscape(base64.StdEncoding.EncodeToString(make([]byte, 65))), body: "x"}, 400, "InvalidBlockId"},
		"a block of nothing":                   {request{method: "PUT", path: "/inputs/b?comp=block&blockid=MDAx"}, 400, "InvalidHeaderValue"},
		"a block name of another length":       {request{method: "PUT", path: "/inputs/staged?comp=block&blockid=MDAwMQ==", body: "x"}, 400, "InvalidBlobOrBlock"},
		"a list of a block that is not there":  {list("<BlockList><Latest>MDAy</Latest></BlockList>"), 400, "InvalidBlockList"},
		"a list of a block not committed":      {list("<BlockList><Committed>MDAx</Committed></BlockList>"), 400, "InvalidBlockList"},
		"a list that is no XML":                {list("<BlockList><Latest>"), 400, "InvalidXmlDocument"},
		"blocks in each other":                 {list("<BlockList><Latest>" + strings.Repeat("<Latest>", 100_000)), 400, "InvalidXmlDocument"},
		"attributes without end":               {list("<BlockList><Latest " + strings.Repeat(`a="" `, 200_000) + ">MDAx</Latest></BlockList>"), 400, "InvalidXmlDocument"},
		"a list of something else":             {list("<BlockList><Block>MDAx</Block></BlockList>"), 400, "InvalidXmlDocument"},
		"another document":                     {list("<Other/>"), 400, "InvalidXmlDocument"},
		"a list that is too long":              {list("<BlockList>" + strings.Repeat("<Latest>MDAx</Latest>", 50_001) + "</BlockList>"), 400, "BlockListTooLong"},
		"an unknown kind of block list":        {with("GET", "/inputs/blob?comp=blocklist&blocklisttype=some"), 400, "InvalidQueryParameterValue"},
		"a page of nothing":                    {with("GET", "/inputs?restype=container&comp=list&maxresults=0"), 400, "OutOfRangeQueryParameterValue"},
		"a page of what is no number":          {with("GET", "/inputs?restype=container&comp=list&maxresults=many"), 400, "InvalidQueryParameterValue"},
		"a marker that was not given":          {with("GET", "/inputs?restype=container&comp=list&marker=%2F"), 400, "InvalidQueryParameterValue"},
		"including what is not known":          {with("GET", "/inputs?restype=container&comp=list&include=secrets"), 400, "InvalidQueryParameterValue"},
		"including uncommitted blobs":          {with("GET", "/inputs?restype=container&comp=list&include=uncommittedblobs"), 400, "InvalidQueryParameterValue"},
		"copying from elsewhere":               {with("PUT", "/inputs/c", "X-Ms-Copy-Source", "http://example.com/devstoreaccount1/inputs/blob"), 400, "InvalidHeaderValue"},
		"copying from another account":         {with("PUT", "/inputs/c", "X-Ms-Copy-Source", strings.Replace(source, blob.DevAccount, "otheraccount", 1)), 403, "CannotVerifyCopySource"},
		"copying under a condition not met":    {with("PUT", "/inputs/c", "X-Ms-Copy-Source", source, "X-Ms-Source-If-Match", "x"), 412, "SourceConditionNotMet"},
		"writing from an address":              {put("/inputs/c", "X-Ms-Copy-Source", source), 409, "FeatureNotSupportedForAccount"},
		"a block from an address":              {with("PUT", "/inputs/c?comp=block&blockid=MDAx", "X-Ms-Copy-Source", source), 409, "FeatureNotSupportedForAccount"},
		"a browser that asks first":            {with("OPTIONS", "/inputs/blob"), 403, "CorsPreflightFailure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := e.do(t, tc.request)
			if a.status != tc.status || a.code() != tc.code || !strings.Contains(a.body, "<Code>"+tc.code+"</Code>") {
				t.Errorf("%d %s, want %d %s\n%s", a.status, a.code(), tc.status, tc.code, a.body)
			}
			if size, told := strings.CutPrefix(a.header.Get("Content-Range"), "bytes */"); told != (tc.status == 416) || told && size == "" {
				t.Errorf("content range is %q", a.header.Get("Content-Range"))
			}
			if a.header.Get("X-Ms-Request-Id") == "" || a.header.Get("Content-Type") != "application/xml" || a.header.Get("ETag") != "" {
				t.Errorf("headers %v", a.header)
			}
		})
	}
}

// TestSignatures holds who may do what, and who may not, against the codes.
func TestSignatures(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.container(t, "inputs")
	e.put(t, "/inputs/blob", "text")
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	of := func(s auth.SAS, name string) string {
		if s.Expiry.IsZero() {
			s.Expiry = soon
		}
		query, err := auth.SignServiceSAS(s, auth.Target{Account: blob.DevAccount, Container: "inputs", Blob: name}, e.key)
		if err != nil {
			t.Fatal(err)
		}
		return query
	}
	get := func(sas string) request { return request{method: "GET", path: "/inputs/blob", sas: sas} }
	put := func(sas, name string) request {
		return request{method: "PUT", path: "/inputs/" + name, body: "x", sas: sas, header: map[string]string{"X-Ms-Blob-Type": "BlockBlob"}}
	}
	block := func(sas string) request {
		return request{method: "PUT", path: "/inputs/b?comp=block&blockid=MDAx", body: "x", sas: sas}
	}
	rights := of(auth.SAS{Permissions: "r"}, "")
	for name, tc := range map[string]struct {
		request request
		status  int
		code    string
	}{
		"nobody":                             {request{method: "GET", path: "/inputs/blob", bare: true}, 401, "NoAuthenticationInformation"},
		"a bearer token":                     {request{method: "GET", path: "/inputs/blob", bare: true, header: map[string]string{"Authorization": "Bearer x"}}, 401, "InvalidAuthenticationInfo"},
		"a header that does not parse":       {request{method: "GET", path: "/inputs/blob", bare: true, header: map[string]string{"Authorization": "SharedKey x"}}, 400, "InvalidAuthenticationInfo"},
		"another account":                    {request{method: "GET", path: "/inputs/blob", bare: true, header: map[string]string{"Authorization": "SharedKey other:" + strings.Repeat("A", 43) + "="}}, 403, "AuthenticationFailed"},
		"a date of long ago":                 {request{method: "GET", path: "/inputs/blob", header: map[string]string{"X-Ms-Date": past.UTC().Format(http.TimeFormat)}}, 403, "AuthenticationFailed"},
		"reading with r":                     {get(rights), 200, ""},
		"reading with w":                     {get(of(auth.SAS{Permissions: "w"}, "")), 403, "AuthorizationPermissionMismatch"},
		"reading the blob with its own":      {get(of(auth.SAS{Permissions: "r"}, "blob")), 200, ""},
		"reading the blob with another's":    {get(of(auth.SAS{Permissions: "r"}, "blo")), 403, "AuthenticationFailed"},
		"reading after the end":              {get(of(auth.SAS{Permissions: "r", Expiry: past}, "")), 403, "AuthenticationFailed"},
		"reading before the start":           {get(of(auth.SAS{Permissions: "r", Start: soon, Expiry: soon.Add(time.Hour)}, "")), 403, "AuthenticationFailed"},
		"reading without HTTPS":              {get(of(auth.SAS{Permissions: "r", HTTPSOnly: true}, "")), 403, "AuthorizationProtocolMismatch"},
		"reading from elsewhere":             {get(of(auth.SAS{Permissions: "r", Address: "10.0.0.1-10.0.0.9"}, "")), 403, "AuthorizationSourceIPMismatch"},
		"reading from here":                  {get(of(auth.SAS{Permissions: "r", Address: "127.0.0.1"}, "")), 200, ""},
		"a signature with more rights in it": {get(strings.Replace(rights, "sp=r", "sp=rw", 1)), 403, "AuthenticationFailed"},
		"a signature without its time":       {get("sv=2021-12-02&sr=c&sp=r&sig=" + strings.Repeat("A", 43) + "%3D"), 403, "AuthenticationFailed"},
		"creating with c":                    {put(of(auth.SAS{Permissions: "c"}, ""), "new"), 201, ""},
		"replacing with c":                   {put(of(auth.SAS{Permissions: "c"}, ""), "blob"), 403, "UnauthorizedBlobOverwrite"},
		"replacing with w":                   {put(of(auth.SAS{Permissions: "w"}, ""), "other"), 201, ""},
		"creating with r":                    {put(rights, "never"), 403, "AuthorizationPermissionMismatch"},
		"a block with w":                     {block(of(auth.SAS{Permissions: "w"}, "")), 201, ""},
		"a block with c":                     {block(of(auth.SAS{Permissions: "c"}, "")), 403, "AuthorizationPermissionMismatch"},
		"listing with l":                     {request{method: "GET", path: "/inputs?restype=container&comp=list", sas: of(auth.SAS{Permissions: "l"}, "")}, 200, ""},
		"listing with r":                     {request{method: "GET", path: "/inputs?restype=container&comp=list", sas: rights}, 403, "AuthorizationPermissionMismatch"},
		"deleting with w":                    {request{method: "DELETE", path: "/inputs/blob", sas: of(auth.SAS{Permissions: "w"}, "")}, 403, "AuthorizationPermissionMismatch"},
		"listing containers with all of one": {request{method: "GET", path: "?comp=list", sas: of(auth.SAS{Permissions: "rwdlac"}, "")}, 403, "AuthenticationFailed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := e.do(t, tc.request)
			if a.status != tc.status || a.code() != tc.code {
				t.Errorf("%d %s, want %d %s\n%s", a.status, a.code(), tc.status, tc.code, a.body)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.container(t, "inputs")
	e.put(t, "/inputs/dir/blob", "0123456789", "Content-Type", "text/plain", "X-Ms-Meta-Color", "red")

	t.Run("a HEAD tells all and has no body", func(t *testing.T) {
		t.Parallel()
		a := e.do(t, request{method: "HEAD", path: "/inputs/dir/blob", header: map[string]string{"X-Ms-Client-Request-Id": "mine"}})
		got := map[string]string{}
		for _, name := range []string{
			"Content-Length", "Content-Type", "Content-Md5", "Accept-Ranges", "X-Ms-Blob-Type", "X-Ms-Meta-Color",
			"X-Ms-Lease-State", "X-Ms-Lease-Status", "X-Ms-Version", "X-Ms-Client-Request-Id",
		} {
			got[name] = a.header.Get(name)
		}
		want := map[string]string{
			"Content-Length": "10", "Content-Type": "text/plain", "Content-Md5": "eB5eJF1ptWaXm4bijSPyxw==",
			"Accept-Ranges": "bytes", "X-Ms-Blob-Type": "BlockBlob", "X-Ms-Meta-Color": "red",
			"X-Ms-Lease-State": "available", "X-Ms-Lease-Status": "unlocked", "X-Ms-Version": "2021-12-02",
			"X-Ms-Client-Request-Id": "mine",
		}
		if diff := cmp.Diff(got, want); diff != "" || a.status != 200 || a.body != "" {
			t.Errorf("%d %q %s", a.status, a.body, diff)
		}
		if tag := a.header.Get("ETag"); !strings.HasPrefix(tag, `"0x`) || !strings.HasSuffix(tag, `"`) {
			t.Errorf("ETag %s", tag)
		}
	})

	t.Run("a block list may begin with a byte order mark", func(t *testing.T) {
		t.Parallel()
		for _, id := range []string{"MDAx", "MDAy"} {
			if a := e.do(t, request{method: "PUT", path: "/inputs/marked?comp=block&blockid=" + id, body: id}); a.status != 201 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		const list = `<?xml version="1.0" encoding="utf-8"?><BlockList><Latest>MDAy</Latest> <!-- then --><Uncommitted><![CDATA[MDAx]]></Uncommitted></BlockList>`
		if a := e.do(t, request{method: "PUT", path: "/inputs/marked?comp=blocklist", body: "\uFEFF" + list}); a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if a := e.do(t, request{method: "GET", path: "/inputs/marked"}); a.body != "MDAyMDAx" {
			t.Errorf("the blob has %q", a.body)
		}
	})

	t.Run("a HEAD of nothing has its code in a header", func(t *testing.T) {
		t.Parallel()
		a := e.do(t, request{method: "HEAD", path: "/inputs/none"})
		if a.status != 404 || a.code() != "BlobNotFound" || a.body != "" {
			t.Errorf("%d %s %q", a.status, a.code(), a.body)
		}
	})

	t.Run("a range is answered with its place", func(t *testing.T) {
		t.Parallel()
		for header, want := range map[string][2]string{
			"bytes=0-3":   {"0123", "bytes 0-3/10"},
			"bytes=7-":    {"789", "bytes 7-9/10"},
			"bytes=8-100": {"89", "bytes 8-9/10"},
		} {
			a := e.do(t, request{method: "GET", path: "/inputs/dir/blob", header: map[string]string{
				"X-Ms-Range": header, "Range": "bytes=5-5", "X-Ms-Range-Get-Content-Md5": "true",
			}})
			if a.status != 206 || a.body != want[0] || a.header.Get("Content-Range") != want[1] {
				t.Errorf("%s: %d %q %s", header, a.status, a.body, a.header.Get("Content-Range"))
			}
			if whole := a.header.Get("X-Ms-Blob-Content-Md5"); whole != "eB5eJF1ptWaXm4bijSPyxw==" || a.header.Get("Content-Md5") == whole {
				t.Errorf("sums %q and %q", whole, a.header.Get("Content-Md5"))
			}
		}
	})

	t.Run("a 304 has the version and no body", func(t *testing.T) {
		t.Parallel()
		tag := e.do(t, request{method: "HEAD", path: "/inputs/dir/blob"}).header.Get("ETag")
		a := e.do(t, request{method: "GET", path: "/inputs/dir/blob", header: map[string]string{"If-None-Match": tag}})
		if a.status != 304 || a.body != "" || a.header.Get("ETag") != tag {
			t.Errorf("%d %q %v", a.status, a.body, a.header)
		}
	})

	t.Run("a SAS shapes the answer to a read", func(t *testing.T) {
		t.Parallel()
		query, err := auth.SignServiceSAS(auth.SAS{
			Permissions: "r", Expiry: time.Now().Add(time.Hour),
			Response: auth.Response{ContentType: "image/png", ContentDisposition: "attachment"},
		}, auth.Target{Account: blob.DevAccount, Container: "inputs", Blob: "dir/blob"}, e.key)
		if err != nil {
			t.Fatal(err)
		}
		a := e.do(t, request{method: "GET", path: "/inputs/dir/blob", sas: query})
		if a.status != 200 || a.header.Get("Content-Type") != "image/png" || a.header.Get("Content-Disposition") != "attachment" {
			t.Errorf("%d %v", a.status, a.header)
		}
	})

	t.Run("the account may stand in the host", func(t *testing.T) {
		t.Parallel()
		a := e.do(t, request{method: "GET", host: blob.DevAccount + ".blob.localhost:10000", path: "/inputs/dir/blob"})
		if a.status != 200 || a.body != "0123456789" {
			t.Errorf("%d %s", a.status, a.body)
		}
		a = e.do(t, request{method: "GET", host: "otheraccount.blob.localhost:10000", path: "/inputs/dir/blob"})
		if a.status != 403 || a.code() != "AuthenticationFailed" {
			t.Errorf("another account's data: %d %s", a.status, a.code())
		}
	})

	t.Run("a list of folders is a document in the protocol's words", func(t *testing.T) {
		t.Parallel()
		a := e.do(t, request{method: "GET", path: "/inputs?restype=container&comp=list&delimiter=/&maxresults=5"})
		want := `<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="` + e.url +
			`" ContainerName="inputs"><Prefix></Prefix><Marker></Marker><MaxResults>5</MaxResults><Delimiter>/</Delimiter>` +
			`<Blobs><BlobPrefix><Name>dir/</Name></BlobPrefix></Blobs><NextMarker></NextMarker></EnumerationResults>`
		if diff := cmp.Diff(a.body, want); diff != "" {
			t.Error(diff)
		}
	})
}

func TestNamesInDocuments(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.container(t, "names")
	e.put(t, "/names/"+url.PathEscape(`a&"b"<c>`), "")
	e.put(t, "/names/"+url.PathEscape("line\rfeed\x02"), "")
	a := e.do(t, request{method: "GET", path: "/names?restype=container&comp=list"})
	for _, want := range []string{
		"<Name>a&amp;&quot;b&quot;&lt;c&gt;</Name>", // parsers of clients know no other entities
		`<Name Encoded="true">line%0Dfeed%02</Name>`,
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s in %s", want, a.body)
		}
	}
}

func TestCopySource(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.container(t, "inputs")
	e.put(t, "/inputs/blob", "text")
	port := e.url[strings.LastIndex(e.url, ":"):]
	lent, err := auth.SignServiceSAS(auth.SAS{Permissions: "r", Expiry: time.Now().Add(time.Hour)},
		auth.Target{Account: blob.DevAccount, Container: "inputs"}, e.key)
	if err != nil {
		t.Fatal(err)
	}
	into, err := auth.SignServiceSAS(auth.SAS{Permissions: "c", Expiry: time.Now().Add(time.Hour)},
		auth.Target{Account: blob.DevAccount, Container: "inputs"}, e.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		source, sas string
		status      int
	}{
		"by the same address":                 {e.url + "/inputs/blob", "", 202},
		"by another name of the loopback":     {"http://localhost" + port + "/inputs/blob", "", 202},
		"by the account in the host":          {"http://" + blob.DevAccount + ".blob.localhost" + strings.TrimSuffix(port, "/"+blob.DevAccount) + "/inputs/blob", "", 202},
		"by the public name of the account":   {"https://" + blob.DevAccount + ".blob.core.windows.net/inputs/blob", "", 202},
		"with a signature on either side":     {e.url + "/inputs/blob?" + lent, into, 202},
		"with a signature for the copy alone": {e.url + "/inputs/blob", into, 403},
		"with a signature for something else": {e.url + "/inputs/blob?" + into, "", 403},
		"of a blob that is not there":         {e.url + "/inputs/none", "", 404},
		"by another port":                     {"http://127.0.0.1:9/" + blob.DevAccount + "/inputs/blob", "", 400},
		"of a container":                      {e.url + "/inputs", "", 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			copied := "/inputs/" + url.PathEscape(name)
			a := e.do(t, request{method: "PUT", path: copied, sas: tc.sas, header: map[string]string{"X-Ms-Copy-Source": tc.source}})
			if a.status != tc.status {
				t.Fatalf("%d %s, want %d", a.status, a.body, tc.status)
			}
			if a.status == 202 && e.get(t, copied) != "text" {
				t.Error("the copy differs")
			}
			if a.status == 202 && strings.Contains(e.do(t, request{method: "HEAD", path: copied}).header.Get("X-Ms-Copy-Source"), "sig=") {
				t.Error("the signature of the source is kept")
			}
		})
	}
}

// TestLengths speaks HTTP by hand, because clients would not send this.
func TestLengths(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.container(t, "inputs")
	query, err := auth.SignServiceSAS(auth.SAS{Permissions: "cw", Expiry: time.Now().Add(time.Hour)},
		auth.Target{Account: blob.DevAccount, Container: "inputs"}, e.key)
	if err != nil {
		t.Fatal(err)
	}
	send := func(t *testing.T, path, header, body string) *http.Response {
		t.Helper()
		u, err := url.Parse(e.url)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "PUT /%s%s%s HTTP/1.1\r\nHost: %s\r\nx-ms-blob-type: BlockBlob\r\n%s\r\n\r\n%s",
			blob.DevAccount, path, query, u.Host, header, body)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	for name, tc := range map[string]struct {
		path, header, body string
		status             int
		code               string
	}{
		"a blob of unknown length":   {"/inputs/b?", "Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n", 411, "MissingContentLengthHeader"},
		"a blob that is too large":   {"/inputs/b?", "Content-Length: 5242880001", "", 413, "RequestBodyTooLarge"},
		"a block that is too large":  {"/inputs/b?comp=block&blockid=MDAx&", "Content-Length: 4194304001", "", 413, "RequestBodyTooLarge"},
		"a list that is too large":   {"/inputs/b?comp=blocklist&", "Content-Length: 9000000", "", 413, "RequestBodyTooLarge"},
		"a body that ends too early": {"/inputs/b?", "Content-Length: 10", "x", 400, "InvalidInput"},
		"a large one that does":      {"/inputs/b?", "Content-Length: 100000", "x", 400, "InvalidInput"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := send(t, tc.path, tc.header, tc.body)
			defer response.Body.Close()
			if response.StatusCode != tc.status || response.Header.Get("X-Ms-Error-Code") != tc.code {
				t.Errorf("%s %s", response.Status, response.Header.Get("X-Ms-Error-Code"))
			}
		})
	}
	t.Cleanup(func() {
		if n := e.files(t); n != 0 {
			t.Errorf("%d files left by what was refused", n)
		}
	})
}
