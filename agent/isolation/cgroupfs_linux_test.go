package isolation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, info, self string
		want             map[string]string // own folder by controller, "" is the unified tree
	}{
		{
			"a host with the second version only",
			"30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/system.slice/batchyard.service\n",
			map[string]string{"": "/sys/fs/cgroup/system.slice/batchyard.service"},
		},
		{
			"a hybrid host, with two controllers on one tree",
			"31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
				"32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
				"33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			"9:memory:/jobs\n4:cpu,cpuacct:/\n1:name=systemd:/init.scope\n0::/init.scope\n",
			map[string]string{
				"":        "/sys/fs/cgroup/unified/init.scope",
				"cpu":     "/sys/fs/cgroup/cpu,cpuacct",
				"cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
				"memory":  "/sys/fs/cgroup/memory/jobs",
			},
		},
		{
			"a container that sees only its own part of the tree",
			"50 40 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"9:memory:/docker/abc/inner\n",
			map[string]string{"memory": "/sys/fs/cgroup/memory/inner"},
		},
		{
			"a mount point with a blank in its name",
			`30 24 0:26 / /my\040groups rw - cgroup2 cgroup2 rw` + "\n",
			"0::/\n",
			map[string]string{"": "/my groups"},
		},
		{
			"a named tree without controllers beside the second version",
			"30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n31 24 0:27 / /named rw - cgroup none rw,name=mine\n",
			"1:name=mine:/\n0::/\n",
			map[string]string{"": "/sys/fs/cgroup"},
		},
		{"nothing at all", "", "", map[string]string{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := parseMounts(test.info, test.self)
			got := map[string]string{}
			if m.unified != nil {
				got[""] = m.unified.own("")
			}
			for c, tree := range m.v1 {
				got[c] = tree.own("")
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("own folders (-want +got):\n%s", diff)
			}
		})
	}
}
