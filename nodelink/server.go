package nodelink

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/go-json-experiment/json"
)

// Limits on what a node may send. A report names each attempt that a node
// holds, at most a few hundred, and a failure may quote a command line of 32 KiB;
// a listing has at most a page of names.
const (
	maxReport = 32 << 20
	maxAnswer = 4 << 20
	// A report of more than this is read only for a node that is known, and
	// few of them at a time: anybody may call.
	smallReport  = 64 << 10
	largeReports = 4
)

// How long a report may take to come, and how long nothing of a file. Agents
// send what they have at once.
const (
	reportTime = 30 * time.Second
	stallTime  = time.Minute
)

// Server is what the wire leads to.
type Server interface {
	// CheckToken tells whether a call is the node's own, before its body is
	// read.
	CheckToken(ctx context.Context, node batch.NodeID, token string) error
	// Sync takes a node's report and gives its orders, after up to about
	// twenty seconds if there is nothing new.
	Sync(ctx context.Context, node batch.NodeID, token string, report batch.NodeReport) (batch.NodeOrders, error)
	// AnswerFile hands the answer to a file request to whoever waits for it.
	AnswerFile(ctx context.Context, node batch.NodeID, token, id string, answer batch.FileAnswer, body io.Reader) error
}

// Handler serves the two calls below /nodelink/.
func Handler(server Server, log *slog.Logger) http.Handler {
	h := handler{server: server, log: log, large: make(chan struct{}, largeReports)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /nodelink/{node}/sync", h.wrap(h.sync))
	mux.HandleFunc("POST /nodelink/{node}/files/{id}", h.wrap(h.file))
	return mux
}

type handler struct {
	server Server
	log    *slog.Logger
	large  chan struct{} // has one for each large report that is read
}

// wrap turns an error into an answer that the client below turns back.
func (h handler) wrap(serve func(http.ResponseWriter, *http.Request, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, err := auth.BearerToken(r.Header)
		if err == nil {
			err = batch.Guard(func() error { return serve(w, r, token) })
		} else {
			err = batch.Errorf(batch.CodeAuthenticationFailed, "The node's token is missing or malformed.")
		}
		switch {
		case err == nil, r.Context().Err() != nil:
		default:
			h.refuse(w, r, err)
		}
	}
}

func (h handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	refusal := batch.FileError{Code: batch.CodeInternalError, Message: "The server encountered an internal error."}
	status := http.StatusInternalServerError
	if known, ok := errors.AsType[*batch.Error](err); ok {
		refusal = batch.FileError{Code: known.Code, Message: known.Message}
		status = statusOf(known.Code)
	} else {
		h.log.Error("node call failed", "node", r.PathValue("node"), "path", r.URL.Path, "err", err)
	}
	body, _ := json.Marshal(refusal, lenient())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the node is told by the status already
}

func statusOf(code batch.Code) int {
	switch code {
	case batch.CodeAuthenticationFailed, batch.CodeForbidden:
		return http.StatusForbidden
	case batch.CodeNodeNotFound, batch.CodeResourceNotFound:
		return http.StatusNotFound
	case batch.CodeServerBusy:
		return http.StatusServiceUnavailable
	case batch.CodeInvalidRequestBody, batch.CodeInvalidPropertyValue:
		return http.StatusBadRequest
	case batch.CodeRequestBodyTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusConflict
}

func (h handler) sync(w http.ResponseWriter, r *http.Request, token string) error {
	node := batch.NodeID(r.PathValue("node"))
	report, err := h.report(w, r, node, token)
	if err != nil {
		return err
	}
	orders, err := h.server.Sync(r.Context(), node, token, report)
	if err != nil {
		return err
	}
	body, err := json.Marshal(orders, lenient())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a node that hung up sends its report again
	return nil
}

// report reads the body of a call.
func (h handler) report(w http.ResponseWriter, r *http.Request, node batch.NodeID, token string) (batch.NodeReport, error) {
	var report batch.NodeReport
	if r.ContentLength < 0 || r.ContentLength > smallReport {
		if err := h.server.CheckToken(r.Context(), node, token); err != nil {
			return report, err
		}
		select {
		case h.large <- struct{}{}:
			defer func() { <-h.large }()
		case <-r.Context().Done():
			return report, r.Context().Err()
		}
	}
	// The deadline must be gone when the call waits for news: it would end it.
	conn := http.NewResponseController(w)
	if conn.SetReadDeadline(time.Now().Add(reportTime)) == nil {
		defer conn.SetReadDeadline(time.Time{}) //nolint:errcheck // it worked just before
	}
	if err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, maxReport), &report, lenient()); err != nil {
		return report, &batch.Error{Code: batch.CodeInvalidRequestBody, Message: "The report is not valid.", Err: err}
	}
	return report, nil
}

// steady reads from a connection on which nothing may stop for long. How long
// the reader takes between two reads is not the sender's fault.
type steady struct {
	body io.Reader
	conn *http.ResponseController
}

func (s steady) Read(p []byte) (int, error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(stallTime)) // what is no connection never stops
	return s.body.Read(p)
}

func (h handler) file(w http.ResponseWriter, r *http.Request, token string) error {
	if err := h.server.CheckToken(r.Context(), batch.NodeID(r.PathValue("node")), token); err != nil {
		return err
	}
	conn := http.NewResponseController(w)
	_ = conn.SetWriteDeadline(time.Time{}) // the last word is short, and comes when all bytes have come
	body := bufio.NewReader(steady{r.Body, conn})
	head, err := readLine(body)
	if err != nil {
		return &batch.Error{Code: batch.CodeInvalidRequestBody, Message: "The answer has no first line.", Err: err}
	}
	var answer batch.FileAnswer
	if err := json.Unmarshal(head, &answer, lenient()); err != nil {
		return &batch.Error{Code: batch.CodeInvalidRequestBody, Message: "The answer's first line is not valid.", Err: err}
	}
	err = h.server.AnswerFile(r.Context(), batch.NodeID(r.PathValue("node")), token, r.PathValue("id"), answer, body)
	if err != nil {
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(reportTime))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readLine reads up to a newline, within maxAnswer.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxAnswer:
			return nil, errors.New("line too long")
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
