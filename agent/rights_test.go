package agent_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/batchyard/batchyard/batch"
	"github.com/google/go-cmp/cmp"
)

// An agent that is root uploads nothing that the task could not read itself.
func TestUploadsHaveTheRightsOfTheTask(t *testing.T) {
	t.Parallel()
	if !isRoot() {
		t.Skip("SKIPPED: only root runs tasks as users of their own")
	}
	s := newStorage(t)
	n := newNode(t, allow(host(s.server)), func(n *node) {
		n.settings.UserAccounts = []batch.UserAccount{{Name: "alice"}, {Name: "boss", ElevationLevel: batch.ElevationAdmin}}
	})
	url := s.url(sas.ContainerPermissions{Write: true, Create: true})
	n.booted(1)
	alice := n.options.UIDBase + 1
	// What alice keeps to herself, what root does, and what is for everybody.
	if err := errors.Join(
		os.Mkdir(n.path("shared", "closed"), 0o711), os.WriteFile(n.path("shared", "closed", "in"), []byte("secret"), 0o644),
		os.WriteFile(n.path("shared", "private"), []byte("secret"), 0o600),
		os.WriteFile(n.path("shared", "root"), []byte("secret"), 0o640), os.WriteFile(n.path("shared", "open"), []byte("open"), 0o644),
		os.Chmod(n.path("shared", "closed"), 0o700),
		os.Chown(n.path("shared", "closed"), int(alice), int(alice)), os.Chown(n.path("shared", "private"), int(alice), int(alice)),
	); err != nil {
		t.Fatal(err)
	}
	upload := func(task string, user *batch.UserIdentity, patterns ...string) batch.Outcome {
		run := shell("true")
		run.UserIdentity = user
		for _, pattern := range patterns {
			run.OutputFiles = append(run.OutputFiles, output(n.path("shared", pattern), url, task, batch.UploadOnCompletion))
		}
		return n.run(task, run)
	}
	t.Run("the user of the pool", func(t *testing.T) {
		for task, pattern := range map[string]string{"private": "private", "root": "root", "closed": "closed/in"} {
			if got := upload("pool-"+task, nil, pattern); got.Failure == nil || got.Failure.Code != batch.FailureUpload || !strings.Contains(about(got, "Message"), "permission denied") {
				t.Errorf("%s: %+v", pattern, got.Failure)
			}
		}
		upload("pool-wild", nil, "closed/*", "**/in", "o*")
		if diff := cmp.Diff(map[string]string{"pool-wild/open": "open"}, s.blobs("pool-")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a user whose files they are", func(t *testing.T) {
		upload("alice", &batch.UserIdentity{Username: "alice"}, "private", "closed/*", "root")
		if diff := cmp.Diff(map[string]string{"alice": "secret", "alice/in": "secret"}, s.blobs("alice")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("an administrator", func(t *testing.T) {
		upload("boss", &batch.UserIdentity{Username: "boss"}, "root")
		if diff := cmp.Diff(map[string]string{"boss": "secret"}, s.blobs("boss")); diff != "" {
			t.Error(diff)
		}
	})
}
