package admin_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// insideVariable marks the process of the tests that has mounts of its own.
const insideVariable = "BATCHYARD_TEST_OWN_MOUNTS"

// TestReadOnlyMounts mounts data read-only where only the test sees it, and looks
// through them and copies them there. The test runs once more, in a process with
// mounts of its own, and nothing is left when that ends.
func TestReadOnlyMounts(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		for name, leaveLog := range map[string]bool{"of a server that was stopped": false, "of a server that was killed": true} {
			t.Run(name, func(t *testing.T) { lookAtReadOnly(t, leaveLog) })
		}
		return
	}
	t.Parallel()
	again := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestReadOnlyMounts$", "-test.v", "-test.timeout=3m")
	again.Env = append(os.Environ(), insideVariable+"=yes")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	text, err := again.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(text), "NO MOUNTS") {
		t.Skip("NO MOUNTS: this machine forbids them")
	}
	t.Logf("%s", text)
	if err != nil || !strings.Contains(string(text), "--- PASS: TestReadOnlyMounts/") {
		t.Errorf("inside: %v", err)
	}
}

func lookAtReadOnly(t *testing.T, leaveLog bool) {
	h := newHouse(t, storetest.SQLite(t))
	var kept []byte
	if leaveLog {
		// The database as a killed server leaves it: what was done is in the log.
		db := h.open()
		h.check(db.Update(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE job SET active = 77`)
			return err
		}))
		var err error
		kept, err = os.ReadFile(h.place.URL() + "-wal")
		h.check(err)
		file, err := os.ReadFile(h.place.URL())
		h.check(err)
		h.check(db.Close())
		h.check(errors.Join(os.WriteFile(h.place.URL(), file, 0o600), os.WriteFile(h.place.URL()+"-wal", kept, 0o600)))
	}
	mount := filepath.Join(t.TempDir(), "mount")
	h.check(os.Mkdir(mount, 0o755))
	err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount(h.place.Data, mount, "", syscall.MS_BIND, ""),
		syscall.Mount("", mount, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if err != nil {
		t.Skipf("NO MOUNTS: %v", err)
	}
	defer func() { h.check(syscall.Unmount(mount, syscall.MNT_DETACH)) }()
	if err := os.WriteFile(filepath.Join(mount, "x"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("the mount can be written: %v", err)
	}
	h.place = site.Place{Data: mount}
	found := h.fsck(deep)
	if leaveLog != (len(found) == 1 && found[0].Kind == "job-counts") || !leaveLog && len(found) > 0 {
		t.Errorf("a check finds %+v", found)
	}
	from := h.backup()
	restored, err := h.restore(from, "/unused/batchyard.db")
	h.check(err)
	if found := restored.fsck(deep); len(found) > 0 {
		t.Errorf("wrong after restore: %+v", found)
	}
	err = admin.Check(t.Context(), admin.CheckOptions{Place: h.place, Repair: true}, func(admin.Finding) error { return nil })
	if !errors.Is(err, syscall.EROFS) && !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a repair says %v", err)
	}
}
