package disk

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Raze removes a name and all below it. What a task may have made to stand in
// the way is dealt with when it does: directories that their owner may not
// write in, as tools like to leave behind; files that are immutable, which a
// task with the rights of root can make; and folders in each other, each of
// which takes a descriptor while those in it are removed.
func Raze(root *os.Root, name string) error {
	err := root.RemoveAll(name)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
	default:
		return err
	}
	if wrong := unlock(root, name, name); wrong != nil {
		return errors.Join(err, wrong)
	}
	if info, err := root.Lstat(name); err == nil && !info.IsDir() {
		return root.Remove(name)
	}
	// Each round finds the folders that the one before has brought up, so it
	// ends when they are used up.
	for {
		entries, err := fs.ReadDir(root.FS(), name)
		if errors.Is(err, fs.ErrNotExist) || len(entries) == 0 {
			return root.RemoveAll(name)
		}
		if err != nil {
			return err
		}
		for _, entry := range entries {
			child := path.Join(name, entry.Name())
			if err := errors.Join(unlock(root, child, name), root.RemoveAll(child)); err != nil {
				return err
			}
		}
	}
}

// RazePath is Raze of a path that nobody else can change.
func RazePath(name string) error {
	root, err := os.OpenRoot(filepath.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return Raze(root, filepath.Base(name))
}

// maxRaze is how many folders in each other are removed in one go.
const maxRaze = 200

// unlock makes what is below a name removable. Folders that are too deep are
// moved up into top.
func unlock(root *os.Root, name, top string) error {
	return fs.WalkDir(root.FS(), name, func(below string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !entry.IsDir() && !entry.Type().IsRegular():
			return nil
		}
		if err := unfreeze(root, below); err != nil || !entry.IsDir() {
			return err
		}
		if err := root.Chmod(below, 0o700); err != nil { // before the walk reads it
			return err
		}
		if strings.Count(below, "/")-strings.Count(top, "/") <= maxRaze {
			return nil
		}
		if err := root.Rename(below, freeName(root, top)); err != nil {
			return err
		}
		return fs.SkipDir
	})
}

// freeName is a name in a directory that nothing has.
func freeName(root *os.Root, folder string) string {
	for i := 0; ; i++ {
		name := path.Join(folder, ".deep-"+strconv.Itoa(i))
		if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
}
