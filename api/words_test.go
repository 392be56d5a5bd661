package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
)

// image is a machine of a pool, with more in it.
func image(more string) string {
	return `"virtualMachineConfiguration":{"nodeAgentSKUId":"batch.node.ubuntu 24.04","imageReference":` +
		`{"publisher":"canonical","offer":"ubuntu-24_04-lts","sku":"server"}` + more + `}`
}

// part is what stands in an object behind names with dots between, as JSON.
func part(t *testing.T, object map[string]any, path string) string {
	t.Helper()
	var value any = object
	for name := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			value = v[int(name[0]-'0')]
		default:
			value = nil
		}
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPoolsAreShownInTheWordsOfTheService(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.must(t, 201, "POST", "/pools", "2024-02-01.19.0", `{"id":"words","vmSize":"STANDARD_D2_v3","taskSchedulingPolicy":{"nodeFillType":"PACK"},`+
		`"networkConfiguration":{"subnetId":"s","endpointConfiguration":{"inboundNATPools":[{"name":"ssh","protocol":"tcp","backendPort":"22","frontendPortRangeStart":"1","frontendPortRangeEnd":"99"}]}},`+
		`"upgradePolicy":{"mode":"rolling","rollingUpgradePolicy":{"maxBatchInstancePercent":"20"}},"metadata":[],`+
		`"startTask":{"commandLine":"a","resourceFiles":[],"environmentSettings":[]},`+
		`"userAccounts":[{"name":"u","password":"p","windowsUserConfiguration":{"loginMode":"batch"}}],`+
		image(`,"osDisk":{"caching":"readonly","diskSizeGB":"64","managedDisk":{"storageAccountType":"Premium_LRS"}},`+
			`"dataDisks":[{"lun":"1","diskSizeGB":5},{"lun":2,"diskSizeGB":6,"caching":"readwrite","storageAccountType":"Premium_LRS"}],`+
			`"nodePlacementConfiguration":{"policy":"zonal"},"securityProfile":{"securityType":"TrustedLaunch"}`)+`}`)
	for version, shown := range map[string]map[string]string{
		"2024-02-01.19.0": {
			"vmSize": `"standard_d2_v3"`, "taskSchedulingPolicy.nodeFillType": `"Pack"`,
			"networkConfiguration.dynamicVNetAssignmentScope": `"none"`, "networkConfiguration.endpointConfiguration.inboundNATPools.0.backendPort": "22",
			"upgradePolicy.rollingUpgradePolicy.maxBatchInstancePercent": "20", "metadata": "[]", "startTask.resourceFiles": "[]",
			"startTask.environmentSettings": "[]", "userAccounts.0.windowsUserConfiguration.loginMode": `"batch"`,
			"virtualMachineConfiguration.osDisk": `{"caching":"ReadOnly","diskSizeGB":64,"ephemeralOSDiskSettings":{},"managedDisk":{"storageAccountType":"premium_lrs"}}`,
			"virtualMachineConfiguration.dataDisks": `[{"caching":"none","diskSizeGB":5,"lun":1,"storageAccountType":"standard_lrs"},` +
				`{"caching":"readwrite","diskSizeGB":6,"lun":2,"storageAccountType":"premium_lrs"}]`,
			"virtualMachineConfiguration.nodePlacementConfiguration.policy": `"Zonal"`, "virtualMachineConfiguration.securityProfile.securityType": `"trustedlaunch"`,
			"startTask.userIdentity": `{"autoUser":{"elevationLevel":"nonadmin","scope":"pool"}}`,
		},
		"2022-10-01.16.0": {"virtualMachineConfiguration.osDisk": `{"caching":"ReadOnly"}`},
		"2019-08-01.10.0": {"networkConfiguration.dynamicVNetAssignmentScope": `"none"`, "startTask.userIdentity": `{"autoUser":{"elevationLevel":"nonadmin","scope":"pool"}}`},
		"2019-06-01.9.0":  {"networkConfiguration.dynamicVNetAssignmentScope": "null", "startTask.userIdentity": `{"autoUser":{"elevationLevel":"nonadmin"}}`},
		"2018-03-01.6.1":  {"startTask.userIdentity": `{"autoUser":{"elevationLevel":"nonadmin"}}`},
		"2017-09-01.6.0":  {"startTask.userIdentity": "null", "startTask.runElevated": "null"},
		"2016-07-01.3.1":  {"startTask.userIdentity": "null", "startTask.runElevated": "false"},
	} {
		pool := e.must(t, 200, "GET", "/pools/words", version, "").object(t)
		for path, want := range shown {
			if got := part(t, pool, path); got != want {
				t.Errorf("%s: %s is %s, want %s", version, path, got, want)
			}
		}
	}
}

