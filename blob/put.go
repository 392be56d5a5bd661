package blob

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/batchyard/batchyard/store"
)

const (
	maxPut    = 5000 << 20 // bytes of a blob in one request
	maxInline = 8 << 10    // bytes of content kept in the row of a blob
)

// upload is content that has been received and belongs to no blob yet.
type upload struct {
	size int64
	file string // where it is, durably; empty if it is in data
	data []byte
	sums *checksums
}

// receive takes the body of a request, of at most a number of bytes, and checks
// it against the sums that came with it. It holds no more of it in memory than
// a buffer, or what is to be kept in a row. At least one sum is computed: MD5 if
// withMD5 is set, else CRC64.
func (s *Server) receive(c *call, most int64, inline, withMD5 bool) (*upload, error) {
	u := &upload{size: c.r.ContentLength}
	if err := checkLength(u.size, most); err != nil {
		return nil, err
	}
	var err error
	if u.sums, err = readChecksums(c.r.Header, withMD5, s.crcTable); err != nil {
		return nil, err
	}
	defer c.allowRead(u.size)()
	body := &bodyReader{body: io.TeeReader(io.LimitReader(c.r.Body, u.size), u.sums)}
	if inline && u.size <= maxInline {
		u.data = make([]byte, u.size)
		if _, err := io.ReadFull(body, u.data); err != nil {
			return nil, body.fault(err)
		}
		s.metrics.received.Add(float64(u.size))
		return u, u.sums.check()
	}
	err = s.write(c.r.Context(), u, func(w io.Writer) error {
		n, err := io.Copy(w, body)
		s.metrics.received.Add(float64(n))
		if err != nil {
			return body.fault(err)
		}
		if n != u.size {
			return body.fault(io.ErrUnexpectedEOF)
		}
		return u.sums.check()
	})
	return u, err
}

// checkLength holds the length that a request says it has against a limit.
func checkLength(size, most int64) error {
	if size < 0 {
		return refuse(missingContentLengthHeader, "Content-Length HTTP header is missing.")
	}
	if size > most {
		return refuse(requestBodyTooLarge, "The request body is too large and exceeds the maximum permissible limit.").
			with("MaxLimit", strconv.FormatInt(most, 10))
	}
	return nil
}

// write makes a file of what fill writes. An error of fill, or of the disk,
// leaves nothing behind.
func (s *Server) write(ctx context.Context, u *upload, fill func(io.Writer) error) error {
	w, err := s.bytes.Create(ctx)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := fill(w); err != nil {
		return err
	}
	u.file, err = w.Commit(ctx)
	return err
}

