package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/odata"
)

// contentType is that of every JSON answer.
const contentType = "application/json;odata=minimalmetadata"

// maxClientID bounds the request id of a client that is repeated to it.
const maxClientID = 256

// setCommonHeaders sets what every answer has.
func (c *call) setCommonHeaders() {
	h := c.w.Header()
	h.Set("DataServiceVersion", "3.0")
	h.Set("request-id", c.id)
	h.Set("Server", "Microsoft-HTTPAPI/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	if host := c.r.URL.Hostname(); !localName(c.r.Host) && !localName(host) {
		h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	}
	if !strings.EqualFold(c.r.Header.Get("return-client-request-id"), "true") {
		return
	}
	for _, name := range []string{"client-request-id", "x-ms-client-request-id"} {
		if id := c.r.Header.Get(name); id != "" && len(id) <= maxClientID {
			h.Set(name, id)
		}
	}
}

// localName tells names that every machine has: telling browsers to use
// nothing but TLS for one of them would break whatever else runs there.
func localName(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	return strings.EqualFold(name, "localhost") || strings.HasSuffix(strings.ToLower(name), ".localhost")
}

// metadata is the odata.metadata of an answer, by which some clients tell what
// they have been given. There is no document at the address.
func (c *call) metadata(of string) string { return c.url("$metadata#" + of) }

// writeHead begins an answer. The work is done then, and how long the caller
// takes to read keeps nobody from the place.
func (c *call) writeHead(status int) {
	c.leave()
	c.status = status
	c.w.WriteHeader(status)
}

// quickAnswer is how many bytes of an answer need no time of their own: less
// than a connection takes without its reader.
const quickAnswer = 16 << 10

// writeText answers with JSON.
func (c *call) writeText(status int, text []byte) {
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	c.writeHead(status)
	if len(text) > quickAnswer {
		c.allowWrite(int64(len(text)))
	}
	_, _ = c.w.Write(text) // a caller that went away is no concern of ours
}

// writeDone answers that something was done and there is nothing to say.
func (c *call) writeDone(status int) error {
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.writeHead(status)
	return nil
}

// setStamp sets the headers that identify the version of a resource.
func (c *call) setStamp(s batch.Stamp) {
	c.w.Header().Set("ETag", s.ETag())
	c.w.Header().Set("Last-Modified", s.Modified().Format(http.TimeFormat))
}

// setServiceID sets DataServiceId, which mutations have: the address of what
// was asked for.
func (c *call) setServiceID() {
	c.w.Header().Set("DataServiceId", c.base+c.r.URL.EscapedPath())
}

// changed answers a change of a resource that has a stamp.
func (c *call) changed(status int, s batch.Stamp) error {
	c.setServiceID()
	c.setStamp(s)
	return c.writeDone(status)
}

// acted answers an action on something that has no stamp.
func (c *call) acted(status int) error {
	c.setServiceID()
	return c.writeDone(status)
}

// created answers that a resource was added, and where.
func (c *call) created(at string, s batch.Stamp) error {
	c.w.Header().Set("Location", c.url(at))
	c.w.Header().Set("DataServiceId", c.url(at))
	c.setStamp(s)
	return c.writeDone(http.StatusCreated)
}

// element answers with one object: answer has odata.metadata as its first
// member.
func (c *call) element(k kind, answer any) error {
	selected, err := c.selection(k)
	if err != nil {
		return err
	}
	text, err := c.encode(k, answer, selected)
	if err != nil {
		return err
	}
	c.writeText(http.StatusOK, text)
	return nil
}

// encode writes an object in the form of the request's version, with the
// selected members only.
func (c *call) encode(k kind, answer any, selected odata.Selection) (jsontext.Value, error) {
	var text jsontext.Value
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	if s := c.version.shapes[k]; s != nil {
		if text, err = s.down(text); err != nil {
			return nil, err
		}
	}
	return keepSelected(selected, text)
}