// birth makes a node of a pool that nobody has heard.
func (e *edge) birth(t *testing.T, pool batch.PoolID) {
	t.Helper()
	err := e.verbs.StepPool(t.Context(), e.account, pool, func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
		return control.PoolStep{AddDedicated: 1}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUsersOfWindowsSayHowTheyLogIn(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.must(t, 201, "POST", "/pools", "2019-08-01.10.0", `{"id":"p","vmSize":"small","cloudServiceConfiguration":{"osFamily":"5"},"userAccounts":[`+
		`{"name":"a","password":"p"},{"name":"b","password":"p","windowsUserConfiguration":{"loginMode":"batch"}}]}`)
	e.must(t, 201, "POST", "/pools", newest, `{"id":"linux","vmSize":"small","userAccounts":[{"name":"a","password":"p"}],`+image("")+`}`)
	for _, c := range []struct{ pool, version, path, want string }{
		{"p", "2019-08-01.10.0", "userAccounts.0.windowsUserConfiguration", `{"loginMode":"interactive"}`},
		{"p", "2019-08-01.10.0", "userAccounts.1.windowsUserConfiguration", `{"loginMode":"batch"}`},
		{"p", "2018-08-01.7.0", "userAccounts.0.windowsUserConfiguration", "null"},
		{"linux", newest, "userAccounts.0.windowsUserConfiguration", "null"},
	} {
		if got := part(t, e.must(t, 200, "GET", "/pools/"+c.pool, c.version, "").object(t), c.path); got != c.want {
			t.Errorf("%s: %s of %s is %s, want %s", c.version, c.path, c.pool, got, c.want)
		}
	}
}

func TestCommunicationModes(t *testing.T) {
	t.Parallel()
	const version = "2023-05-01.17.0"
	e := newEdge(t)
	e.must(t, 201, "POST", "/pools", version, `{"id":"p","vmSize":"small","targetNodeCommunicationMode":"Simplified",`+image("")+`}`)
	mode := func(version string) string {
		pool := e.must(t, 200, "GET", "/pools/p", version, "").object(t)
		return part(t, pool, "targetNodeCommunicationMode") + part(t, pool, "currentNodeCommunicationMode")
	}
	if got := mode(version); got != `"simplified"null` {
		t.Errorf("where it was set: %s", got)
	}
	e.must(t, 204, "POST", "/pools/p/updateproperties", version, `{"certificateReferences":[],"applicationPackageReferences":[],"metadata":[]}`)
	if got := mode(version); got != `"default"null` {
		t.Errorf("after an update without it: %s", got)
	}
	e.birth(t, "p")
	if got := mode(version); got != `"default""classic"` {
		t.Errorf("with nodes: %s", got)
	}
	if got := mode("2022-01-01.15.0"); got != "nullnull" {
		t.Errorf("before there were any: %s", got)
	}
}

func TestResizeTimeoutIsThatOfTheRunningResize(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.must(t, 201, "POST", "/pools", newest, `{"id":"p","vmSize":"small","resizeTimeout":"PT20M",`+image("")+`}`)
	timeout := func(version string) string {
		return part(t, e.must(t, 200, "GET", "/pools/p", version, "").object(t), "resizeTimeout")
	}
	if got := timeout(newest) + timeout("2015-11-01.2.1") + timeout("2015-12-01.2.2"); got != `"PT20M"null"PT20M"` {
		t.Errorf("steady: %s", got)
	}
	e.must(t, 202, "POST", "/pools/p/resize", newest, `{"targetDedicatedNodes":1,"resizeTimeout":"PT7M9.497S"}`)
	if got := timeout(newest); got != `"PT7M9.497S"` {
		t.Errorf("resizing: %s", got)
	}
	e.must(t, 202, "POST", "/pools/p/stopresize", newest, "")
	if got := timeout(newest); got != `"PT7M9.497S"` {
		t.Errorf("stopping: %s", got)
	}
}

func TestTasksAreShownInTheWordsOfTheVersion(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	e.must(t, 201, "POST", "/jobs/j/tasks", newest, `{"id":"ended","commandLine":"a","resourceFiles":[],"environmentSettings":[]}`)
	e.must(t, 204, "POST", "/jobs/j/tasks/ended/terminate", newest, "")
	e.ran(t, e.addNode(t, "p"))
	e.birth(t, "p")
	const nonAdmin, pool, own = `{"autoUser":{"elevationLevel":"nonadmin"}}`, `{"autoUser":{"elevationLevel":"nonadmin","scope":"pool"}}`,
		`{"autoUser":{"elevationLevel":"nonadmin","scope":"task"}}`
	for _, version := range published {
		user, result, counts := pool, `"failure"`, "taskcountsresult"
		switch {
		case version < "2017-01":
			user = "null"
		case version < "2017-05":
			user = own
		case version < "2019-08":
			user = nonAdmin
		}
		switch {
		case version < "2017-05":
			result = "null"
		case version < "2018-08":
			result = `"Failure"`
		}
		if version < "2020-09" {
			counts = "taskcounts"
		}
		ended := e.must(t, 200, "GET", "/jobs/j/tasks/ended", version, "").object(t)
		got := []string{part(t, ended, "userIdentity"), part(t, ended, "executionInfo.result"), part(t, ended, "nodeInfo"), part(t, ended, "resourceFiles")}
		if diff := cmp.Diff([]string{user, result, "{}", "[]"}, got); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
		meta := e.must(t, 200, "GET", "/jobs/j/taskcounts", version, "").object(t)["odata.metadata"]
		if !strings.HasSuffix(fmt.Sprint(meta), "$metadata#"+counts+"/@Element") {
			t.Errorf("%s: %v", version, meta)
		}
		ran := e.must(t, 200, "GET", "/jobs/j/tasks/t", version, "").object(t)
		if root := part(t, ran, "nodeInfo.taskRootDirectory"); (root == "null") != (version < "2015-11") {
			t.Errorf("%s: the root directory is %s", version, root)
		}
		for _, item := range e.must(t, 200, "GET", "/pools/p/nodes", version, "").items(t) {
			_, counts := item["totalTasksSucceeded"]
			if booted := item["lastBootTime"] != nil; counts != (booted || version >= "2018-12") || item["vmSize"] != strings.ToLower(fmt.Sprint(item["vmSize"])) {
				t.Errorf("%s: a node, booted: %t, shows %v", version, booted, item)
			}
		}
	}
	if n := len(e.must(t, 200, "GET", "/jobs/j/tasks?$filter=state%20eq%27completed%27", newest, "").items(t)); n < 1 {
		t.Errorf("a filter without a blank finds %d tasks", n)
	}
	e.must(t, 201, "POST", "/jobs/j/tasks", newest, `{"id":"waits","commandLine":"a"}`)
	if got := part(t, e.must(t, 200, "GET", "/jobs/j/tasks/waits", newest, "").object(t), "nodeInfo"); got != "null" {
		t.Errorf("a task that waits shows node %s", got)
	}
}
