package blob

import (
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/batchyard/batchyard/store"
)

const (
	maxMetadata    = 8 << 10 // bytes of names and values together
	maxHeaderValue = 2 << 10 // bytes of a content header
	metaPrefix     = "X-Ms-Meta-"
	defaultType    = "application/octet-stream"
)

// unsupportedHeaders ask for what is not served. They are refused and never
// passed over, since the client would believe that it has what it asked for.
var unsupportedHeaders = []string{
	"X-Ms-Access-Tier",
	"X-Ms-Copy-Source-Authorization",
	"X-Ms-Default-Encryption-Scope",
	"X-Ms-Encryption-Algorithm",
	"X-Ms-Encryption-Key",
	"X-Ms-Encryption-Key-Sha256",
	"X-Ms-Encryption-Scope",
	"X-Ms-Expiry-Option",
	"X-Ms-If-Tags",
	"X-Ms-Immutability-Policy-Mode",
	"X-Ms-Immutability-Policy-Until-Date",
	"X-Ms-Legal-Hold",
	"X-Ms-Rehydrate-Priority",
	"X-Ms-Seal-Blob",
	"X-Ms-Source-If-Tags",
	"X-Ms-Structured-Body",
	"X-Ms-Tags",
}

func checkHeaders(h http.Header) error {
	for _, name := range unsupportedHeaders {
		if h.Get(name) != "" {
			return refuse(unsupportedHeader, "The header %s is not supported here.", strings.ToLower(name)).
				with("HeaderName", strings.ToLower(name)).with("HeaderValue", clip(h.Get(name)))
		}
	}
	if h.Get("X-Ms-Lease-Id") != "" {
		return refuse(leaseNotPresent, "There is currently no lease on the resource: leases are not served here.")
	}
	if access := h.Get("X-Ms-Blob-Public-Access"); access != "" {
		return refuse(publicAccessNotPermitted, "Public access is not permitted on this storage account.")
	}
	return nil
}

// readMetadata reads the x-ms-meta- headers. Names are in lower case: the HTTP
// server does not tell how they were written.
func readMetadata(h http.Header) (map[string]string, error) {
	size := 0
	var metadata map[string]string
	for name, values := range h {
		key, ok := strings.CutPrefix(name, metaPrefix)
		if !ok {
			continue
		}
		key = strings.ToLower(key)
		value := strings.Join(values, ",")
		if !isIdentifier(key) || !utf8.ValidString(value) {
			return nil, refuse(invalidMetadata, "The metadata specified is invalid: a name is letters, digits and underscores "+
				"and does not start with a digit, and a value is plain text.").with("HeaderName", clip(strings.ToLower(name)))
		}
		if size += len(key) + len(value); size > maxMetadata {
			return nil, refuse(metadataTooLarge, "The size of the specified metadata exceeds the maximum size permitted, %d bytes.", maxMetadata)
		}
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[key] = value
	}
	return metadata, nil
}

func isIdentifier(s string) bool {
	for i := range len(s) {
		letter := s[i] == '_' || 'a' <= s[i] && s[i] <= 'z'
		digit := '0' <= s[i] && s[i] <= '9'
		if !letter && (!digit || i == 0) {
			return false
		}
	}
	return s != ""
}

// readContentHeaders reads what a client says of a blob in x-ms-blob-
// headers or, if plain is set, in the ordinary ones. Where the body is not the
// blob, the ordinary ones speak of the body.
func readContentHeaders(h http.Header, plain bool) (store.BlobProperties, error) {
	var p store.BlobProperties
	for _, f := range contentHeaders(&p) {
		name := "X-Ms-Blob-" + f.name
		value := h.Get(name)
		if value == "" && plain {
			name, value = f.name, h.Get(f.name)
		}
		if len(value) > maxHeaderValue || !utf8.ValidString(value) {
			return p, invalidHeader(strings.ToLower(name), value, "it must be text of at most "+strconv.Itoa(maxHeaderValue)+" bytes")
		}
		*f.value = value
	}
	if p.ContentType == "" {
		p.ContentType = defaultType
	}
	sum, err := readMD5(h, "X-Ms-Blob-Content-Md5")
	if err != nil {
		return p, err
	}
	p.ContentMD5 = base64.StdEncoding.EncodeToString(sum)
	p.Metadata, err = readMetadata(h)
	return p, err
}

// contentHeader ties a header to the field that keeps it.
type contentHeader struct {
	name  string
	value *string
}

func contentHeaders(p *store.BlobProperties) []contentHeader {
	return []contentHeader{
		{"Content-Type", &p.ContentType},
		{"Content-Encoding", &p.ContentEncoding},
		{"Content-Language", &p.ContentLanguage},
		{"Content-Disposition", &p.ContentDisposition},
		{"Cache-Control", &p.CacheControl},
	}
}

// setVersion writes the headers that tell one version of a thing from another.
func setVersion(h http.Header, etag string, modified time.Time) {
	h["ETag"] = []string{`"` + etag + `"`} // as the service writes it; HTTP folds the case
	h.Set("Last-Modified", httpDate(modified))
}

func httpDate(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

// setMetadata writes the metadata, in lower case as it is kept.
func setMetadata(h http.Header, metadata map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		h["x-ms-meta-"+key] = []string{metadata[key]}
	}
}

// setLease writes the state of a lease, which clients expect of everything.
func setLease(h http.Header) {
	h.Set("X-Ms-Lease-Status", "unlocked")
	h.Set("X-Ms-Lease-State", "available")
}

// setBlob writes what is told of a blob with its content or without.
func setBlob(h http.Header, b store.Blob) {
	setVersion(h, b.ETag, b.Modified)
	setMetadata(h, b.Properties.Metadata)
	setLease(h)
	for _, f := range contentHeaders(&b.Properties) {
		if *f.value != "" {
			h.Set(f.name, *f.value)
		}
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-Ms-Blob-Type", "BlockBlob")
	h.Set("X-Ms-Creation-Time", httpDate(b.Created))
	h.Set("X-Ms-Server-Encrypted", "false")
	if copied := b.Properties.Copy; copied != nil {
		h.Set("X-Ms-Copy-Id", copied.ID)
		h.Set("X-Ms-Copy-Source", copied.Source)
		h.Set("X-Ms-Copy-Status", copySuccess)
		h.Set("X-Ms-Copy-Progress", copyProgress(b.Size))
		h.Set("X-Ms-Copy-Completion-Time", httpDate(copied.Completed))
	}
}
