package api

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
)

// fileAnswer is one entry of a list of files.
type fileAnswer struct {
	Name        string          `json:"name"`
	URL         string          `json:"url"`
	IsDirectory bool            `json:"isDirectory"`
	Properties  *fileProperties `json:"properties,omitempty"`
}

// fileProperties is what is known of a file; folders have none. The length is
// written as a text, as the service writes it.
type fileProperties struct {
	CreationTime  *batch.Time `json:"creationTime,omitempty"`
	LastModified  batch.Time  `json:"lastModified"`
	ContentLength int64       `json:"contentLength,string"`
	ContentType   string      `json:"contentType"`
	FileMode      string      `json:"fileMode,omitempty"`
}

// directory is what a file operation is about: where its files are, and the
// address under which callers find them.
type directory struct {
	control.FileTarget
	path string
}

// taskDirectory is what a task has written, wherever it ran: control finds the
// node.
func (c *call) taskDirectory() directory {
	return directory{
		control.FileTarget{Account: c.account, Job: c.job(), Task: c.task()},
		taskPath(c.job(), c.task()) + "/files",
	}
}

// nodeDirectory is all that a node has, those of its tasks among it.
func (c *call) nodeDirectory() directory {
	return directory{
		control.FileTarget{Account: c.account, Pool: c.pool(), Node: c.node()},
		nodePath(c.pool(), c.node()) + "/files",
	}
}

// fileOperation makes a handler for the files of tasks or of nodes.
func fileOperation(in func(*call) directory, do func(*call, directory) error) handler {
	return func(c *call) error { return do(c, in(c)) }
}

// listFiles asks the node for one page. The place where it ends is the name of its
// last file, which the next page goes on behind: the node keeps nothing of a list,
// and files that come or go meanwhile cost no other file its place.
func listFiles(c *call, d directory) error {
	q, err := c.page(maxPage)
	if err != nil {
		return err
	}
	request := batch.FileRequest{Op: batch.FileList, Max: q.Max}
	if request.Recursive, err = c.flag("recursive"); err != nil {
		return err
	}
	if request.Prefix, err = namePrefix(q.Filter); err != nil {
		return err
	}
	after, err := base64.RawURLEncoding.DecodeString(q.Token)
	if err != nil {
		return badParameter(tokenParameter, q.Token, "It is not one that a list has given")
	}
	request.After = string(after)
	answer, err := c.askFile(d, request)
	if err != nil {
		return err
	}
	page := control.Page[batch.File]{Items: answer.Files}
	if n := len(answer.Files); answer.More && n > 0 {
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(answer.Files[n-1].Name))
	}
	return list(c, kindFile, "files", page, func(c *call, f *batch.File) any { return showFile(c, d, f) })
}

// showFile shows a name that is not UTF-8 with replacements, since JSON could not
// carry it; findRoute refuses the address of such a file.
func showFile(c *call, d directory, f *batch.File) *fileAnswer {
	answer := &fileAnswer{
		Name: strings.ToValidUTF8(f.Name, "\uFFFD"), URL: c.fileURL(d, f.Name), IsDirectory: f.IsDirectory,
	}
	if !f.IsDirectory {
		answer.Properties = &fileProperties{
			CreationTime: optionalTime(f.Created), LastModified: f.Modified, ContentLength: f.Size,
			ContentType: mediaType(f.ContentType), FileMode: fileMode(f.Mode),
		}
	}
	return answer
}

// fileURL escapes the whole name as one segment of the path, slashes included.
func (c *call) fileURL(d directory, name string) string {
	return c.url(d.path + "/" + url.PathEscape(name))
}

// mediaType is how content is served: as bytes, or as plain text. Whatever a
// task has written, a browser must not take it for a page of this server.
func mediaType(of string) string {
	if strings.HasPrefix(of, "text/") {
		return "text/plain"
	}
	return "application/octet-stream"
}

// fileMode writes permissions as the service does, in octal; nothing if the node
// does not know them.
func fileMode(mode uint32) string {
	if mode == 0 {
		return ""
	}
	return fmt.Sprintf("0o%o", mode)
}

// askFile asks the node and gives its answer when that has no bytes.
func (c *call) askFile(d directory, request batch.FileRequest) (batch.FileAnswer, error) {
	stream, err := c.openFile(d, request)
	if err != nil {
		return batch.FileAnswer{}, err
	}
	if stream.Body != nil {
		stream.Body.Close()
	}
	return stream.Answer, nil
}

// openFile asks the node; an error that the node gives is returned as one.
func (c *call) openFile(d directory, request batch.FileRequest) (*conversation.FileStream, error) {
	stream, err := c.Nodes.OpenFile(c.context(), d.FileTarget, request)
	if err != nil {
		return nil, err
	}
	if e := stream.Answer.Error; e != nil {
		if stream.Body != nil {
			stream.Body.Close()
		}
		if file := stream.Answer.File; file != nil && e.Code == batch.CodeInvalidRange {
			c.setNoRange(file)
		}
		return nil, batch.Errorf(e.Code, "%s", e.Message)
	}
	return stream, nil
}

// statFile asks for one entry and holds the conditional headers against it.
func (c *call) statFile(d directory) (*batch.File, error) {
	answer, err := c.askFile(d, batch.FileRequest{Op: batch.FileStat, Path: c.fileName()})
	if err != nil {
		return nil, err
	}
	if answer.File == nil {
		return nil, fmt.Errorf("node %s answered without a file", d.Node)
	}
	conditions, err := c.conditions()
	if err != nil {
		return nil, err
	}
	return answer.File, conditions.Check(batch.Stamp(answer.File.Modified.UnixMicro()), true)
}

