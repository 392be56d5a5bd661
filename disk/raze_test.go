//go:build linux

package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/disk"
)

func TestRazePath(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, folder string) {
		t.Helper()
		if err := disk.RazePath(folder); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the folder is still there (%v)", err)
		}
	}
	make := func(t *testing.T, folders ...string) string {
		t.Helper()
		top := filepath.Join(t.TempDir(), "tree")
		for _, folder := range append(folders, ".") {
			if err := os.MkdirAll(filepath.Join(top, folder), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(top, folder, "file"), nil, 0o400); err != nil {
				t.Fatal(err)
			}
		}
		return top
	}
	t.Run("what is not there", func(t *testing.T) {
		t.Parallel()
		remove(t, filepath.Join(t.TempDir(), "no", "such"))
		remove(t, filepath.Join(t.TempDir(), "no"))
	})
	t.Run("folders that their owner may not write in", func(t *testing.T) {
		t.Parallel()
		top := make(t, "a/b")
		for _, folder := range []string{"a/b", "a"} {
			if err := os.Chmod(filepath.Join(top, folder), 0o500); err != nil {
				t.Fatal(err)
			}
		}
		remove(t, top)
	})
	t.Run("very many folders in each other", func(t *testing.T) {
		t.Parallel()
		remove(t, make(t, strings.Repeat("d/", 900)))
	})
	t.Run("files and folders that are immutable", func(t *testing.T) {
		t.Parallel()
		top := make(t, "a/b")
		freeze(t, filepath.Join(top, "a/b/file"), filepath.Join(top, "a/b"), filepath.Join(top, "a"))
		if err := os.RemoveAll(top); err == nil {
			t.Fatal("they are not immutable")
		}
		remove(t, top)
	})
	t.Run("links, but not what they lead to", func(t *testing.T) {
		t.Parallel()
		top, other := make(t), make(t)
		if err := os.Symlink(other, filepath.Join(top, "link")); err != nil {
			t.Fatal(err)
		}
		remove(t, top)
		if _, err := os.Stat(filepath.Join(other, "file")); err != nil {
			t.Errorf("a link was followed: %v", err)
		}
	})
}
