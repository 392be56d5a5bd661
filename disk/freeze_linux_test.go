package disk_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// freeze makes files immutable, as a task with the rights of root can.
func freeze(t *testing.T, names ...string) {
	t.Helper()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, immutable)
		file.Close()
		if err != nil {
			t.Skipf("immutable files cannot be made here: %v", err)
		}
	}
}