// headFile is all that readFile says before the first byte.
func headFile(c *call, d directory) error {
	file, err := c.statFile(d)
	if err != nil {
		return err
	}
	c.setFileHeaders(d, file)
	c.w.Header().Set("Content-Length", strconv.FormatInt(file.Size, 10))
	c.writeHead(http.StatusOK)
	return nil
}

// readFile sends a file or a range of it, as the node sends it, without
// keeping more than a buffer of it.
func readFile(c *call, d directory) error {
	r, err := c.byteRange()
	if err != nil {
		return err
	}
	request := batch.FileRequest{Op: batch.FileRead, Path: c.fileName(), Offset: r.first, Length: r.length()}
	// The node reads from an offset. How large the file is has to be known first
	// only where the request counts from its end or holds for one state of it.
	if r.suffix > 0 || c.conditional() {
		file, err := c.statFile(d)
		if err != nil {
			return err
		}
		if r.suffix > 0 {
			request.Offset = max(0, file.Size-r.suffix)
		}
	}
	stream, err := c.openFile(d, request)
	if err != nil {
		return err
	}
	if stream.Body == nil || stream.Answer.File == nil {
		return fmt.Errorf("node %s answered without a file", d.Node)
	}
	defer stream.Body.Close()
	return c.sendFile(d, stream, request, r)
}

// sendFile writes the answer of a read. The size is that at which the node opened
// the file: a task may go on writing to it, and what it adds is not sent, since the
// answer has said how long it is.
func (c *call) sendFile(d directory, stream *conversation.FileStream, request batch.FileRequest, r byteRange) error {
	file, h := stream.Answer.File, c.w.Header()
	size := max(0, file.Size-request.Offset)
	if request.Length >= 0 {
		size = min(size, request.Length)
	}
	if r.given && size == 0 {
		c.setNoRange(file)
		return batch.Errorf(batch.CodeInvalidRange, "The range specified is invalid for the current size of the resource.")
	}
	// From here on the time limit does not hold: it was for the first byte.
	if !c.beginStream() {
		return c.context().Err()
	}
	status := http.StatusOK
	if r.given {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", request.Offset, request.Offset+size-1, file.Size))
		if r.standard {
			status = http.StatusPartialContent
		}
	}
	c.setFileHeaders(d, file)
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	c.allowWrite(size)
	c.writeHead(status)
	if _, err := io.CopyN(c.w, stream.Body, size); err != nil {
		if c.r.Context().Err() != nil {
			return c.r.Context().Err()
		}
		c.Log.DebugContext(c.context(), "file transfer broke off", c.logged("error", err)...)
		panic(http.ErrAbortHandler) // the caller must see that bytes are missing
	}
	return nil
}

// setNoRange says with a range that is not there how large the file is.
func (c *call) setNoRange(of *batch.File) {
	c.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", of.Size))
}

// deleteFile removes what is there on the node when it is asked. A folder that is
// not empty is refused without recursive.
func deleteFile(c *call, d directory) error {
	recursive, err := c.flag("recursive")
	if err != nil {
		return err
	}
	if _, err := c.askFile(d, batch.FileRequest{Op: batch.FileDelete, Path: c.fileName(), Recursive: recursive}); err != nil {
		return err
	}
	return c.writeDone(http.StatusOK)
}

// setFileHeaders sets what the protocol says about a file in headers.
func (c *call) setFileHeaders(d directory, f *batch.File) {
	h := c.w.Header()
	h.Set("Content-Type", mediaType(f.ContentType))
	h.Set("Last-Modified", f.Modified.UTC().Format(http.TimeFormat))
	h.Set("ocp-batch-file-url", c.fileURL(d, f.Name))
	h.Set("ocp-batch-file-isdirectory", map[bool]string{true: "True", false: "False"}[f.IsDirectory])
	if !f.Created.IsZero() {
		h.Set("ocp-creation-time", f.Created.UTC().Format(http.TimeFormat))
	}
	if mode := fileMode(f.Mode); mode != "" {
		h.Set("ocp-batch-file-mode", mode)
	}
}

// conditional tells whether a read depends on the state of the file.
func (c *call) conditional() bool {
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if c.r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// byteRange is which bytes of a file are asked for.
type byteRange struct {
	given bool
	// standard is set for the header Range, whose answer is 206. The
	// protocol's own header ocp-range is answered with 200: no published
	// client accepts anything else for it.
	standard    bool
	first, last int64 // last is -1 for the end of the file
	suffix      int64 // the last bytes of the file, 0 for none
}

// length is how many bytes that is, -1 for all up to the end.
func (r byteRange) length() int64 {
	if r.last < 0 {
		return -1
	}
	return r.last - r.first + 1
}

// byteRange reads ocp-range, or else Range. More than one range is refused rather
// than ignored, as HTTP would allow: clients that ask for several expect an answer
// in parts, and no published client does.
func (c *call) byteRange() (byteRange, error) {
	name := "ocp-range"
	text := c.r.Header.Get(name)
	if text == "" {
		name, text = "Range", c.r.Header.Get("Range")
	}
	r := byteRange{given: text != "", standard: name == "Range", last: -1}
	if text == "" {
		return r, nil
	}
	bad := badHeader(name, text, "It is one range like bytes=0-1023, bytes=1024- or bytes=-512")
	spec, ok := strings.CutPrefix(text, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return r, bad
	}
	var err error
	if from == "" {
		if r.suffix, err = parseCount(to); err != nil || r.suffix < 1 {
			return r, bad
		}
		return r, nil
	}
	if r.first, err = parseCount(from); err != nil {
		return r, bad
	}
	if to == "" {
		return r, nil
	}
	if r.last, err = parseCount(to); err != nil || r.last < r.first {
		return r, bad
	}
	return r, nil
}
