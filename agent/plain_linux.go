package agent

import (
	"os"

	"golang.org/x/sys/unix"
)

// removePlain removes the directories of a job's tasks in which there is nothing
// but what the agent and the keeper made: with six calls of the kernel each,
// where one that might hold anything takes more than twice as many. What else
// there is stays for whoever removes with more care.
func removePlain(job *os.File) {
	fd := int(job.Fd())
	for {
		names, err := job.Readdirnames(256)
		for _, name := range names {
			removePlainTask(fd, name)
		}
		if err != nil || len(names) == 0 {
			return
		}
	}
}

// removePlainTask follows no links. What it cannot remove it leaves.
func removePlainTask(job int, name string) {
	fd, err := unix.Openat(job, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	for _, output := range []string{"stdout.txt", "stderr.txt"} {
		_ = unix.Unlinkat(fd, output, 0)
	}
	_ = unix.Unlinkat(fd, "wd", unix.AT_REMOVEDIR)
	unix.Close(fd)
	_ = unix.Unlinkat(job, name, unix.AT_REMOVEDIR)
}
