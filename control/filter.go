package control

import (
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/odata"
)

// What filters may ask about, by wire name. The columns are those of package
// store, which keeps times in microseconds and enumerations in lower case.
var (
	poolFields = odata.Fields{
		"id":                            {Kind: odata.ID, Column: "id"},
		"displayName":                   {Kind: odata.String, Column: "NULLIF(display_name, '')"},
		"vmSize":                        {Kind: odata.ID, Column: "lower(vm_size)"},
		"state":                         {Kind: odata.Enum, Words: words(batch.PoolActive, batch.PoolDeleting), Column: "state"},
		"stateTransitionTime":           {Kind: odata.Time, Column: "changed"},
		"allocationState":               {Kind: odata.Enum, Words: words(batch.AllocationSteady, batch.AllocationResizing, batch.AllocationStopping), Column: "allocation_state"},
		"allocationStateTransitionTime": {Kind: odata.Time, Column: "allocation_changed"},
		"creationTime":                  {Kind: odata.Time, Column: "created"},
		"lastModified":                  {Kind: odata.Time, Column: "stamp"},
		"targetDedicatedNodes":          {Kind: odata.Int, Column: "target_dedicated"},
		"targetLowPriorityNodes":        {Kind: odata.Int, Column: "target_low"},
		"currentDedicatedNodes":         {Kind: odata.Int, Column: "dedicated"},
		"currentLowPriorityNodes":       {Kind: odata.Int, Column: "low"},
	}

	countFields = odata.Fields{"poolId": {Kind: odata.ID, Column: "id"}}

	nodeFields = odata.Fields{
		"id":                    {Kind: odata.ID, Column: "id"},
		"affinityId":            {Kind: odata.ID, Column: "id"},
		"isDedicated":           {Kind: odata.Bool, Column: "CASE WHEN dedicated THEN 1 ELSE 0 END"},
		"state":                 {Kind: odata.Enum, Words: words(batch.NodeStates...), Column: "state"},
		"schedulingState":       {Kind: odata.Enum, Words: words(batch.SchedulingEnabled, batch.SchedulingDisabled), Column: "scheduling"},
		"stateTransitionTime":   {Kind: odata.Time, Column: "changed"},
		"allocationTime":        {Kind: odata.Time, Column: "allocated"},
		"lastBootTime":          {Kind: odata.Time, Column: "booted"},
		"ipAddress":             {Kind: odata.String, Column: "NULLIF(ip, '')"},
		"vmSize":                {Kind: odata.ID, Column: "lower(vm_size)"},
		"runningTasksCount":     {Kind: odata.Int, Column: "running_tasks"},
		"runningTaskSlotsCount": {Kind: odata.Int, Column: "running_slots"},
		"totalTasksRun":         {Kind: odata.Int, Column: "total_run"},
		"totalTasksSucceeded":   {Kind: odata.Int, Column: "total_ok"},
	}

	jobFields = odata.Fields{
		"id":                          {Kind: odata.ID, Column: "id"},
		"displayName":                 {Kind: odata.String, Column: "NULLIF(display_name, '')"},
		"poolInfo/poolId":             {Kind: odata.ID, Column: "pool"},
		"executionInfo/poolId":        {Kind: odata.ID, Column: "pool"},
		"state":                       {Kind: odata.Enum, Words: jobWords(), Column: "state"},
		"stateTransitionTime":         {Kind: odata.Time, Column: "changed"},
		"previousState":               {Kind: odata.Enum, Words: jobWords(), Column: "NULLIF(prev_state, '')"},
		"previousStateTransitionTime": {Kind: odata.Time, Column: "prev_changed"},
		"creationTime":                {Kind: odata.Time, Column: "created"},
		"lastModified":                {Kind: odata.Time, Column: "stamp"},
		"priority":                    {Kind: odata.Int, Column: "priority"},
		"maxParallelTasks":            {Kind: odata.Int, Column: "max_parallel"},
		"onAllTasksComplete":          {Kind: odata.Enum, Words: words(batch.AllTasksNoAction, batch.AllTasksTerminateJob), Column: "on_all"},
		"onTaskFailure":               {Kind: odata.Enum, Words: words(batch.TaskFailureNoAction, batch.TaskFailurePerform), Column: "on_failure"},
		"executionInfo/startTime":     {Kind: odata.Time, Column: "started"},
		"executionInfo/endTime":       {Kind: odata.Time, Column: "ended"},
	}

	taskFields = odata.Fields{
		"id":                                 {Kind: odata.ID, Column: "id"},
		"displayName":                        {Kind: odata.String, Column: "NULLIF(display_name, '')"},
		"state":                              {Kind: odata.Enum, Words: taskWords(), Column: "state"},
		"stateTransitionTime":                {Kind: odata.Time, Column: "changed"},
		"previousState":                      {Kind: odata.Enum, Words: taskWords(), Column: "NULLIF(prev_state, '')"},
		"previousStateTransitionTime":        {Kind: odata.Time, Column: "prev_changed"},
		"creationTime":                       {Kind: odata.Time, Column: "created"},
		"lastModified":                       {Kind: odata.Time, Column: "stamp"},
		"requiredSlots":                      {Kind: odata.Int, Column: "slots"},
		"constraints/maxTaskRetryCount":      {Kind: odata.Int, Column: "max_retries"},
		"affinityInfo/affinityId":            {Kind: odata.ID, Column: "NULLIF(affinity, '')"},
		"nodeInfo/nodeId":                    {Kind: odata.ID, Column: "NULLIF(node, '')"},
		"nodeInfo/poolId":                    {Kind: odata.ID, Column: "CASE WHEN node <> '' THEN lower(pool_name) END"},
		"executionInfo/startTime":            {Kind: odata.Time, Column: "started"},
		"executionInfo/endTime":              {Kind: odata.Time, Column: "ended"},
		"executionInfo/exitCode":             {Kind: odata.Int, Column: "exit_code"},
		"executionInfo/result":               {Kind: odata.Enum, Words: words(batch.ResultSuccess, batch.ResultFailure), Column: "NULLIF(result, '')"},
		"executionInfo/retryCount":           {Kind: odata.Int, Column: "retry_count"},
		"executionInfo/lastRetryTime":        {Kind: odata.Time, Column: "retried"},
		"executionInfo/requeueCount":         {Kind: odata.Int, Column: "requeue_count"},
		"executionInfo/lastRequeueTime":      {Kind: odata.Time, Column: "requeued"},
		"executionInfo/failureInfo/code":     {Kind: odata.Enum, Column: "lower(failure->>'code')"},
		"executionInfo/failureInfo/category": {Kind: odata.Enum, Words: words(batch.UserError, batch.ServerError), Column: "lower(failure->>'category')"},
	}
)

func jobWords() []string {
	return words(batch.JobActive, batch.JobDisabling, batch.JobDisabled, batch.JobEnabling,
		batch.JobTerminating, batch.JobCompleted, batch.JobDeleting)
}

func taskWords() []string {
	return words(batch.TaskActive, batch.TaskPreparing, batch.TaskRunning, batch.TaskCompleted)
}

func words[T ~string](values ...T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}
