package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// source is a folder that is to be mounted somewhere: an open one, or a mount of
// its own that is nowhere yet and can be taken to other namespaces.
type source struct {
	fd       int
	detached bool
}

// mount makes the folder be seen at a path.
func (s source) mount(path string) error {
	if s.detached {
		if err := unix.MoveMount(s.fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return err
		}
		// It may be a peer of the one that it was made of, so that what is mounted
		// in it would be seen there.
		return unix.Mount("", path, "", unix.MS_REC|unix.MS_SLAVE, "")
	}
	return unix.Mount(procPath(s.fd), path, "", unix.MS_BIND|unix.MS_REC, "")
}

// detach makes a mount of its own, which the caller closes once it is mounted.
// Kernels before 5.2 cannot.
func (s source) detach() (source, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH | unix.AT_RECURSIVE
	fd, err := unix.OpenTree(s.fd, "", flags)
	if err != nil {
		return source{fd: -1}, fmt.Errorf("take a mount along: %w", err)
	}
	return source{fd, true}, nil
}

// procPath is a path by which an open file is reached, whatever is mounted over
// its own.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// sight is a folder that stays in sight.
type sight struct {
	path string
	source
}

func (s sight) place() error {
	if err := s.mount(s.path); err != nil {
		return fmt.Errorf("show %s: %w", s.path, err)
	}
	return nil
}

// sights are folders that stay in sight whatever is hidden or replaced. One may
// be in another, with something hidden between them.
type sights []sight

// within are the outermost that are in a folder.
func (all sights) within(folder string) sights {
	var inside sights
	for _, s := range all {
		covered := func(other sight) bool {
			return other.path != s.path && below(s.path, other.path) && inner(other.path, folder)
		}
		if inner(s.path, folder) && !slices.ContainsFunc(all, covered) {
			inside = append(inside, s)
		}
	}
	return inside
}

// show tells whether a folder itself is in sight.
func (all sights) show(folder string) bool {
	return slices.ContainsFunc(all, func(s sight) bool { return below(folder, s.path) })
}

// inner tells whether a path is in another and not it.
func inner(path, other string) bool { return path != other && below(path, other) }

// below tells whether a path is another or in it.
func below(path, other string) bool {
	return path == other || strings.HasPrefix(path, other+"/") || other == "/"
}

// cover mounts over a folder one that has nothing but the ways to what stays in
// sight. A task of the keeper's own user cannot move these ways. One that is not
// there need not be hidden.
func (all sights) cover(folder string) error {
	if _, err := os.Lstat(folder); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", folder, "tmpfs", flags, "mode=711,size=1m"); err != nil {
		return fmt.Errorf("hide %s: %w", folder, err)
	}
	for _, s := range all.within(folder) {
		if err := os.MkdirAll(s.path, 0o711); err != nil {
			return fmt.Errorf("show %s: %w", s.path, err)
		}
		if err := s.place(); err != nil {
			return err
		}
	}
	if err := unix.Mount("", folder, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("hide %s: %w", folder, err)
	}
	return nil
}

// uncover brings back what stays in sight below a folder that was replaced.
func (all sights) uncover(replaced string) error {
	done := map[string]bool{}
	for _, s := range all.within(replaced) {
		rest := strings.TrimPrefix(s.path, replaced+"/")
		first, deeper, _ := strings.Cut(rest, "/")
		top := filepath.Join(replaced, first)
		if done[top] {
			continue
		}
		done[top] = true
		if err := os.Mkdir(top, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		err := s.place
		if deeper != "" {
			err = func() error { return all.cover(top) }
		}
		if err := err(); err != nil {
			return err
		}
	}
	return nil
}
