package agent

import (
	"slices"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/batch"
)

// searchPath is the PATH of tasks; nothing of the agent's own environment
// reaches them but what the operator meant for them, see [Options].
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment are the variables of every command: where things are, and whose
// they are (semantics: on the node).
func (c *command) environment(s *batch.NodeSettings, folder string, u user) []string {
	root, wd := c.agent.tree.path, folder+"/wd"
	env := []string{
		"PATH=" + searchPath, "HOME=" + wd, "USER=" + u.name, "LOGNAME=" + u.name, "LANG=C.UTF-8",
		"AZ_BATCH_ACCOUNT_NAME=" + string(s.Account),
		"AZ_BATCH_ACCOUNT_URL=" + s.AccountURL,
		"AZ_BATCH_POOL_ID=" + string(s.Pool),
		"AZ_BATCH_NODE_ID=" + string(s.Node),
		"AZ_BATCH_NODE_IS_DEDICATED=" + strconv.FormatBool(s.Dedicated),
		"AZ_BATCH_NODE_ROOT_DIR=" + root,
		"AZ_BATCH_NODE_SHARED_DIR=" + root + "/" + sharedName,
		"AZ_BATCH_NODE_STARTUP_DIR=" + root + "/" + startupName,
		"AZ_BATCH_NODE_STARTUP_WORKING_DIR=" + root + "/" + startupName + "/wd",
		"AZ_BATCH_NODE_MOUNTS_DIR=" + root + "/fsmounts",
		"AZ_BATCH_TASK_DIR=" + folder,
		"AZ_BATCH_TASK_WORKING_DIR=" + wd,
		"AZ_BATCH_TASK_USER=" + u.name,
		"AZ_BATCH_TASK_USER_IDENTITY=" + identityWord(c.user),
	}
	return append(env, c.agent.Environ...)
}

// variables are those that the command's process has, or had.
func (c *command) variables() []string {
	if c.spec != nil && len(c.spec.Env) > 0 {
		return c.spec.Env
	}
	settings := c.agent.settings.Load()
	u, err := c.agent.users.resolve(settings.UserAccounts, c.user, c.slot, c.number)
	if err != nil {
		u = user{} // it never ran
	}
	folder := c.agent.tree.path + "/" + c.place
	return overlaid(append(c.environment(settings, folder, u), c.env...), c.own)
}

func identityWord(u *batch.UserIdentity) string {
	switch {
	case u == nil || u.AutoUser == nil && u.Username == "":
		return "PoolNonAdmin"
	case u.Username != "":
		return u.Username
	}
	scope, level := "Pool", "NonAdmin"
	if u.AutoUser.Scope == batch.ScopeTask {
		scope = "Task"
	}
	if u.AutoUser.ElevationLevel == batch.ElevationAdmin {
		level = "Admin"
	}
	return scope + level
}

// taskEnvironment are the variables of a task. BATCHYARD_TASK_ATTEMPT tells it
// which of its attempts it is.
func (a *Agent) taskEnvironment(id attemptID) []string {
	return []string{
		"AZ_BATCH_JOB_ID=" + string(id.job),
		"AZ_BATCH_TASK_ID=" + string(id.task),
		"AZ_BATCH_NODE_LIST=" + a.info.IPAddress,
		"AZ_BATCH_HOST_LIST=" + a.info.IPAddress,
		"AZ_BATCH_IS_CURRENT_NODE_MASTER=true",
		"BATCHYARD_TASK_ATTEMPT=" + strconv.Itoa(id.attempt),
	}
}

// overlaid are the service's variables, whose names differ, and the user's own.
// Of two of one name only the last is left: what a program sees of two is up to
// its library.
func overlaid(env, own []string) []string {
	if len(own) == 0 {
		return env
	}
	env = append(env, own...)
	seen := make(map[string]bool, len(env))
	kept := make([]string, 0, len(env))
	for _, setting := range slices.Backward(env) {
		name, _, _ := strings.Cut(setting, "=")
		if !seen[name] {
			seen[name] = true
			kept = append(kept, setting)
		}
	}
	slices.Reverse(kept)
	return kept
}

func settingsOf(own []batch.EnvironmentSetting) []string {
	env := make([]string, 0, len(own))
	for _, s := range own {
		env = append(env, s.Name+"="+s.Value)
	}
	return env
}
