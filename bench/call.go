package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/client"
)

// line is one connection that makes signed calls one after the other. It does
// what client does with less: no pool, no goroutine, answers unread but for
// their size. The measuring shares the processors with what is measured.
type line struct {
	server *server
	host   string
	conn   net.Conn
	read   *bufio.Reader
	write  *bufio.Writer
	body   []byte // of the last answer
}

func (s *server) line(ctx context.Context) (*line, error) {
	host := strings.TrimPrefix(s.Endpoint, "http://")
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return &line{server: s, host: host, conn: conn, read: bufio.NewReaderSize(conn, 64<<10), write: bufio.NewWriterSize(conn, 64<<10)}, nil
}

func (l *line) close() { _ = l.conn.Close() }

// call makes a call and leaves the answer's bytes in l.body. The path has its
// query without the version. Any status but 2xx is an error.
func (l *line) call(ctx context.Context, method, path string, body []byte) error {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+l.host+path+separator+"api-version="+client.Version, content)
	if err != nil {
		return err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
	}
	if err := auth.SignBatch(request, l.server.Account, l.server.Key, time.Now()); err != nil {
		return err
	}
	if err := request.Write(l.write); err != nil {
		return err
	}
	if err := l.write.Flush(); err != nil {
		return err
	}
	answer, err := http.ReadResponse(l.read, request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	buffer := bytes.NewBuffer(l.body[:0])
	if _, err := buffer.ReadFrom(answer.Body); err != nil {
		return err
	}
	l.body = buffer.Bytes()
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, answer.Status, l.body)
	}
	return nil
}

// timed makes a call and tells how long it took.
func (l *line) timed(ctx context.Context, method, path string, body []byte) (time.Duration, error) {
	begun := time.Now()
	err := l.call(ctx, method, path, body)
	return time.Since(begun), err
}
