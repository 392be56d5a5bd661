package agent

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// Some kernels let everybody give further names to files of root.
func TestFurtherNamesOfForeignFiles(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root has files and makes others their owners")
	}
	tree, err := openTree(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	user := &run.User{UID: 700_001, GID: 700_001}
	place := taskPlace("j", "t")
	folder, err := tree.make(place, user, func(*os.Root) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	at := filepath.Join(tree.path, place)
	secret, own := filepath.Join(tree.path, "secret"), filepath.Join(at, "own")
	for _, err := range []error{
		os.WriteFile(secret, []byte("secret"), 0o600), os.Link(secret, filepath.Join(at, "stolen")),
		os.WriteFile(own, []byte("own"), 0o600), os.Link(own, filepath.Join(at, "again")), os.Lchown(own, 700_001, 700_001),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(r batch.FileRequest) string {
		r.Op, r.Length = batch.FileRead, -1
		_, body, err := tree.serve(t.Context(), r)
		if err != nil {
			return "refused"
		}
		defer body.Close()
		text, _ := io.ReadAll(body)
		return string(text)
	}
	look := func(when string, own string) {
		t.Helper()
		for name, want := range map[string]string{"stolen": "refused", "again": own} {
			ofTask, ofNode := read(batch.FileRequest{Job: "j", Task: "t", Path: name}), read(batch.FileRequest{Path: place + "/" + name})
			if ofTask != want || ofNode != want {
				t.Errorf("%s, %s is %q by way of the task and %q by way of the node", when, name, ofTask, ofNode)
			}
		}
	}
	look("with a working directory", "own")
	if err := os.Remove(filepath.Join(at, "wd")); err != nil {
		t.Fatal(err)
	}
	look("without", "refused")
	if err := os.Link(secret, filepath.Join(at, "wd")); err != nil {
		t.Fatal(err)
	}
	look("with a file in its place", "refused")

	if err := equip(folder, user); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(secret)
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the file of root was given away: %+v, %v", info, err)
	}
	look("with a new one", "own")
}
