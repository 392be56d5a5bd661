package isolation

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// separateMounts sees to it that nothing that this process mounts is seen
// outside its namespace, also where the machine's mounts are shared.
func separateMounts() error {
	err := enslave()
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// The root is a folder of some mount and no mount itself: this is a chroot.
	if err := leaveChroot(); err != nil {
		return fmt.Errorf("the root directory is no mount: %w", err)
	}
	return nil
}

// enslave has the mounts that the calling thread sees follow the machine's and
// not the other way round.
func enslave() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") }

// leaveChroot makes the folder that is this process's root the root of its
// namespace, which then has nothing around it. Otherwise its mounts could not be
// separated, and who comes back to the namespace would come to the root of the
// machine.
func leaveChroot() error {
	old, err := openPath("/")
	if err != nil {
		return err
	}
	defer unix.Close(old)
	mounts, err := openNamespace("mnt")
	if err != nil {
		return err
	}
	defer unix.Close(mounts)
	root, err := rootAt(old, mounts)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return makeRoot(root)
}

// rootAt is the new root, open, as a thread makes it that has a root of its own
// for this and then ends.
func rootAt(old, mounts int) (root int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		root, err = pivotTo(old, mounts)
	}()
	<-done
	return root, err
}

// pivotTo takes the calling thread to the root of the namespace, which it then
// replaces with a folder.
func pivotTo(folder, mounts int) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, fmt.Errorf("have a root of a thread's own: %w", err)
	}
	if err := unix.Setns(mounts, unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("go to the root of the namespace: %w", err)
	}
	if err := enslave(); err != nil {
		return -1, err
	}
	root, err := unix.OpenTree(folder, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("make a mount of the root directory: %w", err)
	}
	if err := replaceRoot(folder, root); err != nil {
		unix.Close(root)
		return -1, err
	}
	return root, nil
}

// replaceRoot mounts the new root where its folder is, swaps it with the root of
// the namespace, and unmounts that.
func replaceRoot(folder, root int) error {
	if err := unix.MoveMount(root, "", folder, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the root directory: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	// The old root is put over the new one, where the same name finds it then.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return nil
}

// makeRoot makes an open folder the root of all threads.
func makeRoot(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return nil
}

func openPath(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}
