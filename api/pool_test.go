package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPools(t *testing.T) {
	t.Parallel()

	t.Run("an added pool is found, listed, changed, resized and deleted", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		added := e.must(t, 201, "POST", "/pools", newest, linuxPool)
		if got, want := added.header.Get("Location"), e.url+"/pools/p"; got != want {
			t.Errorf("Location %q, want %q", got, want)
		}
		if got, want := added.header.Get("DataServiceId"), e.url+"/pools/p"; got != want {
			t.Errorf("DataServiceId %q, want %q", got, want)
		}
		found := e.must(t, 200, "GET", "/pools/p", newest, "")
		if got, want := found.header.Get("ETag"), added.header.Get("ETag"); got != want {
			t.Errorf("ETag %q, want that of the addition, %q", got, want)
		}
		pool := found.object(t)
		for name, want := range map[string]any{
			"id": "p", "url": e.url + "/pools/p", "state": "active", "allocationState": "steady",
			"taskSlotsPerNode": 1.0, "targetDedicatedNodes": 0.0, "resizeTimeout": "PT15M",
			"odata.metadata": e.url + "/$metadata#pools/@Element",
		} {
			if pool[name] != want {
				t.Errorf("%s is %v, want %v", name, pool[name], want)
			}
		}
		e.must(t, 200, "HEAD", "/pools/p", newest, "")
		if items := e.must(t, 200, "GET", "/pools", newest, "").items(t); len(items) != 1 {
			t.Errorf("the list has %d pools, want 1", len(items))
		}
		e.must(t, 200, "PATCH", "/pools/p", newest, `{"metadata":[{"name":"a","value":"b"}]}`)
		e.must(t, 204, "POST", "/pools/p/updateproperties", newest, `{"metadata":[],"applicationPackageReferences":[]}`)
		if pool := e.must(t, 200, "GET", "/pools/p", newest, "").object(t); pool["metadata"] != nil {
			t.Errorf("metadata is %v after it was replaced by none", pool["metadata"])
		}
		e.must(t, 202, "POST", "/pools/p/resize", newest, `{"targetDedicatedNodes":2}`)
		again := e.must(t, 409, "POST", "/pools/p/resize", newest, `{"targetDedicatedNodes":3}`)
		if got := again.code(t); got != "PoolBeingResized" {
			t.Errorf("code %s, want PoolBeingResized", got)
		}
		e.must(t, 202, "POST", "/pools/p/stopresize", newest, "")
		e.must(t, 202, "DELETE", "/pools/p", newest, "")
	})

	t.Run("a pool that is not there is a 404, to HEAD without a body", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		if got := e.must(t, 404, "GET", "/pools/none", newest, "").code(t); got != "PoolNotFound" {
			t.Errorf("code %s, want PoolNotFound", got)
		}
		e.must(t, 404, "HEAD", "/pools/none", newest, "")
	})

	t.Run("a second pool of the same id is refused, whatever its case", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		e.must(t, 201, "POST", "/pools", newest, linuxPool)
		again := e.must(t, 409, "POST", "/pools", newest, strings.Replace(linuxPool, `"id":"p"`, `"id":"P"`, 1))
		if got := again.code(t); got != "PoolExists" {
			t.Errorf("code %s, want PoolExists", got)
		}
	})

	t.Run("pools with cloud services are accepted of old clients, Windows images of nobody", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		e.must(t, 201, "POST", "/pools", "2020-09-01.12.0", `{"id":"c","vmSize":"small","cloudServiceConfiguration":{"osFamily":"6"}}`)
		refused := e.must(t, 400, "POST", "/pools", newest, strings.Replace(linuxPool, "batch.node.ubuntu 24.04", "batch.node.windows amd64", 1))
		if diff := cmp.Diff([]string{refused.code(t), refused.detail(t, "PropertyName")},
			[]string{"InvalidPropertyValue", "virtualMachineConfiguration.nodeAgentSKUId"}); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("secrets of users are shown to nobody", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		e.must(t, 201, "POST", "/pools", newest, strings.Replace(linuxPool, `"id":"p"`, `"id":"p","userAccounts":[{"name":"ann",`+
			`"password":"hush1","linuxUserConfiguration":{"uid":1000,"gid":1000,"sshPrivateKey":"hush2"}}]`, 1))
		a := e.must(t, 200, "GET", "/pools/p", newest, "")
		if strings.Contains(a.body, "hush") || !strings.Contains(a.body, `"uid":1000`) {
			t.Errorf("the pool shows %s", a.body)
		}
	})

	t.Run("nodes are counted by state, in the states that a version knows", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		e.must(t, 201, "POST", "/pools", newest, linuxPool)
		for version, newer := range map[string]bool{"2018-03-01.6.1": false, newest: true} {
			items := e.must(t, 200, "GET", "/nodecounts", version, "").items(t)
			if len(items) != 1 || items[0]["poolId"] != "p" {
				t.Fatalf("counts are %v, want those of one pool", items)
			}
			if _, shown := items[0]["dedicated"].(map[string]any)["deallocated"]; shown != newer {
				t.Errorf("%s: deallocated shown is %v, want %v", version, shown, newer)
			}
		}
		refused := e.must(t, 400, "GET", "/nodecounts?maxresults=11", newest, "")
		if got := refused.detail(t, "QueryParameterName"); got != "maxresults" {
			t.Errorf("refused %q, want maxresults", got)
		}
	})
}

func TestImages(t *testing.T) {
	t.Parallel()
	e := newEdge(t)

	t.Run("images are listed and filtered", func(t *testing.T) {
		t.Parallel()
		all := e.must(t, 200, "GET", "/supportedimages", newest, "").items(t)
		ubuntu := e.must(t, 200, "GET", "/supportedimages?$filter=nodeAgentSKUId%20eq%20%27batch.node.ubuntu%2024.04%27", newest, "").items(t)
		if len(ubuntu) == 0 || len(ubuntu) >= len(all) {
			t.Errorf("%d of %d images are for one agent, want a part", len(ubuntu), len(all))
		}
		for _, image := range all {
			if image["osType"] != "linux" {
				t.Errorf("image %v is not for Linux", image)
			}
		}
	})

	t.Run("the table is paged when the caller asks for less", func(t *testing.T) {
		t.Parallel()
		if got, want := len(e.all(t, "/supportedimages?maxresults=4", newest)), len(e.all(t, "/supportedimages", newest)); got != want {
			t.Errorf("%d images by pages, want %d", got, want)
		}
	})

	t.Run("the older list groups them by node agent", func(t *testing.T) {
		t.Parallel()
		seen := map[any]bool{}
		for _, agent := range e.must(t, 200, "GET", "/nodeagentskus", "2018-12-01.8.0", "").items(t) {
			if seen[agent["id"]] {
				t.Errorf("agent %v is listed twice", agent["id"])
			}
			seen[agent["id"]] = true
		}
		if !seen["batch.node.debian 12"] {
			t.Error("batch.node.debian 12 is not listed")
		}
	})
}