// bodyReader tells an error of the client's connection from one of the disk.
type bodyReader struct {
	body io.Reader
	err  error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// fault says what went wrong while a body was copied.
func (b *bodyReader) fault(err error) error {
	switch {
	case errors.Is(b.err, os.ErrDeadlineExceeded):
		f := refuse(operationTimedOut, "The body of the request came too slowly.")
		f.status = http.StatusRequestTimeout
		return f
	case b.err != nil, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return refuse(invalidInput, "The body of the request ended before its Content-Length.")
	default:
		return err
	}
}

// putBlob answers Put Blob and, if a source is named, Copy Blob.
func (s *Server) putBlob(c *call) error {
	kind := c.r.Header.Get("X-Ms-Blob-Type")
	switch {
	case c.r.Header.Get("X-Ms-Copy-Source") != "":
		if kind != "" {
			return refuse(featureNotSupported, "Put Blob From URL is not served here: use Copy Blob, without x-ms-blob-type.")
		}
		return s.copyBlob(c)
	case kind == "":
		return missingHeader("x-ms-blob-type")
	case kind == "PageBlob", kind == "AppendBlob":
		return refuse(featureNotSupported, "Blobs of the type %s are not served here.", kind)
	case kind != "BlockBlob":
		return invalidHeader("x-ms-blob-type", kind, "it must be BlockBlob")
	}
	properties, err := readContentHeaders(c.r.Header, true)
	if err != nil {
		return err
	}
	edit, err := newEdit(c, false)
	if err != nil {
		return err
	}
	if c.r.ContentLength > maxInline {
		// Before the client has sent much that would be refused.
		if err := s.db.View(c.r.Context(), func(tx *store.Tx) error { return edit.look(tx) }); err != nil {
			return err
		}
	}
	u, err := s.receive(c, maxPut, true, true)
	if err != nil {
		return err
	}
	if sum := properties.ContentMD5; sum != "" && sum != u.sums.md5() {
		s.discard(c.r.Context(), u)
		return refuse(md5Mismatch, "The MD5 value specified in the request did not match with the MD5 value calculated by the server.").
			with("UserSpecifiedMd5", sum).with("ServerCalculatedMd5", u.sums.md5())
	}
	properties.ContentMD5 = u.sums.md5()
	b, err := s.putContent(c, edit, u, properties)
	if err != nil {
		return err
	}
	u.sums.tell(c.w.Header())
	return c.written(b, http.StatusCreated)
}

// putContent makes an upload the content of the blob that a request names.
func (s *Server) putContent(c *call, edit *edit, u *upload, properties store.BlobProperties) (store.Blob, error) {
	b := store.Blob{
		Name: c.at.blob, ETag: newETag(), Size: u.size, Properties: properties, Content: u.file, Data: u.data,
	}
	err := s.commit(c.r.Context(), edit, func(tx *store.Tx) ([]string, error) {
		b.Created, b.Modified = tx.Now(), tx.Now()
		return tx.PutBlob(edit.container, edit.old, b, nil)
	})
	if err != nil {
		s.abandon(c.r.Context(), u, err)
		return store.Blob{}, err
	}
	return b, nil
}

// edit is a write to the blob that a request names: it must be allowed and
// the conditions must hold when it is made.
type edit struct {
	at         place
	conditions conditions
	existing   bool // there must be a blob
	overwrite  bool // there may be one

	container string     // set by look: the life of the container
	old       store.Blob // set by look: what is there; without a name if nothing is
}

// newEdit prepares one: to a blob that exists or, if existing is not set,
// one that makes a blob, for which permission to create is enough while there
// is none.
func newEdit(c *call, existing bool) (*edit, error) {
	conditions, err := readConditions(c.r.Header, "")
	if err != nil {
		return nil, err
	}
	overwrite := existing || c.grant.allow(c.at.level(), "w") == nil
	return &edit{at: c.at, conditions: conditions, existing: existing, overwrite: overwrite}, nil
}

// look finds the container and what is there of the blob, and checks that it
// may be replaced.
func (ed *edit) look(tx *store.Tx) error {
	container, err := tx.BlobContainer(ed.at.account, ed.at.container)
	if err != nil {
		return notFound(err, containerNotFound)
	}
	ed.container = container.ID
	ed.old, err = tx.Blob(container.ID, ed.at.blob)
	if errors.Is(err, store.ErrNotFound) {
		ed.old = store.Blob{}
		if ed.existing {
			return notFound(err, blobNotFound)
		}
		return ed.conditions.checkWrite("", tx.Now())
	}
	if err != nil {
		return err
	}
	if err := ed.conditions.checkWrite(ed.old.ETag, ed.old.Modified); err != nil {
		return err
	}
	if !ed.overwrite {
		return refuse(unauthorizedBlobOverwrite, "This request is not authorized to perform blob overwrites.")
	}
	return nil
}

// commit runs a write in a transaction of its own and removes the files that it
// has freed, once it is committed.
func (s *Server) commit(ctx context.Context, ed *edit, write func(*store.Tx) ([]string, error)) error {
	var freed []string
	err := s.db.Update(ctx, func(tx *store.Tx) (err error) {
		if err = ed.look(tx); err == nil {
			freed, err = write(tx)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.free(ctx, freed)
	return nil
}

// abandon removes an upload that an update has refused. After any other error
// the update may have been committed all the same: the sweep will know.
func (s *Server) abandon(ctx context.Context, u *upload, err error) {
	if errors.As(err, new(*fault)) {
		s.discard(ctx, u)
	}
}

func (s *Server) discard(ctx context.Context, u *upload) {
	if u.file != "" {
		s.remove(ctx, []string{u.file})
	}
}

// written answers a write with the version that it made.
func (c *call) written(b store.Blob, status int) error {
	setVersion(c.w.Header(), b.ETag, b.Modified)
	c.w.Header().Set("X-Ms-Request-Server-Encrypted", "false")
	return c.reply(status)
}
