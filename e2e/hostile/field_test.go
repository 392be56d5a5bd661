package hostile_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// whole are bodies that say as much as a request can, by where they are sent.
var whole = map[string]string{
	"/pools": `{"id":"p","displayName":"x","vmSize":"small","virtualMachineConfiguration":{"nodeAgentSKUId":"a","licenseType":"x",
		"imageReference":{"publisher":"a","offer":"b","sku":"c","version":"latest"}},"resizeTimeout":"PT15M","targetDedicatedNodes":0,"targetLowPriorityNodes":0,
		"enableInterNodeCommunication":false,"taskSlotsPerNode":1,"taskSchedulingPolicy":{"nodeFillType":"spread"},"metadata":[{"name":"a","value":"b"}],
		"userAccounts":[{"name":"u","password":"p","elevationLevel":"nonadmin"}],"startTask":{"commandLine":"x","maxTaskRetryCount":1,"waitForSuccess":true,
		"environmentSettings":[{"name":"A","value":"b"}],"resourceFiles":[{"httpUrl":"https://a/b","filePath":"c","fileMode":"0755"}],
		"userIdentity":{"autoUser":{"scope":"pool","elevationLevel":"nonadmin"}}}}`,
	"/jobs": `{"id":"j","displayName":"x","priority":1,"allowTaskPreemption":false,"maxParallelTasks":5,"constraints":{"maxWallClockTime":"PT1H","maxTaskRetryCount":1},
		"commonEnvironmentSettings":[{"name":"A","value":"b"}],"poolInfo":{"poolId":"base"},"onAllTasksComplete":"noaction","onTaskFailure":"noaction",
		"metadata":[{"name":"a","value":"b"}]}`,
	"/jobs/base/tasks": `{"id":"t","displayName":"x","commandLine":"x","resourceFiles":[{"httpUrl":"https://a/b","filePath":"c","fileMode":"0755"},
		{"storageContainerUrl":"https://a/b","blobPrefix":"c","filePath":"d"}],"outputFiles":[{"filePattern":"*","destination":{"container":{"containerUrl":"https://a/b",
		"path":"c","uploadHeaders":[{"name":"x-ms-meta-a","value":"b"}]}},"uploadOptions":{"uploadCondition":"taskcompletion"}}],
		"environmentSettings":[{"name":"A","value":"b"}],"affinityInfo":{"affinityId":"x"},"requiredSlots":1,
		"constraints":{"maxWallClockTime":"PT1H","retentionTime":"PT1H","maxTaskRetryCount":1},"userIdentity":{"autoUser":{"scope":"task","elevationLevel":"nonadmin"}},
		"exitConditions":{"exitCodes":[{"code":1,"exitOptions":{"jobAction":"none"}}],"exitCodeRanges":[{"start":2,"end":3,"exitOptions":{"jobAction":"none"}}],
		"preProcessingError":{"jobAction":"none"},"fileUploadError":{"jobAction":"none"},"default":{"jobAction":"none"}}}`,
	"/jobs/base/tasks/base": `{"constraints":{"maxWallClockTime":"PT1H","retentionTime":"PT1H","maxTaskRetryCount":1}}`,
	"/pools/base/resize":    `{"targetDedicatedNodes":0,"targetLowPriorityNodes":0,"resizeTimeout":"PT15M","nodeDeallocationOption":"requeue"}`,
	"/jobs/base/disable":    `{"disableTasks":"requeue"}`,
}

// idOf finds the id of a body, which is as short as no odd value is.
var idOf = regexp.MustCompile(`"id":"[pjt]"`)

// odd are values that few properties can have.
var odd = []string{
	`null`, `true`, `-1`, `1.5`, `9223372036854775807`, `-9223372036854775808`, `1e400`, `""`, `"\ud83d\ude00"`, `"-P1D"`, `"P10675199DT2H48M5.4775807S"`, `"../../etc"`,
	`[]`, `[null]`, `[[]]`, `{}`, `{"a":1}`, `"` + strings.Repeat("x", 70_000) + `"`, strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
}

// TestFields puts every odd value in the place of every property of every body. What is refused is
// refused by a word for it that names the property, and what is accepted can be read.
func TestFields(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, s *server) {
		s.must(t, http.MethodPost, "/pools", `{"id":"base",`+poolImage+`}`)
		s.must(t, http.MethodPost, "/jobs", `{"id":"base","poolInfo":{"poolId":"base"},"onTaskFailure":"performexitoptionsjobaction"}`)
		s.must(t, http.MethodPost, "/jobs/base/tasks", `{"id":"base","commandLine":"x"}`)
		for path, text := range whole {
			t.Run(path, func(t *testing.T) {
				t.Parallel()
				n := 0
				for property, body := range spoilt(t, text) {
					method := http.MethodPost
					if path == "/jobs/base/tasks/base" {
						method = http.MethodPut
					}
					for _, value := range odd {
						n++
						// An id of its own, or it would be refused because there is one.
						sent := idOf.ReplaceAllString(strings.Replace(body, `"spoilt"`, value, 1), fmt.Sprintf(`"id":"x%d"`, n))
						a := s.send(t, s.request(t, method, path, sent))
						checkField(t, property, value, a)
						if t.Failed() {
							t.Fatalf("%s %s with %s = %s", method, path, property, clip(value))
						}
					}
				}
				if n < len(odd) {
					t.Errorf("only %d bodies were sent", n)
				}
			})
		}
	})
}

// checkField holds the answer to a body with one odd value.
func checkField(t *testing.T, property, value string, a answer) {
	t.Helper()
	if a.status < 300 {
		return
	}
	f, ok := faultOfBatch(a)
	if !ok {
		t.Errorf("status %d without an error of the protocol: %s", a.status, clip(a.body))
		return
	}
	switch f.Code {
	case "ResourceNotFound", "RequestBodyTooLarge", "PoolNotFound", "PoolBeingResized", "JobDisabled", "OperationInvalidForCurrentState", "JobBeingTerminated":
		return
	case "InvalidRequestBody", "InvalidPropertyValue", "MissingRequiredProperty", "PropertyNotSupported":
	default:
		t.Errorf("status %d: %s", a.status, clip(a.body))
	}
	top, _, _ := strings.Cut(property, ".")
	top, _, _ = strings.Cut(top, "[")
	if all := strings.Join(f.Values, "\n"); a.status != http.StatusBadRequest || !strings.Contains(all, top) && !strings.Contains(all, "requested") {
		t.Errorf("status %d does not name %s for %s: %s", a.status, property, clip(value), clip(a.body))
	}
}

// spoilt are copies of a body in each of which one value is the text "spoilt", by the property.
func spoilt(t *testing.T, text string) map[string]string {
	t.Helper()
	var tree any
	decode(t, text, &tree)
	copies := map[string]string{}
	var visit func(property string, value any, set func(any))
	visit = func(property string, value any, set func(any)) {
		if property != "" {
			set("spoilt")
			body, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			copies[property] = string(body)
			set(value)
		}
		switch v := value.(type) {
		case map[string]any:
			for name, child := range v {
				below := name
				if property != "" {
					below = property + "." + name
				}
				visit(below, child, func(x any) { v[name] = x })
			}
		case []any:
			for i, child := range v {
				visit(fmt.Sprintf("%s[%d]", property, i), child, func(x any) { v[i] = x })
			}
		}
	}
	visit("", tree, nil)
	return copies
}
