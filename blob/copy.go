package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/store"
)

const (
	copySuccess = "success" // the only state of a copy: it is over when it is answered
	maxSource   = 2 << 10   // bytes of the address of a source
)

func copyProgress(size int64) string {
	n := strconv.FormatInt(size, 10)
	return n + "/" + n
}

// copyBlob answers Copy Blob. The source must be of this service, whose bytes
// are copied at once; no connection is ever opened, so that nobody can make the
// server fetch from elsewhere.
func (s *Server) copyBlob(c *call) error {
	source, address, err := s.readSource(c)
	if err != nil {
		return err
	}
	sourceConditions, err := readConditions(c.r.Header, "X-Ms-Source-")
	if err != nil {
		return err
	}
	metadata, err := readMetadata(c.r.Header)
	if err != nil {
		return err
	}
	edit, err := newEdit(c, false)
	if err != nil {
		return err
	}
	if err := s.db.View(c.r.Context(), func(tx *store.Tx) error { return edit.look(tx) }); err != nil {
		return err
	}
	from, err := s.open(c.r.Context(), source, func(b store.Blob) (int64, int64, error) {
		if b.Size > maxPut {
			return 0, 0, refuse(featureNotSupported, "A blob of more than %d bytes is not copied here.", int64(maxPut))
		}
		return 0, b.Size, sourceConditions.checkRead(b.ETag, b.Modified)
	})
	if err != nil {
		return copyFault(err)
	}
	defer from.close(c.r.Context())
	u, err := s.duplicate(c.r.Context(), from)
	if err != nil {
		return err
	}
	properties := from.blob.Properties
	if metadata != nil {
		properties.Metadata = metadata
	}
	properties.Copy = &store.BlobCopy{ID: uuid.NewString(), Source: address, Completed: c.now.UTC()}
	b, err := s.putContent(c, edit, u, properties)
	if err != nil {
		return err
	}
	c.w.Header().Set("X-Ms-Copy-Id", properties.Copy.ID)
	c.w.Header().Set("X-Ms-Copy-Status", copySuccess)
	return c.written(b, http.StatusAccepted)
}

// duplicate copies content into a new file: files are never shared.
func (s *Server) duplicate(ctx context.Context, from *content) (*upload, error) {
	u := &upload{size: from.blob.Size}
	if u.size <= maxInline {
		var data bytes.Buffer
		if err := from.copyTo(ctx, &data); err != nil {
			return nil, err
		}
		u.data = data.Bytes()
		return u, nil
	}
	return u, s.write(ctx, u, func(w io.Writer) error { return from.copyTo(ctx, w) })
}

// readSource reads the address of the source and checks that it may be read: by
// a SAS in it, or because it is of the account that asks.
func (s *Server) readSource(c *call) (at place, address string, err error) {
	value := c.r.Header.Get("X-Ms-Copy-Source")
	u, err := url.Parse(value)
	if err != nil || len(value) > maxSource || u.Host == "" {
		return place{}, "", invalidHeader("x-ms-copy-source", value, "it must be the address of a blob")
	}
	at, err = splitPlace(u.Host, u.EscapedPath())
	if err != nil || at.level() != auth.ObjectLevel || !sameService(u.Host, at, c.r.Host, c.at) {
		return place{}, "", invalidHeader("x-ms-copy-source", u.Redacted(), "it must be the address of a blob of this service")
	}
	query := u.Query()
	for _, name := range refusedParams {
		if query.Get(name) != "" {
			return place{}, "", invalidHeader("x-ms-copy-source", name, "there are no snapshots or versions here")
		}
	}
	u.RawQuery = "" // it may hold a signature
	if auth.HasSAS(value[strings.IndexByte(value, '?')+1:]) {
		granted, err := s.verifySAS(c, at, value[strings.IndexByte(value, '?')+1:])
		if err == nil {
			err = granted.allow(auth.ObjectLevel, "r")
		}
		return at, u.String(), copyFault(err)
	}
	if !c.grant.owner() || at.account != c.at.account {
		return place{}, "", refuseSource(http.StatusForbidden, "the address has no shared access signature")
	}
	return at, u.String(), nil
}

// sameService reports whether two hosts are this service: they are the same but
// for the account in them. The names of the loopback are all one. An account in
// the host that is the one asked stands for itself whatever follows it, because
// az writes the public suffix there when it is told the endpoint otherwise.
func sameService(source string, sourceAt place, host string, at place) bool {
	if sourceAt.hostStyle && sourceAt.account == at.account {
		return true
	}
	return endpointOf(source, sourceAt) == endpointOf(host, at)
}

func endpointOf(host string, at place) string {
	host = strings.ToLower(host)
	if at.hostStyle {
		host = strings.TrimPrefix(host, at.account+".blob.")
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, ""
	}
	if ip := net.ParseIP(name); name == "localhost" || ip != nil && ip.IsLoopback() {
		name = "localhost"
	}
	return net.JoinHostPort(name, port)
}

// copyFault says of an error that it concerns the source.
func copyFault(err error) error {
	var refused *auth.Error
	if errors.As(err, &refused) {
		return refuseSource(http.StatusForbidden, refused.Message)
	}
	var f *fault
	if errors.As(err, &f) && f.status == http.StatusNotFound {
		return refuseSource(f.status, f.message)
	}
	return err
}

func refuseSource(status int, why string) *fault {
	f := refuse(cannotVerifyCopySource, "Could not verify the copy source: %s.", strings.TrimSuffix(why, "."))
	f.status = status
	return f
}

// abortCopy answers Abort Copy Blob: copies are over at once.
func (s *Server) abortCopy(*call) error {
	return refuse(noPendingCopyOperation, "There is currently no pending copy operation.")
}
