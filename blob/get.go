package blob

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/store"
)

// content is a part of a blob that is ready to be read. Its files stay until it
// is closed, whatever happens to the blob.
type content struct {
	server *Server
	blob   store.Blob
	from   int64 // offsets within the blob, the second excluded
	to     int64
	pieces []piece
	files  []string // noted as being read
}

// piece is a part of one file, from an offset on.
type piece struct {
	file           string
	offset, length int64
}

// open looks a blob up and makes ready the part of it that choose picks. An
// error of choose is passed on.
func (s *Server) open(ctx context.Context, at place, choose func(store.Blob) (from, to int64, err error)) (*content, error) {
	r := &content{server: s}
	s.readers.enter()
	defer s.readers.leave()
	err := s.db.View(ctx, func(tx *store.Tx) error {
		var err error
		if r.blob, err = findBlob(tx, at); err != nil {
			return err
		}
		if r.from, r.to, err = choose(r.blob); err != nil {
			return err
		}
		return r.find(tx)
	})
	if err != nil {
		return nil, err
	}
	s.readers.note(r.files)
	return r, nil
}

// find lists the files, and the parts of them, that hold the bytes.
func (r *content) find(tx *store.Tx) error {
	r.pieces, r.files = nil, nil
	if r.blob.Content == "" || r.from >= r.to {
		return nil
	}
	if r.blob.Blocks == 0 {
		r.add(r.blob.Content, r.from, r.to-r.from)
		return nil
	}
	parts, err := tx.BlobParts(r.blob.Content, r.from, r.to)
	for _, p := range parts {
		first, last := max(r.from, p.Start), min(r.to, p.Start+p.Size)
		r.add(p.File, first-p.Start, last-first)
	}
	return err
}

// add notes a piece to be sent, and its file, which must not be removed before.
func (r *content) add(file string, offset, length int64) {
	r.pieces = append(r.pieces, piece{file, offset, length})
	r.files = append(r.files, file)
}

// check fails if a file is missing or too short. It is for before the answer
// begins: after that, all there is to say so is to end the connection.
func (r *content) check() error {
	if r.blob.Content == "" {
		return nil
	}
	for _, p := range r.pieces {
		size, _, err := r.server.bytes.Stat(p.file)
		if err == nil && size < p.offset+p.length {
			err = fmt.Errorf("content file %s has %d bytes and should have %d at least", p.file, size, p.offset+p.length)
		}
		if err != nil {
			return fmt.Errorf("blob %q has lost its bytes, 'batchyard admin fsck' says more: %w", r.blob.Name, err)
		}
	}
	return nil
}

