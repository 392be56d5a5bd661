package blob

import (
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/batchyard/batchyard/store"
)

const maxList = 5000 // items of a page, as the protocol has it

// listing is what a client asks of a list.
type listing struct {
	prefix, delimiter string
	marker            string // as sent
	from              string // the name that the marker stands for
	limit             int
	maxResults        string // as sent
	include           []string
}

// includes are what a list may be asked to show besides. Of those other than
// metadata and copy there is never anything to show.
var includes = []string{
	"copy", "deleted", "deletedwithversions", "immutabilitypolicy", "legalhold", "metadata", "snapshots",
	"system", "tags", "versions",
}

func readListing(c *call) (listing, error) {
	l := listing{
		prefix:     c.query.Get("prefix"),
		delimiter:  c.query.Get("delimiter"),
		marker:     c.query.Get("marker"),
		maxResults: c.query.Get("maxresults"),
		limit:      maxList,
	}
	for name, value := range map[string]string{"prefix": l.prefix, "delimiter": l.delimiter} {
		if !utf8.ValidString(value) || strings.Contains(value, "\x00") || len(value) > maxNameBytes {
			return l, invalidQuery(name, value, "it must be text no longer than the name of a blob")
		}
	}
	var ok bool
	if l.from, ok = readMarker(l.marker); !ok {
		return l, invalidQuery("marker", l.marker, "it must be the NextMarker of an earlier page")
	}
	if l.maxResults != "" {
		n, err := strconv.Atoi(l.maxResults)
		if err != nil {
			return l, invalidQuery("maxresults", l.maxResults, "it must be a number")
		}
		if n < 1 {
			return l, refuse(outOfRangeQuery, "The query parameter maxresults must be at least 1.").
				with("QueryParameterName", "maxresults").with("QueryParameterValue", l.maxResults).
				with("MinimumAllowed", "1").with("MaximumAllowed", strconv.Itoa(maxList))
		}
		l.limit = min(n, maxList)
	}
	for _, values := range c.query["include"] {
		for value := range strings.SplitSeq(strings.ToLower(values), ",") {
			if value != "" && !slices.Contains(includes, value) {
				return l, invalidQuery("include", values, "there is no "+clip(value)+" to include")
			}
			l.include = append(l.include, value)
		}
	}
	return l, nil
}

// writeMarker and readMarker put a name into a marker, in which clients see no
// more than letters and digits.
func writeMarker(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

// readMarker takes only what could be a name: a marker is the caller's to make up,
// and goes into a statement and from there into the order of names.
func readMarker(marker string) (name string, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(marker)
	return string(b), err == nil && len(b) <= maxNameBytes && utf8.Valid(b) && !slices.Contains(b, 0)
}

// begin writes what a list begins with: what was asked for.
func (l listing) begin(x *xmlWriter, attributes ...string) {
	x.open("EnumerationResults", attributes...)
	x.element("Prefix", l.prefix).element("Marker", l.marker)
	x.optional("MaxResults", l.maxResults).optional("Delimiter", l.delimiter)
}

// end writes where the next page starts; an empty element if there is none.
func (l listing) end(x *xmlWriter, next string) {
	if next != "" {
		next = writeMarker(next)
	}
	x.element("NextMarker", next).close()
}

// listContainers answers List Containers.
func (s *Server) listContainers(c *call) error {
	l, err := readListing(c)
	if err != nil {
		return err
	}
	if slices.Contains(l.include, "metadata") {
		l.limit = min(l.limit, 1000) // a page may be shorter than asked for
	}
	var containers []store.BlobContainer
	err = s.db.View(c.r.Context(), func(tx *store.Tx) (err error) {
		containers, err = tx.BlobContainers(c.at.account, l.prefix, l.from, l.limit+1)
		return err
	})
	if err != nil {
		return err
	}
	next := ""
	if len(containers) > l.limit {
		next = containers[l.limit].Name
		containers = containers[:l.limit]
	}
	return c.writeXML(func(x *xmlWriter) {
		l.begin(x, "ServiceEndpoint", c.endpoint())
		x.open("Containers")
		for _, container := range containers {
			l.container(x, container)
		}
		x.close()
		l.end(x, next)
	})
}

func (l listing) container(x *xmlWriter, c store.BlobContainer) {
	x.open("Container").element("Name", c.Name).open("Properties")
	x.element("Last-Modified", httpDate(c.Modified)).element("Etag", `"`+c.ETag+`"`)
	x.element("LeaseStatus", "unlocked").element("LeaseState", "available")
	x.element("HasImmutabilityPolicy", "false").element("HasLegalHold", "false")
	x.close()
	l.metadata(x, c.Metadata)
	x.close()
}

func (l listing) metadata(x *xmlWriter, metadata map[string]string) {
	if !slices.Contains(l.include, "metadata") {
		return
	}
	x.open("Metadata")
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		x.element(key, metadata[key])
	}
	x.close()
}

// listBlobs answers List Blobs, flat or by folders.
func (s *Server) listBlobs(c *call) error {
	l, err := readListing(c)
	if err != nil {
		return err
	}
	var page store.BlobPage
	err = s.db.View(c.r.Context(), func(tx *store.Tx) error {
		container, err := tx.BlobContainer(c.at.account, c.at.container)
		if err != nil {
			return notFound(err, containerNotFound)
		}
		page, err = tx.Blobs(container.ID, store.BlobQuery{
			Prefix: l.prefix, Delimiter: l.delimiter, From: l.from, Limit: l.limit,
		})
		return err
	})
	if err != nil {
		return err
	}
	return c.writeXML(func(x *xmlWriter) {
		l.begin(x, "ServiceEndpoint", c.endpoint(), "ContainerName", c.at.container)
		x.open("Blobs")
		for _, item := range page.Items {
			if item.Folder {
				x.open("BlobPrefix").name(item.Name).close()
			} else {
				l.blob(x, item.Blob)
			}
		}
		x.close()
		l.end(x, page.Next)
	})
}

func (l listing) blob(x *xmlWriter, b store.Blob) {
	p := b.Properties
	x.open("Blob").name(b.Name).open("Properties")
	x.element("Creation-Time", httpDate(b.Created)).element("Last-Modified", httpDate(b.Modified))
	x.element("Etag", b.ETag) // without quotes, unlike everywhere else
	x.element("Content-Length", strconv.FormatInt(b.Size, 10)).element("Content-Type", p.ContentType)
	x.element("Content-Encoding", p.ContentEncoding).element("Content-Language", p.ContentLanguage)
	x.element("Content-MD5", p.ContentMD5).element("Cache-Control", p.CacheControl)
	x.element("Content-Disposition", p.ContentDisposition).element("BlobType", "BlockBlob")
	x.element("LeaseStatus", "unlocked").element("LeaseState", "available")
	if p.Copy != nil && slices.Contains(l.include, "copy") {
		x.element("CopyId", p.Copy.ID).element("CopySource", p.Copy.Source).element("CopyStatus", copySuccess)
		x.element("CopyProgress", copyProgress(b.Size)).element("CopyCompletionTime", httpDate(p.Copy.Completed))
	}
	x.element("ServerEncrypted", "false").close()
	l.metadata(x, p.Metadata)
	x.close()
}

// endpoint is the address of the account, as the client has it.
func (c *call) endpoint() string {
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	endpoint := scheme + "://" + c.r.Host + "/"
	if !c.at.hostStyle {
		endpoint += c.at.account
	}
	return endpoint
}
