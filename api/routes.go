package api

import "net/http"

// Methods, in words short enough for a table.
const (
	get    = http.MethodGet
	head   = http.MethodHead
	post   = http.MethodPost
	put    = http.MethodPut
	patch  = http.MethodPatch
	remove = http.MethodDelete
)

// routes are all operations of the data plane that were published in any
// served version.
var routes = []route{
	{method: get, pattern: "pools", handle: listPools, class: lists},
	{method: post, pattern: "pools", handle: addPool},
	{method: get, pattern: "pools/{pool}", handle: getPool},
	{method: head, pattern: "pools/{pool}", handle: poolExists},
	{method: patch, pattern: "pools/{pool}", handle: patchPool},
	{method: remove, pattern: "pools/{pool}", handle: deletePool},
	{method: post, pattern: "pools/{pool}/updateproperties", handle: replacePool},
	{method: post, pattern: "pools/{pool}/resize", handle: resizePool},
	{method: post, pattern: "pools/{pool}/stopresize", handle: stopResize},
	{method: post, pattern: "pools/{pool}/removenodes", handle: removeNodes},
	{method: post, pattern: "pools/{pool}/enableautoscale", handle: unsupported(noAutoScale)},
	{method: post, pattern: "pools/{pool}/disableautoscale", handle: unsupported(noAutoScale)},
	{method: post, pattern: "pools/{pool}/evaluateautoscale", handle: unsupported(noAutoScale)},
	{method: post, pattern: "pools/{pool}/upgradeos", handle: unsupported(noUpgrade)},

	{method: get, pattern: "pools/{pool}/nodes", handle: listNodes, class: lists},
	{method: get, pattern: "pools/{pool}/nodes/{node}", handle: getNode},
	{method: post, pattern: "pools/{pool}/nodes/{node}/reboot", handle: rebootNode},
	{method: post, pattern: "pools/{pool}/nodes/{node}/reimage", handle: reimageNode},
	{method: post, pattern: "pools/{pool}/nodes/{node}/disablescheduling", handle: disableScheduling},
	{method: post, pattern: "pools/{pool}/nodes/{node}/enablescheduling", handle: enableScheduling},
	{method: post, pattern: "pools/{pool}/nodes/{node}/start", handle: unsupported(noVirtual)},
	{method: post, pattern: "pools/{pool}/nodes/{node}/deallocate", handle: unsupported(noVirtual)},
	{method: get, pattern: "pools/{pool}/nodes/{node}/rdp", handle: unsupported(noRemoteLogin)},
	{method: get, pattern: "pools/{pool}/nodes/{node}/remoteloginsettings", handle: unsupported(noRemoteLogin)},
	{method: post, pattern: "pools/{pool}/nodes/{node}/uploadbatchservicelogs", handle: unsupported(noNodeLogs)},
	{method: post, pattern: "pools/{pool}/nodes/{node}/users", handle: unsupported(noNodeUsers)},
	{method: put, pattern: "pools/{pool}/nodes/{node}/users/{user}", handle: onNode(missing(codeNodeUserNotFound, "node user"))},
	{method: remove, pattern: "pools/{pool}/nodes/{node}/users/{user}", handle: onNode(missing(codeNodeUserNotFound, "node user"))},
	{method: get, pattern: "pools/{pool}/nodes/{node}/extensions", handle: onNode(empty("extensions"))},
	{method: get, pattern: "pools/{pool}/nodes/{node}/extensions/{extension}", handle: onNode(missing(codeExtensionNotFound, "extension"))},
	{method: get, pattern: "pools/{pool}/nodes/{node}/files", handle: fileOperation((*call).nodeDirectory, listFiles), class: files},
	{method: get, pattern: "pools/{pool}/nodes/{node}/files/{file...}", handle: fileOperation((*call).nodeDirectory, readFile), class: files, streams: true},
	{method: head, pattern: "pools/{pool}/nodes/{node}/files/{file...}", handle: fileOperation((*call).nodeDirectory, headFile), class: files},
	{method: remove, pattern: "pools/{pool}/nodes/{node}/files/{file...}", handle: fileOperation((*call).nodeDirectory, deleteFile), class: files},

	{method: get, pattern: "jobs", handle: listJobs, class: lists},
	{method: post, pattern: "jobs", handle: addJob},
	{method: get, pattern: "jobs/{job}", handle: getJob},
	{method: patch, pattern: "jobs/{job}", handle: patchJob},
	{method: put, pattern: "jobs/{job}", handle: replaceJob},
	{method: remove, pattern: "jobs/{job}", handle: deleteJob},
	{method: post, pattern: "jobs/{job}/disable", handle: disableJob},
	{method: post, pattern: "jobs/{job}/enable", handle: enableJob},
	{method: post, pattern: "jobs/{job}/terminate", handle: terminateJob},
	{method: get, pattern: "jobs/{job}/taskcounts", handle: getTaskCounts},
	{method: get, pattern: "jobs/{job}/jobpreparationandreleasetaskstatus", handle: preparationStatus, class: lists},
	{method: post, pattern: "jobs/{job}/addtaskcollection", handle: addTaskCollection, class: adds},

	{method: get, pattern: "jobs/{job}/tasks", handle: listTasks, class: lists},
	{method: post, pattern: "jobs/{job}/tasks", handle: addTask},
	{method: get, pattern: "jobs/{job}/tasks/{task}", handle: getTask},
	{method: put, pattern: "jobs/{job}/tasks/{task}", handle: updateTask},
	{method: remove, pattern: "jobs/{job}/tasks/{task}", handle: deleteTask},
	{method: post, pattern: "jobs/{job}/tasks/{task}/terminate", handle: terminateTask},
	{method: post, pattern: "jobs/{job}/tasks/{task}/reactivate", handle: reactivateTask},
	{method: get, pattern: "jobs/{job}/tasks/{task}/subtasksinfo", handle: listSubtasks},
	{method: get, pattern: "jobs/{job}/tasks/{task}/files", handle: fileOperation((*call).taskDirectory, listFiles), class: files},
	{method: get, pattern: "jobs/{job}/tasks/{task}/files/{file...}", handle: fileOperation((*call).taskDirectory, readFile), class: files, streams: true},
	{method: head, pattern: "jobs/{job}/tasks/{task}/files/{file...}", handle: fileOperation((*call).taskDirectory, headFile), class: files},
	{method: remove, pattern: "jobs/{job}/tasks/{task}/files/{file...}", handle: fileOperation((*call).taskDirectory, deleteFile), class: files},

	{method: get, pattern: "supportedimages", handle: listImages},
	{method: get, pattern: "nodeagentskus", handle: listNodeAgents},
	{method: get, pattern: "nodecounts", handle: listNodeCounts, class: lists},
	{method: get, pattern: "poolusagemetrics", handle: usageMetrics},
	{method: get, pattern: "lifetimepoolstats", handle: unsupported(noStatistics)},
	{method: get, pattern: "lifetimejobstats", handle: unsupported(noStatistics)},

	{method: get, pattern: "applications", handle: empty("listapplicationsummariesresponses")},
	{method: get, pattern: "applications/{application}", handle: missing(codeApplicationNotFound, "application")},

	{method: get, pattern: "certificates", handle: empty("certificates")},
	{method: post, pattern: "certificates", handle: unsupported(noCertificates)},
	{method: get, pattern: "certificates()", handle: missing(codeCertificateNotFound, "certificate")},
	{method: remove, pattern: "certificates()", handle: missing(codeCertificateNotFound, "certificate")},
	{method: post, pattern: "certificates()/canceldelete", handle: missing(codeCertificateNotFound, "certificate")},

	{method: get, pattern: "jobschedules", handle: empty("jobschedules")},
	{method: post, pattern: "jobschedules", handle: unsupported(noSchedules)},
	{method: get, pattern: "jobschedules/{schedule}", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: head, pattern: "jobschedules/{schedule}", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: patch, pattern: "jobschedules/{schedule}", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: put, pattern: "jobschedules/{schedule}", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: remove, pattern: "jobschedules/{schedule}", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: post, pattern: "jobschedules/{schedule}/enable", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: post, pattern: "jobschedules/{schedule}/disable", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: post, pattern: "jobschedules/{schedule}/terminate", handle: missing(codeJobScheduleNotFound, "job schedule")},
	{method: get, pattern: "jobschedules/{schedule}/jobs", handle: missing(codeJobScheduleNotFound, "job schedule")},
}
