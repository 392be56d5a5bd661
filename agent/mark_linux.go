package agent

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// markName is the extended attribute that holds the mark of a directory.
const markName = "user.batchyard.failed"

// readMark is the mark of a directory, "" if it has none.
func readMark(folder *os.Root) string {
	file, err := folder.Open(".")
	if err != nil {
		return ""
	}
	defer file.Close()
	text := make([]byte, 64)
	n, err := unix.Fgetxattr(int(file.Fd()), markName, text)
	if err != nil {
		return ""
	}
	return string(text[:n])
}

// writeMark sets it. Not every filesystem has room for one.
func writeMark(folder *os.Root, mark string) error {
	file, err := folder.Open(".")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Fsetxattr(int(file.Fd()), markName, []byte(mark), 0); err != nil {
		return fmt.Errorf("mark directory: %w", err)
	}
	return nil
}
