package control_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	target := control.FileTarget{Account: acct, Job: "job", Task: "t-000"}
	type opened struct {
		stream *conversation.FileStream
		err    error
	}
	open := func(y *yard, request batch.FileRequest) <-chan opened {
		result := make(chan opened, 1)
		go func() {
			stream, err := y.OpenFile(ctx(y.t), target, request)
			result <- opened{stream, err}
		}()
		return result
	}
	bubble := func(name string, test func(t *testing.T, y *yard, node *script)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			synctest.Test(t, func(t *testing.T) {
				y := newYard(t, url)
				y.prepare(0, 2)
				y.addTasks("job", "t", 1)
				node := y.handNode()
				y.assign(node, "t-000")
				node.sync()
				node.start("t-000")
				node.sync()
				test(t, y, node)
			})
		})
	}
	bubble("a request wakes the node and its answer reaches the caller", func(t *testing.T, y *yard, node *script) {
		call := node.call(t.Context())
		time.Sleep(time.Second)
		result := open(y, batch.FileRequest{Op: batch.FileRead, Path: "stdout.txt", Length: -1})
		got := <-call
		if got.err != nil || got.after != time.Second || len(got.orders.Files) != 1 {
			t.Fatalf("after %v: %+v (%v)", got.after, got.orders.Files, got.err)
		}
		request := got.orders.Files[0]
		if request.Job != "job" || request.Task != "t-000" || request.Path != "stdout.txt" {
			t.Errorf("request is %+v", request)
		}
		again := node.call(t.Context())
		synctest.Wait()
		y.refused(y.AnswerFile(ctx(t), node.id, "byt_wrong", request.ID, batch.FileAnswer{}, nil), batch.CodeAuthenticationFailed)
		answer := make(chan error, 1)
		go func() {
			answer <- y.AnswerFile(ctx(t), node.id, node.token, request.ID, batch.FileAnswer{File: &batch.File{Name: "stdout.txt"}}, strings.NewReader("hello"))
		}()
		o := <-result
		y.check(o.err)
		body, err := io.ReadAll(o.stream.Body)
		o.stream.Body.Close()
		if string(body) != "hello" || err != nil || o.stream.Answer.File.Name != "stdout.txt" {
			t.Errorf("got %q (%v)", body, err)
		}
		y.check(<-answer)
		y.refused(y.AnswerFile(ctx(t), node.id, node.token, request.ID, batch.FileAnswer{}, nil), batch.CodeResourceNotFound)
		<-again
	})
	bubble("a node that says nothing is told again, and given up", func(t *testing.T, y *yard, node *script) {
		began := time.Now()
		result := open(y, batch.FileRequest{Op: batch.FileStat, Path: "x"})
		synctest.Wait()
		node.sync()
		if got := <-node.call(t.Context()); got.after != 2*time.Second || len(got.orders.Files) != 1 {
			t.Errorf("after %v: %+v", got.after, got.orders.Files)
		}
		y.refused((<-result).err, batch.CodeOperationTimedOut)
		if after := time.Since(began); after != 30*time.Second {
			t.Errorf("given up after %v", after)
		}
		if orders := node.sync(); len(orders.Files) != 0 {
			t.Errorf("the node is still asked: %+v", orders.Files)
		}
	})
	bubble("a caller who has read enough lets the node go", func(t *testing.T, y *yard, node *script) {
		result := open(y, batch.FileRequest{Op: batch.FileRead, Path: "stdout.txt"})
		synctest.Wait()
		request := node.sync().Files[0]
		answer := make(chan error, 1)
		go func() {
			answer <- y.AnswerFile(ctx(t), node.id, node.token, request.ID, batch.FileAnswer{}, strings.NewReader(strings.Repeat("x", 1<<20)))
		}()
		(<-result).stream.Body.Close()
		y.check(<-answer)
	})
	bubble("a task that has not run has none", func(t *testing.T, y *yard, _ *script) {
		y.addTasks("job", "new", 1)
		_, err := y.OpenFile(ctx(t), control.FileTarget{Account: acct, Job: "job", Task: "new-000"}, batch.FileRequest{Op: batch.FileList})
		y.refused(err, batch.CodeTaskFilesUnavailable)
	})
}
