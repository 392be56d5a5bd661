package disk_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/disk"
)

func TestMakeFolder(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "one", "two", "three")
	for range 2 {
		if err := disk.MakeFolder(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(name); err != nil || !info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
	file := filepath.Join(name, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := disk.MakeFolder(filepath.Join(file, "below"), 0o700); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a folder below a file: %v", err)
	}
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	name := filepath.Join(folder, "file")
	for _, content := range []string{"first", "and second"} {
		if err := disk.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := disk.WriteFile(filepath.Join(folder, "none", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file in no folder: %v", err)
	}
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if diff := cmp.Diff([]string{name}, names); diff != "" || err != nil {
		t.Errorf("files (-want +got), %v:\n%s", err, diff)
	}
}

func TestIsFull(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		&fs.PathError{Op: "write", Path: "file", Err: syscall.ENOSPC}: true,
		fmt.Errorf("write: %w", syscall.EDQUOT):                       true,
		syscall.EIO:                                                   false,
		nil:                                                           false,
	} {
		if got := disk.IsFull(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