// copyTo writes the bytes to w: all of them, or it is an error.
func (r *content) copyTo(ctx context.Context, w io.Writer) error {
	if r.blob.Content == "" {
		_, err := w.Write(r.blob.Data[r.from:r.to])
		return err
	}
	for _, p := range r.pieces {
		if err := r.copyPiece(ctx, w, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *content) copyPiece(ctx context.Context, w io.Writer, p piece) error {
	f, err := r.server.bytes.Open(ctx, p.file, p.offset, p.length)
	if err != nil {
		return err
	}
	n, err := io.Copy(w, f)
	if err == nil && n != p.length {
		err = fmt.Errorf("content file %s is short of %d bytes", p.file, p.length-n)
	}
	return errors.Join(err, f.Close())
}

// close lets go of the files and removes those that nobody needs any more.
func (r *content) close(ctx context.Context) {
	r.server.remove(ctx, r.server.readers.done(r.files))
}

// findBlob gives a committed blob, or says what of it is not there.
func findBlob(tx *store.Tx, at place) (store.Blob, error) {
	container, err := tx.BlobContainer(at.account, at.container)
	if err != nil {
		return store.Blob{}, notFound(err, containerNotFound)
	}
	b, err := tx.Blob(container.ID, at.blob)
	return b, notFound(err, blobNotFound)
}

// getBlob answers Get Blob and, to HEAD, Get Blob Properties.
func (s *Server) getBlob(c *call) error {
	conditions, err := readConditions(c.r.Header, "")
	if err != nil {
		return err
	}
	part, err := readRange(c.r.Header)
	if err != nil {
		return err
	}
	head := c.r.Method == http.MethodHead
	r, err := s.open(c.r.Context(), c.at, func(b store.Blob) (from, to int64, err error) {
		setVersion(c.w.Header(), b.ETag, b.Modified) // a 304 has it too
		if err := conditions.checkRead(b.ETag, b.Modified); err != nil {
			return 0, 0, err
		}
		switch {
		case head:
			return 0, 0, nil
		case part == nil:
			return 0, b.Size, nil
		default:
			return part.within(b.Size)
		}
	})
	if err != nil {
		return err
	}
	defer r.close(c.r.Context())
	if err := r.check(); err != nil {
		return err
	}
	h := c.w.Header()
	setBlob(h, r.blob)
	c.grant.shape(h)
	if head {
		h.Set("Content-Length", strconv.FormatInt(r.blob.Size, 10))
		setIf(h, "Content-Md5", r.blob.Properties.ContentMD5)
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	status, err := c.describe(r, part != nil)
	if err != nil {
		return err
	}
	h.Set("Content-Length", strconv.FormatInt(r.to-r.from, 10))
	c.allowWrite(r.to - r.from)
	c.w.WriteHeader(status)
	return r.copyTo(c.r.Context(), c.w)
}

// describe writes the headers in which a part of a blob differs from the whole.
func (c *call) describe(r *content, part bool) (status int, err error) {
	h, sum := c.w.Header(), r.blob.Properties.ContentMD5
	if !part {
		setIf(h, "Content-Md5", sum)
		return http.StatusOK, nil
	}
	h.Set("Content-Range", contentRange(r.from, r.to, r.blob.Size))
	setIf(h, "X-Ms-Blob-Content-Md5", sum)
	withMD5 := strings.EqualFold(c.r.Header.Get("X-Ms-Range-Get-Content-Md5"), "true")
	withCRC := strings.EqualFold(c.r.Header.Get("X-Ms-Range-Get-Content-Crc64"), "true")
	if !withMD5 && !withCRC {
		return http.StatusPartialContent, nil
	}
	if r.to-r.from > maxHashedRange {
		return 0, invalidHeader("x-ms-range", c.r.Header.Get("X-Ms-Range"),
			"the checksum of a range can be had for up to "+strconv.Itoa(maxHashedRange)+" bytes")
	}
	var sums checksums
	if withMD5 {
		sums.md5Sum = md5.New()
	}
	if withCRC {
		sums.crcSum = crc64.New(r.server.crcTable)
	}
	if err := r.copyTo(c.r.Context(), &sums); err != nil {
		return 0, err
	}
	sums.tell(h)
	return http.StatusPartialContent, nil
}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// shape puts the headers into the answer to a read that a SAS asks for.
func (g grant) shape(h http.Header) {
	if g.sas == nil {
		return
	}
	want := g.sas.Response
	setIf(h, "Cache-Control", want.CacheControl)
	setIf(h, "Content-Disposition", want.ContentDisposition)
	setIf(h, "Content-Encoding", want.ContentEncoding)
	setIf(h, "Content-Language", want.ContentLanguage)
	setIf(h, "Content-Type", want.ContentType)
}

// getBlobMetadata answers Get Blob Metadata.
func (s *Server) getBlobMetadata(c *call) error {
	conditions, err := readConditions(c.r.Header, "")
	if err != nil {
		return err
	}
	var b store.Blob
	err = s.db.View(c.r.Context(), func(tx *store.Tx) (err error) {
		b, err = findBlob(tx, c.at)
		return err
	})
	if err != nil {
		return err
	}
	setVersion(c.w.Header(), b.ETag, b.Modified)
	if err := conditions.checkRead(b.ETag, b.Modified); err != nil {
		return err
	}
	setMetadata(c.w.Header(), b.Properties.Metadata)
	return c.reply(http.StatusOK)
}

// setBlobMetadata answers Set Blob Metadata, which replaces all.
func (s *Server) setBlobMetadata(c *call) error {
	metadata, err := readMetadata(c.r.Header)
	if err != nil {
		return err
	}
	return s.setBlob(c, func(p *store.BlobProperties) { p.Metadata = metadata })
}

// setBlobProperties answers Set Blob Properties, which replaces all the content
// headers.
func (s *Server) setBlobProperties(c *call) error {
	if c.r.Header.Get("X-Ms-Blob-Content-Length") != "" || c.r.Header.Get("X-Ms-Sequence-Number-Action") != "" {
		return refuse(unsupportedHeader, "A block blob has no length to set and no sequence number.")
	}
	properties, err := readContentHeaders(c.r.Header, false)
	if err != nil {
		return err
	}
	return s.setBlob(c, func(p *store.BlobProperties) {
		properties.Metadata, properties.Copy = p.Metadata, p.Copy
		*p = properties
	})
}

func (s *Server) setBlob(c *call, set func(*store.BlobProperties)) error {
	edit, err := newEdit(c, true)
	if err != nil {
		return err
	}
	var b store.Blob
	etag := newETag()
	err = s.commit(c.r.Context(), edit, func(tx *store.Tx) ([]string, error) {
		b = edit.old
		set(&b.Properties)
		b.ETag, b.Modified = etag, tx.Now()
		return nil, tx.SetBlob(edit.container, b)
	})
	if err != nil {
		return err
	}
	return c.written(b, http.StatusOK)
}

// deleteBlob answers Delete Blob.
func (s *Server) deleteBlob(c *call) error {
	if value := c.r.Header.Get("X-Ms-Delete-Snapshots"); value != "" && !strings.EqualFold(value, "include") {
		return refuse(featureNotSupported, "There are no snapshots here that could be deleted alone.")
	}
	edit, err := newEdit(c, true)
	if err != nil {
		return err
	}
	err = s.commit(c.r.Context(), edit, func(tx *store.Tx) ([]string, error) {
		return tx.DeleteBlob(edit.container, edit.old)
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("X-Ms-Delete-Type-Permanent", "true")
	return c.reply(http.StatusAccepted)
}
