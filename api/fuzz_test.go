package api

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
)

// model is a body that the protocol has, and the check that its verb begins with.
type model struct {
	kind  kind
	value any
	check func(any) error
}

// models are all bodies of requests.
func models() []model {
	retries := 0
	job := &batch.JobSpecification{Constraints: &batch.JobConstraints{MaxTaskRetryCount: &retries}}
	unchecked := func(any) error { return nil }
	return []model{
		{kindPool, &batch.PoolSpecification{}, func(v any) error { return v.(*batch.PoolSpecification).Normalize() }},
		{kindJob, &batch.JobSpecification{}, func(v any) error { return v.(*batch.JobSpecification).Normalize() }},
		{kindTask, &batch.TaskSpecification{}, func(v any) error { return v.(*batch.TaskSpecification).Normalize(job) }},
		{kindPool, &batch.PoolPatch{}, unchecked},
		{kindPool, &poolReplacement{}, unchecked},
		{kindPool, &batch.PoolResize{}, unchecked},
		{kindOther, &batch.NodeRemoval{}, unchecked},
		{kindJob, &batch.JobPatch{}, unchecked},
		{kindTask, &batch.TaskUpdate{}, unchecked},
	}
}

// FuzzBodies reads bodies as every version does: what is refused is refused in the protocol's words
// and not as an error of ours, and what is accepted is written and read again without a change.
func FuzzBodies(f *testing.F) {
	for _, text := range []string{
		`{"id":"t","commandLine":"/bin/true","constraints":{"maxWallClockTime":"PT1H","retentionTime":"P7D","maxTaskRetryCount":-1},"requiredSlots":2}`,
		`{"id":"t","commandLine":"x","resourceFiles":[{"httpUrl":"https://a/b","filePath":"a/b","fileMode":"0755"},{"storageContainerUrl":"https://a/c","blobPrefix":"p"}]}`,
		`{"id":"t","commandLine":"x","outputFiles":[{"filePattern":"**/*.txt","destination":{"container":{"containerUrl":"https://a/c","path":"p",` +
			`"uploadHeaders":[{"name":"x-ms-meta-a","value":"b"}]}},"uploadOptions":{"uploadCondition":"taskSuccess"}}]}`,
		`{"id":"t","commandLine":"x","userIdentity":{"autoUser":{"scope":"task","elevationLevel":"admin"}},"environmentSettings":[{"name":"A","value":"b"}],` +
			`"exitConditions":{"exitCodes":[{"code":1,"exitOptions":{"jobAction":"terminate"}}],"exitCodeRanges":[{"start":2,"end":3,"exitOptions":{}}],"default":{}}}`,
		`{"id":"p","vmSize":"STANDARD_D2_V3","virtualMachineConfiguration":{"imageReference":{"publisher":"a","offer":"b","sku":"c"},"nodeAgentSKUId":"d"},` +
			`"targetDedicatedNodes":2,"resizeTimeout":"PT15M","startTask":{"commandLine":"x","waitForSuccess":true},"metadata":[{"name":"a","value":"b"}]}`,
		`{"id":"p","vmSize":"small","cloudServiceConfiguration":{"osFamily":"4"},"userAccounts":[{"name":"u","password":"p","elevationLevel":"admin"}],"taskSchedulingPolicy":{"nodeFillType":"pack"}}`,
		`{"id":"p","vmSize":"small","osFamily":"4","targetOSVersion":"*","targetDedicated":1,"maxTasksPerNode":2}`,
		`{"id":"j","poolInfo":{"poolId":"p"},"priority":-1000,"maxParallelTasks":-1,"onAllTasksComplete":"terminatejob","onTaskFailure":"noaction","commonEnvironmentSettings":[]}`,
		`{"priority":1,"constraints":null,"metadata":[]}`, `{"targetDedicatedNodes":0,"nodeDeallocationOption":"requeue"}`,
		`{"nodeList":["a"],"resizeTimeout":"PT5M"}`, `{"runElevated":true,"id":"t","commandLine":"x","odata.metadata":"y","a@odata.type":1}`,
		`null`, `[]`, `{"id":"\u0000"}`, `{"id":1e999}`, "\xef\xbb\xbf{}", `{"constraints":{"maxWallClockTime":"P9999999999D"}}`, `{"a":{"a":{"a":[[[[]]]]}}}`,
	} {
		for m := range models() {
			for v := 0; v < len(published); v += 6 {
				f.Add(uint8(m), uint8(v), []byte(text))
			}
		}
	}
	s := &server{versions: compileVersions()}
	f.Fuzz(func(t *testing.T, which, version uint8, body []byte) {
		all := models()
		m := all[int(which)%len(all)]
		c := &call{server: s, version: s.versions[published[int(version)%len(published)]]}
		err := c.unmarshal(jsontext.Value(bytes.Clone(body)), m.kind, m.value)
		if err == nil {
			err = m.check(m.value)
		}
		if err != nil {
			checkRefusal(t, err)
			return
		}
		text, err := json.Marshal(m.value)
		if err != nil {
			t.Fatalf("what was accepted cannot be written: %v", err)
		}
		again := reflect.New(reflect.TypeOf(m.value).Elem()).Interface()
		if err := json.Unmarshal(text, again, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("what was written cannot be read: %v: %s", err, text)
		}
		if err := m.check(again); err != nil {
			t.Fatalf("what was accepted is refused when it is read again: %v: %s", err, text)
		}
		second, err := json.Marshal(again)
		if err != nil || !bytes.Equal(text, second) {
			t.Errorf("written again it differs (%v):\n%s", err, cmp.Diff(string(text), string(second)))
		}
	})
}

// checkRefusal wants an error that a caller is told of, and that can be told.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*batch.Error](err)
	if !ok {
		t.Fatalf("a body is refused by %v", err)
	}
	if _, status := shown(err); status >= 500 && e.Code != batch.CodeNotImplemented {
		t.Errorf("a body is answered by %d: %v", status, err)
	}
	for _, d := range e.Details {
		if len(d.Value) > 4096 {
			t.Errorf("the error repeats %d bytes in %s", len(d.Value), d.Key)
		}
	}
}
