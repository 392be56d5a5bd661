package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/api"
)

var update = flag.Bool("update", false, "write the golden answers anew")

// TestGolden compares answers with files, one a resource, in which the answers
// of all eras follow each other.
func TestGolden(t *testing.T) {
	t.Parallel()
	e := withTaskAt(t, func() time.Time { return noon }, func(o *api.Options) {
		o.BaseURL = func(*http.Request) string { return "https://test.batch.example" }
	})
	node := e.addNode(t, "p")
	e.ran(t, node)
	e.must(t, 201, "POST", "/pools", "2019-08-01.10.0", `{"id":"full","displayName":"Full","vmSize":"small","targetDedicatedNodes":2,
		"cloudServiceConfiguration":{"osFamily":"5"},"maxTasksPerNode":2,"metadata":[{"name":"a","value":"b"}],
		"userAccounts":[{"name":"ann","password":"secret","elevationLevel":"admin"}],
		"startTask":{"commandLine":"/bin/true","resourceFiles":[{"httpUrl":"https://h/c/b","filePath":"b"}],
			"environmentSettings":[{"name":"A","value":"B"}],"waitForSuccess":true}}`)
	e.must(t, 201, "POST", "/jobs", newest, `{"id":"full","displayName":"Full","priority":5,"maxParallelTasks":3,"poolInfo":{"poolId":"p"},
		"commonEnvironmentSettings":[{"name":"A","value":"B"}],"metadata":[{"name":"a","value":"b"}],
		"onAllTasksComplete":"noaction","onTaskFailure":"performexitoptionsjobaction"}`)
	e.must(t, 201, "POST", "/jobs/full/tasks", newest, `{"id":"full","displayName":"Full","commandLine":"/bin/true","requiredSlots":1,
		"resourceFiles":[{"httpUrl":"https://h/c/b","filePath":"b","fileMode":"0644"},{"storageContainerUrl":"https://h/c?sig","blobPrefix":"x"}],
		"outputFiles":[{"filePattern":"**/*.txt","destination":{"container":{"containerUrl":"https://h/c?sig","path":"out"}},
			"uploadOptions":{"uploadCondition":"taskcompletion"}}],
		"environmentSettings":[{"name":"A","value":"B"}],"affinityInfo":{"affinityId":"n"},
		"constraints":{"maxWallClockTime":"PT1H","retentionTime":"P1D","maxTaskRetryCount":2},
		"userIdentity":{"autoUser":{"scope":"task","elevationLevel":"admin"}},
		"exitConditions":{"exitCodes":[{"code":1,"exitOptions":{"jobAction":"terminate"}}],
			"exitCodeRanges":[{"start":2,"end":4,"exitOptions":{"jobAction":"disable"}}],
			"preProcessingError":{"jobAction":"none"},"fileUploadError":{"jobAction":"none"},"default":{"jobAction":"none"}}}`)

	for name, path := range map[string]string{
		"pool":       "/pools/p",
		"pool-full":  "/pools/full",
		"pools":      "/pools?maxresults=1",
		"node":       "/pools/p/nodes/" + string(node),
		"nodecounts": "/nodecounts?$filter=poolId%20eq%20%27p%27",
		"job":        "/jobs/j",
		"job-full":   "/jobs/full",
		"task":       "/jobs/j/tasks/t",
		"task-full":  "/jobs/full/tasks/full",
		"taskcounts": "/jobs/full/taskcounts",
	} {
		t.Run("the answer for "+name+" is the one on file", func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			for _, version := range eras() {
				a := e.must(t, 200, "GET", path, version, "")
				fmt.Fprintf(&got, "-- %s --\n", version)
				for _, header := range []string{"ETag", "Last-Modified"} {
					if v := a.header.Get(header); v != "" {
						fmt.Fprintf(&got, "%s: %s\n", header, v)
					}
				}
				if err := json.Indent(&got, []byte(a.body), "", "  "); err != nil {
					t.Fatal(err)
				}
				got.WriteByte('\n')
			}
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got.String(), string(want)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
