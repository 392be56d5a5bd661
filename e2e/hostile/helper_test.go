package hostile_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// roleVariable makes the test program one that tasks run.
const roleVariable = "HOSTILE_ROLE"

// TestMain is the beginning of the tests, and of their tasks.
func TestMain(m *testing.M) {
	role, arguments, _ := strings.Cut(os.Getenv(roleVariable), " ")
	switch role {
	case "":
		code := m.Run()
		os.RemoveAll(programsFolder())
		os.Exit(code)
	case "tree":
		plant()
	case "traps":
		traps()
	case "crowd":
		crowd(arguments)
	case "grow":
		grow()
	case "spy":
		spy(os.Getenv("FILES"), os.Getenv("PROCESSES"), os.Getenv("SOCKETS"))
	case "noise":
		noise(arguments)
	case "hoard":
		hoard(arguments)
	case "hunt":
		search(os.Getenv("WHERE"))
	case "lock":
		lock()
	default:
		fmt.Println("there is no role", role)
		os.Exit(2)
	}
}

// programsFolder has the programs of all tests.
func programsFolder() string {
	return filepath.Join("/var/tmp", fmt.Sprintf("batchyard-programs-%d", os.Getpid()))
}

// programs makes that folder.
func programs(t *testing.T) string {
	t.Helper()
	err := os.Mkdir(programsFolder(), 0o711)
	if err == nil || os.IsExist(err) {
		err = os.Chmod(programsFolder(), 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	return programsFolder()
}

// taskProgram is the test program where tasks of all users can run it.
func taskProgram(t *testing.T) string {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp(programs(t), "")
	if err == nil {
		err = os.Chmod(folder, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return copyProgram(t, own, filepath.Join(folder, "task"))
}

// copyProgram copies a program that other users may not be able to reach, as below /root, and
// returns the name of the copy, which all may run.
func copyProgram(t *testing.T, program, name string) string {
	t.Helper()
	from, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := firstError(err, to.Chmod(0o755), to.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// do stops a task's role at what cannot be done.
func do(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

const (
	// depth is that of the folders in each other: their path is longer than any path may be.
	depth = 4000
	// sparse is the size of a file that takes no room. A task may have no larger one.
	sparse = 1 << 30
)

// oddNames are names of files that only the kernel takes for text.
var oddNames = []string{
	"\xff\xfe", "new\nline", "carriage\rreturn", "a%2fb", "%2e%2e", `back\slash`, `..\..\x`, "...", " ", "-rf", "con:1", "<b>", "\x7f", "\u202egpj", "☃",
	strings.Repeat("n", 251), "*", "[", "{a,b}", "?", "'", "a'b", "#", "a?b=c", "~",
}

// traps leaves links in the working directory, and what is no file.
func traps() {
	for name, target := range links() {
		do(os.Symlink(target, name))
	}
	do(syscall.Mkfifo("pipe", 0o666))
	_, err := net.Listen("unix", "socket")
	do(err)
	fmt.Println("planted")
}

// plant leaves in the working directory what no file operation should stumble over.
func plant() {
	traps()
	do(os.WriteFile("plain", []byte("0123456789"), 0o644))
	do(os.Mkdir("folder", 0o755))
	do(os.WriteFile("folder/file", []byte("in a folder"), 0o644))
	do(os.Link("plain", "hard"))
	file, err := os.Create("sparse")
	do(err)
	do(file.Truncate(sparse))
	do(file.Close())
	for _, name := range oddNames {
		do(os.WriteFile("odd-"+name, []byte("odd"), 0o644))
	}
	do(os.MkdirAll("closed/inside", 0o755))
	do(os.WriteFile("closed/inside/file", []byte("x"), 0o000))
	do(os.Chmod("closed/inside", 0o500))
	do(os.Chmod("closed", 0o000))
	dig("deep")
	fmt.Println("planted")
}

// links are symbolic links by their names. Those that begin with "in" lead to files of the task.
func links() map[string]string {
	own := os.Getenv("AZ_BATCH_TASK_DIR")
	node := os.Getenv("AZ_BATCH_NODE_ROOT_DIR")
	return map[string]string{
		"inside": "plain", "inside-by-folder": "folder/../plain",
		"out": "/etc/passwd", "out-absolute": own + "/wd/plain", "out-shadow": "/etc/shadow", "out-canary": os.Getenv("CANARY"),
		"out-state": "../../../../../../state/node.json", "out-state-absolute": filepath.Dir(node) + "/state/node.json",
		"inside-up": "..", "out-up-up": "../../..", "out-root": "/", "out-node": node,
		"out-other": "../../victim/wd", "out-secret": "../../victim/wd/secret", "out-device": "/dev/zero", "out-self": "/proc/self/environ",
		"out-process": "/proc/self/root", "loop": "loop", "loop-a": "loop-b", "loop-b": "loop-a", "nowhere": "nothing", "out-long": strings.Repeat("../", 1300) + "etc/passwd",
	}
}

// dig makes folders in each other.
func dig(name string) {
	back, err := os.Open(".")
	do(err)
	do(os.Mkdir(name, 0o755))
	do(os.Chdir(name))
	for range depth {
		do(os.Mkdir("d", 0o755))
		do(os.Chdir("d"))
	}
	do(os.WriteFile("bottom", nil, 0o644))
	do(back.Chdir())
	do(back.Close())
}

// crowd makes a folder of very many files.
func crowd(count string) {
	var n int
	_, err := fmt.Sscan(count, &n)
	do(err)
	do(os.Mkdir("crowd", 0o755))
	for i := range n {
		fd, err := syscall.Open(fmt.Sprintf("crowd/file-%06d", i), syscall.O_CREAT|syscall.O_WRONLY, 0o644)
		do(err)
		do(syscall.Close(fd))
	}
	fmt.Println("planted")
}

// grow writes without end.
func grow() {
	file, err := os.Create("growing")
	do(err)
	text := []byte(strings.Repeat("x", 64<<10))
	for begun := false; ; begun = true {
		_, err := file.Write(text)
		do(err)
		if !begun {
			fmt.Println("planted")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lock makes what even root cannot remove at once: an immutable file in an immutable folder. Where
// that cannot be had, it says so.
func lock() {
	do(os.Mkdir("locked", 0o755))
	do(os.WriteFile("locked/file", []byte("x"), 0o644))
	do(os.WriteFile("locked/log", []byte("x"), 0o644))
	err := firstError(addFlag("locked/file", immutable), addFlag("locked/log", appendOnly), addFlag("locked", immutable))
	if err != nil {
		fmt.Println("cannot lock:", err)
		return
	}
	fmt.Println("planted")
}

const (
	getFlags   = 0x80086601 // FS_IOC_GETFLAGS
	setFlags   = 0x40086602 // FS_IOC_SETFLAGS
	immutable  = 0x10
	appendOnly = 0x20
)

// addFlag gives a file one more attribute of the filesystem.
func addFlag(name string, flag uint32) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	var flags uint32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), getFlags, uintptr(unsafe.Pointer(&flags)))
	if errno == 0 {
		flags |= flag
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), setFlags, uintptr(unsafe.Pointer(&flags)))
	}
	if errno != 0 {
		return fmt.Errorf("%s: %w", name, errno)
	}
	return nil
}

// dialSocket connects to a socket by way of its folder: an address has no room for its whole name.
func dialSocket(name string) (net.Conn, error) {
	back, err := os.Getwd()
	do(err)
	if err := os.Chdir(filepath.Dir(name)); err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("unix", filepath.Base(name), 5*time.Second)
	do(os.Chdir(back))
	return conn, err
}

// noise says to a socket what nobody says who belongs to it.
func noise(socket string) {
	for _, text := range []string{
		"", "\x00\x00\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff", "{}", "null\n", `{"hello":{}}`, strings.Repeat("[", 1<<20), "GET / HTTP/1.1\r\n\r\n",
		strings.Repeat("x", 8<<20),
	} {
		conn, err := dialSocket(socket)
		do(err)
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write([]byte(text)); err == nil {
			_, _ = conn.Read(make([]byte, 1<<10))
		}
		conn.Close()
	}
	fmt.Println("planted")
}

// spy says what of other people's files, processes and sockets it can reach.
func spy(files, processes, sockets string) {
	for _, name := range strings.Fields(files) {
		spyFile(name)
	}
	for _, process := range strings.Fields(processes) {
		spyProcess(process)
	}
	for _, name := range strings.Fields(sockets) {
		if conn, err := dialSocket(name); err == nil {
			fmt.Println("connect", name)
			conn.Close()
		}
	}
	fmt.Println("searched")
}

func spyFile(name string) {
	if file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
		if _, err := file.Read(make([]byte, 1)); err == nil {
			fmt.Println("read", name)
		}
		if names, _ := file.Readdirnames(-1); len(names) > 0 {
			fmt.Println("list", name)
		}
		file.Close()
	}
	if file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0); err == nil {
		fmt.Println("write", name)
		file.Close()
	}
	own := fmt.Sprintf("spy-%d", len(name))
	for _, attack := range []struct { // what takes the file away comes last
		what string
		try  func() error
	}{
		{"link", func() error { return os.Link(name, own) }},
		{"chmod", func() error { return os.Chmod(name, 0o777) }},
		{"add to", func() error { return os.WriteFile(name+"/spy", nil, 0o644) }},
		{"rename", func() error { return os.Rename(name, name+".mine") }},
		{"remove", func() error { return syscall.Unlink(name) }},
	} {
		if err := attack.try(); err == nil {
			fmt.Println(attack.what, name)
		}
	}
	os.Remove(own)
}

func spyProcess(process string) {
	for _, name := range []string{"environ", "mem", "maps", "auxv", "stack", "syscall", "io", "pagemap"} {
		if file, err := os.Open("/proc/" + process + "/" + name); err == nil {
			if _, err := file.Read(make([]byte, 1)); err == nil || name == "mem" {
				fmt.Println("read", name, "of", process)
			}
			file.Close()
		}
	}
	for _, name := range []string{"exe", "cwd", "root"} {
		if _, err := os.Readlink("/proc/" + process + "/" + name); err == nil {
			fmt.Println("read link", name, "of", process)
		}
	}
	if names, _ := filepath.Glob("/proc/" + process + "/fd/*"); len(names) > 0 {
		fmt.Println("list descriptors of", process)
	}
	// What everybody may read of a process must not hold a secret.
	for _, name := range []string{"cmdline", "comm", "status"} {
		if text, err := os.ReadFile("/proc/" + process + "/" + name); err == nil {
			for _, secret := range strings.Fields(os.Getenv("SECRETS")) {
				if strings.Contains(string(text), secret) {
					fmt.Println("find a secret in", name, "of", process)
				}
			}
		}
	}
	var pid int
	_, err := fmt.Sscan(process, &pid)
	do(err)
	// SIGCONT is everybody's in a session, and does nothing to who is not stopped.
	for _, signal := range []syscall.Signal{0, syscall.SIGURG} {
		if err := syscall.Kill(pid, signal); err == nil {
			fmt.Println("signal", process)
		}
	}
	if err := syscall.PtraceAttach(pid); err == nil {
		fmt.Println("trace", process)
		_ = syscall.PtraceDetach(pid)
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, pid, 19); err == nil {
		fmt.Println("slow down", process)
	}
	limit := syscall.Rlimit{}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_NOFILE, 0, uintptr(unsafe.Pointer(&limit)), 0, 0); errno == 0 {
		fmt.Println("read limits of", process)
	}
	if err := os.WriteFile("/proc/"+process+"/oom_score_adj", []byte("1000"), 0); err == nil {
		fmt.Println("offer up", process)
	}
}
