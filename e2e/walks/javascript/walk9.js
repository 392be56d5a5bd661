// A whole job with azure-batch 9.0.0, the client before @azure/batch.
//
// It finds the highest of some measured values, in 200 small tasks on two nodes, and on the way
// uses what the service offers around pools, jobs, tasks and files. The environment names the
// services; WALK_PREFIX keeps its names apart from those of other programs.
"use strict";

// The clients need Node 20 for this name only; Debian 12 has 18.
globalThis.crypto ??= require("node:crypto").webcrypto;

const assert = require("node:assert/strict");
const { setTimeout: sleep } = require("node:timers/promises");
const { BlobSASPermissions, BlobServiceClient, ContainerSASPermissions } = require("@azure/storage-blob");
const { ServiceClient, SharedKeyCredentials } = require("azure-batch");
const moment = require("moment");

const prefix = process.env.WALK_PREFIX;
const poolId = `${prefix}-pool`;
const jobId = `${prefix}-job`;
const taskCount = 200;
// Measured values, a file each; the highest of file n is 100 * (n + 1) + 9.
const measures = [0, 1, 2, 3].map((n) => Array.from({ length: 10 }, (_, k) => 100 * (n + 1) + ((7 * k) % 10)));

const credentials = new SharedKeyCredentials(process.env.AZURE_BATCH_ACCOUNT, process.env.AZURE_BATCH_ACCESS_KEY);
const batch = new ServiceClient(credentials, process.env.AZURE_BATCH_ENDPOINT);
const storage = BlobServiceClient.fromConnectionString(process.env.AZURE_STORAGE_CONNECTION_STRING);
const inputs = storage.getContainerClient(`${prefix}-in`);
const outputs = storage.getContainerClient(`${prefix}-out`);

async function main() {
  await step("upload inputs", uploadInputs);
  await step("create a pool", createPool);
  await step("wait for its nodes", waitForNodes);
  await step("read a node's files", readNodeFiles);
  await step("change the pool", changePool);
  await step("create a job", createJob);
  await step("add tasks", addTasks);
  await step("wait for the tasks", waitForTasks);
  await step("read the tasks' files", readTaskFiles);
  await step("follow tasks that do not succeed", followTroubledTasks);
  await step("take the tasks off a node", emptyNode);
  await step("change the job", changeJob);
  await step("resize the pool", resizePool);
  await step("end the job", endJob);
  await step("download outputs", downloadOutputs);
  await step("delete everything", deleteEverything);
}

async function uploadInputs() {
  await inputs.create();
  await outputs.create();
  for (const [n, values] of measures.entries()) {
    const lines = values.map((v) => `${v}\n`).join("");
    await inputs.getBlockBlobClient(`measure-${n}.txt`).upload(lines, Buffer.byteLength(lines));
  }
}

// A URL with which anybody may read one blob for an hour.
function blobUrl(name) {
  return inputs.getBlobClient(name).generateSasUrl({
    permissions: BlobSASPermissions.parse("r"),
    expiresOn: inAnHour(),
  });
}

// A URL with these permissions for a whole container, for an hour.
function containerUrl(container, permissions) {
  return container.generateSasUrl({ permissions: ContainerSASPermissions.parse(permissions), expiresOn: inAnHour() });
}

async function createPool() {
  const images = await all(batch.account, batch.account.listSupportedImages());
  const image = images.find((i) => i.nodeAgentSKUId === "batch.node.ubuntu 22.04");
  assert.equal(image.osType, "linux");
  const pool = {
    id: poolId,
    displayName: "measures",
    vmSize: "STANDARD_D2_V3",
    virtualMachineConfiguration: { imageReference: image.imageReference, nodeAgentSKUId: image.nodeAgentSKUId },
    targetDedicatedNodes: 2,
    maxTasksPerNode: 4,
    taskSchedulingPolicy: { nodeFillType: "Pack" },
    startTask: {
      commandLine: "/bin/sh -c 'echo ready: $AZ_BATCH_NODE_ID; echo $TOOL > $AZ_BATCH_NODE_SHARED_DIR/tool.txt'",
      environmentSettings: [{ name: "TOOL", value: "sort" }],
      waitForSuccess: true,
    },
    metadata: [{ name: "client", value: "js9" }],
  };
  assert.equal(await batch.pool.exists(poolId), false);
  await batch.pool.add(pool);
  assert.equal(await batch.pool.exists(poolId), true);
  await fails("PoolExists", 409, batch.pool.add(pool));
  await fails("PoolNotFound", 404, batch.pool.get(`${poolId}-other`));
}

async function waitForNodes() {
  await waitFor("two idle nodes", async () => (await idleNodes()) === 2);
  const pool = await batch.pool.get(poolId);
  assert.equal(pool.allocationState, "steady");
  assert.deepEqual([pool.currentDedicatedNodes, pool.targetDedicatedNodes], [2, 2]);
  assert.deepEqual([pool.maxTasksPerNode, pool.resizeTimeout.asMinutes()], [4, 15]);
  assert.equal(pool.taskSchedulingPolicy.nodeFillType, "Pack");
  const [node] = await nodes();
  assert.equal(node.state, "idle");
  assert.equal(node.startTaskInfo.exitCode, 0);
  assert.equal((await batch.computeNodeOperations.get(poolId, node.id)).id, node.id);
}

async function idleNodes() {
  const options = { accountListPoolNodeCountsOptions: { filter: `poolId eq '${poolId}'` } };
  const counts = await batch.account.listPoolNodeCounts(options);
  return counts.length ? counts[0].dedicated.idle : 0;
}

async function nodes() {
  return batch.computeNodeOperations.list(poolId);
}

async function readNodeFiles() {
  const [{ id }] = await nodes();
  const names = (await batch.file.listFromComputeNode(poolId, id, { recursive: true })).map((f) => f.name);
  assert.ok(names.includes("startup/stdout.txt"), names.join());
  assert.ok(names.includes("shared/tool.txt"), names.join());
  const ready = await text((done) => batch.file.getFromComputeNode(poolId, id, "startup/stdout.txt", done));
  assert.equal(ready, `ready: ${id}\n`);
  const head = await batch.file.getPropertiesFromComputeNodeWithHttpOperationResponse(poolId, id, "shared/tool.txt");
  assert.deepEqual(lengthAndKind(head), ["5", "False"]);
  await batch.file.deleteFromComputeNode(poolId, id, "shared/tool.txt");
  const after = (await batch.file.listFromComputeNode(poolId, id, { recursive: true })).map((f) => f.name);
  assert.ok(!after.includes("shared/tool.txt"), after.join());
}

async function changePool() {
  const before = await batch.pool.get(poolId);
  await batch.pool.patch(poolId, { metadata: [{ name: "stage", value: "patched" }] });
  const after = await batch.pool.get(poolId);
  assert.deepEqual(after.metadata.map((m) => [m.name, m.value]), [["stage", "patched"]]);
  assert.equal(after.startTask.commandLine, before.startTask.commandLine);
  assert.notEqual(after.eTag, before.eTag);
  const stale = { poolPatchOptions: { ifMatch: before.eTag } };
  await fails("ConditionNotMet", 412, batch.pool.patch(poolId, { metadata: [] }, stale));
  await batch.pool.patch(poolId, { metadata: [] }, { poolPatchOptions: { ifMatch: after.eTag } });
  await batch.pool.updateProperties(poolId, {
    startTask: before.startTask,
    certificateReferences: [],
    applicationPackageReferences: [],
    metadata: [{ name: "stage", value: "replaced" }],
  });
  const options = { poolListOptions: { filter: `startswith(id,'${prefix}-')`, select: "id,state,metadata" } };
  const pools = await all(batch.pool, batch.pool.list(options));
  assert.deepEqual(pools.map((p) => [p.id, p.state, p.metadata[0].value]), [[poolId, "active", "replaced"]]);
}

async function createJob() {
  const job = {
    id: jobId,
    priority: 100,
    poolInfo: { poolId },
    constraints: { maxWallClockTime: moment.duration(1, "hour"), maxTaskRetryCount: 0 },
    commonEnvironmentSettings: [{ name: "GREETING", value: "hello" }],
    metadata: [{ name: "client", value: "js9" }],
  };
  await batch.job.add(job);
  await fails("JobExists", 409, batch.job.add(job));
  const made = await batch.job.get(jobId);
  assert.deepEqual([made.state, made.priority, made.constraints.maxWallClockTime.asHours()], ["active", 100, 1]);
  assert.equal(made.onAllTasksComplete, "noaction");
}

async function addTasks() {
  const urls = await Promise.all(measures.map((_, n) => blobUrl(`measure-${n}.txt`)));
  const results = await containerUrl(outputs, "w");
  const tasks = Array.from({ length: taskCount }, (_, k) => workTask(k, urls[k % 4], results));
  for (let first = 0; first < tasks.length; first += 100) {
    const chunk = tasks.slice(first, first + 100);
    const { value } = await batch.task.addCollection(jobId, chunk);
    assert.deepEqual(value.map((r) => r.taskId).sort(), chunk.map((t) => t.id));
    assert.ok(value.every((r) => r.status.toLowerCase() === "success"));
  }
  const again = await batch.task.addCollection(jobId, tasks.slice(0, 2));
  for (const result of again.value) {
    assert.deepEqual([result.status.toLowerCase(), result.error.code], ["clienterror", "TaskExists"]);
  }
  await fails("TaskExists", 409, batch.task.add(jobId, tasks[0]));
}

function workTask(k, url, results) {
  const id = taskId(k);
  const outputFiles = [upload("highest.txt", results, `${id}/highest.txt`, "TaskSuccess")];
  if (k % 50 === 0) {
    outputFiles.push(upload("../std*.txt", results, `${id}/logs`, "TaskCompletion"));
  }
  return {
    id,
    commandLine: "/bin/sh -c 'echo $GREETING from $AZ_BATCH_TASK_ID, $ROLE; sort -n measures.txt | tail -n 1 > highest.txt'",
    resourceFiles: [{ httpUrl: url, filePath: "measures.txt" }],
    environmentSettings: [{ name: "ROLE", value: `worker ${k}` }],
    outputFiles,
    constraints: {
      maxWallClockTime: moment.duration(5, "minutes"),
      retentionTime: moment.duration(1, "hour"),
      maxTaskRetryCount: 1,
    },
  };
}

function upload(filePattern, containerUrl, path, uploadCondition) {
  return { filePattern, destination: { container: { containerUrl, path } }, uploadOptions: { uploadCondition } };
}

async function waitForTasks() {
  await waitFor("all tasks", async () => (await completed()).length === taskCount, 240);
  assert.ok((await completed()).every((t) => t.executionInfo.result === "success"));
  const counts = await batch.job.getTaskCounts(jobId);
  assert.deepEqual([counts.active, counts.running, counts.completed], [0, 0, taskCount]);
  assert.deepEqual([counts.succeeded, counts.failed], [taskCount, 0]);
  const task = await batch.task.get(jobId, "task-007");
  assert.deepEqual([task.executionInfo.exitCode, task.executionInfo.retryCount], [0, 0]);
  assert.ok((await nodes()).some((n) => n.id === task.nodeInfo.nodeId));
  assert.equal(task.environmentSettings[0].value, "worker 7");
  assert.equal(task.userIdentity.autoUser.elevationLevel, "nonadmin");
  assert.equal(task.outputFiles[0].uploadOptions.uploadCondition.toLowerCase(), "tasksuccess");
}

function completed() {
  const taskListOptions = { filter: "state eq 'completed'", select: "id,state,executionInfo", maxResults: 80 };
  return all(batch.task, batch.task.list(jobId, { taskListOptions }));
}

async function readTaskFiles() {
  for (const k of [0, 7, 199]) {
    const said = await text((done) => batch.file.getFromTask(jobId, taskId(k), "stdout.txt", done));
    assert.equal(said, `hello from ${taskId(k)}, worker ${k}\n`);
  }
  const part = { fileGetFromTaskOptions: { ocpRange: "bytes=6-9" } };
  assert.equal(await text((done) => batch.file.getFromTask(jobId, "task-007", "stdout.txt", part, done)), "from");
  const head = await batch.file.getPropertiesFromTaskWithHttpOperationResponse(jobId, "task-007", "wd/highest.txt");
  assert.deepEqual(lengthAndKind(head), ["4", "False"]);
  const files = await all(batch.file, batch.file.listFromTask(jobId, "task-007", { recursive: true }), "listFromTaskNext");
  const byName = new Map(files.map((f) => [f.name, f]));
  assert.equal(byName.get("wd").isDirectory, true);
  assert.equal(Number(byName.get("wd/highest.txt").properties.contentLength), 4);
  assert.ok(byName.has("stderr.txt"));
  await fails("FileNotFound", 404, batch.file.getPropertiesFromTask(jobId, "task-007", "wd/missing.txt"));
}

async function followTroubledTasks() {
  const everything = { storageContainerUrl: await containerUrl(inputs, "rl"), blobPrefix: "measure-", filePath: "all" };
  await batch.task.add(jobId, {
    id: "summary",
    commandLine: "/bin/sh -c 'cat all/measure-*.txt | wc -l'",
    resourceFiles: [everything],
  });
  await batch.task.add(jobId, { id: "failing", commandLine: "/bin/sh -c 'echo no >&2; exit 3'" });
  await batch.task.add(jobId, { id: "sleeper", commandLine: "/bin/sleep 600" });
  await taskIs("summary", "completed");
  const lines = await text((done) => batch.file.getFromTask(jobId, "summary", "stdout.txt", done));
  assert.equal(lines.trim(), "40");

  await taskIs("failing", "completed");
  const { executionInfo } = await batch.task.get(jobId, "failing");
  assert.deepEqual([executionInfo.exitCode, executionInfo.result], [3, "failure"]);
  assert.equal(executionInfo.failureInfo.code, "FailureExitCode");
  assert.equal(executionInfo.failureInfo.category.toLowerCase(), "usererror");

  await taskIs("sleeper", "running");
  await batch.task.update(jobId, "sleeper", { constraints: { maxTaskRetryCount: 2 } });
  assert.equal((await batch.task.get(jobId, "sleeper")).constraints.maxTaskRetryCount, 2);
  await batch.task.terminate(jobId, "sleeper");
  const ended = await batch.task.get(jobId, "sleeper");
  assert.deepEqual([ended.state, ended.executionInfo.failureInfo.code], ["completed", "TaskEnded"]);
  await fails("TaskCompleted", 409, batch.task.terminate(jobId, "sleeper"));
  await batch.task.reactivate(jobId, "sleeper");
  await taskIs("sleeper", "running");
  await batch.task.deleteMethod(jobId, "sleeper");
  await fails("TaskNotFound", 404, batch.task.get(jobId, "sleeper"));
}

function taskIs(id, state) {
  return waitFor(`task ${id} to be ${state}`, async () => (await batch.task.get(jobId, id)).state === state);
}

async function emptyNode() {
  await batch.task.add(jobId, { id: "guest", commandLine: "/bin/sleep 600" });
  await taskIs("guest", "running");
  const { nodeId } = (await batch.task.get(jobId, "guest")).nodeInfo;
  await batch.computeNodeOperations.disableScheduling(poolId, nodeId, { nodeDisableSchedulingOption: "terminate" });
  await taskIs("guest", "completed");
  await waitFor("the node to be empty", async () => {
    const node = await batch.computeNodeOperations.get(poolId, nodeId);
    return node.schedulingState === "disabled" && node.state === "offline";
  });
  await batch.computeNodeOperations.enableScheduling(poolId, nodeId);
  await waitFor("two idle nodes", async () => (await idleNodes()) === 2);
}

async function changeJob() {
  const before = await batch.job.get(jobId);
  await batch.job.patch(jobId, { priority: -5 });
  const update = { poolInfo: before.poolInfo, priority: 7, metadata: before.metadata };
  const stale = { jobUpdateOptions: { ifMatch: before.eTag } };
  await fails("ConditionNotMet", 412, batch.job.update(jobId, update, stale));
  assert.equal((await batch.job.get(jobId)).priority, -5);
  await batch.job.update(jobId, update);
  const after = await batch.job.get(jobId);
  assert.equal(after.priority, 7);
  assert.ok(after.constraints.maxWallClockTime.asYears() > 1000);
  await batch.job.disable(jobId, "requeue");
  await jobIs("disabled");
  await batch.job.enable(jobId);
  await jobIs("active");
}

function jobIs(state) {
  return waitFor(`the job to be ${state}`, async () => (await batch.job.get(jobId)).state === state);
}

async function resizePool() {
  await batch.pool.resize(poolId, { targetDedicatedNodes: 1 });
  await waitFor("one node", async () => (await steady()) && (await nodes()).length === 1);
  await batch.pool.resize(poolId, { targetDedicatedNodes: 2, nodeDeallocationOption: "taskcompletion" });
  await waitFor("two nodes", async () => (await steady()) && (await idleNodes()) === 2);
}

async function steady() {
  return (await batch.pool.get(poolId)).allocationState === "steady";
}

async function endJob() {
  await batch.job.terminate(jobId, { terminateReason: "the walk is over" });
  await jobIs("completed");
  assert.equal((await batch.job.get(jobId)).executionInfo.terminateReason, "the walk is over");
  await fails("JobCompleted", 409, batch.task.add(jobId, { id: "late", commandLine: "/bin/true" }));
}

async function downloadOutputs() {
  const names = [];
  for await (const blob of outputs.listBlobsFlat()) {
    names.push(blob.name);
  }
  const want = [];
  for (let k = 0; k < taskCount; k++) {
    want.push(`${taskId(k)}/highest.txt`);
    if (k % 50 === 0) {
      want.push(`${taskId(k)}/logs/stderr.txt`, `${taskId(k)}/logs/stdout.txt`);
    }
  }
  assert.deepEqual(names, want);
  for (let k = 0; k < taskCount; k += 9) {
    assert.equal(await download(`${taskId(k)}/highest.txt`), `${100 * ((k % 4) + 1) + 9}\n`);
  }
  assert.equal(await download("task-050/logs/stdout.txt"), "hello from task-050, worker 50\n");
}

async function download(name) {
  return (await outputs.getBlobClient(name).downloadToBuffer()).toString();
}

async function deleteEverything() {
  await batch.task.deleteMethod(jobId, "task-000");
  await fails("TaskNotFound", 404, batch.task.get(jobId, "task-000"));
  await batch.job.deleteMethod(jobId);
  await waitFor("the job to be gone", () => gone("JobNotFound", batch.job.get(jobId)));
  await batch.pool.deleteMethod(poolId);
  await waitFor("the pool to be gone", () => gone("PoolNotFound", batch.pool.get(poolId)));
  assert.equal(await batch.pool.exists(poolId), false);
  for (const container of [inputs, outputs]) {
    await container.delete();
    assert.equal(await container.exists(), false);
  }
}

// --- helpers ---

async function step(what, run) {
  const begin = Date.now();
  await run();
  console.log(`${what}: ${((Date.now() - begin) / 1000).toFixed(1)} s`);
}

function taskId(k) {
  return `task-${String(k).padStart(3, "0")}`;
}

function inAnHour() {
  return new Date(Date.now() + 3600_000);
}

// Reads a file that is asked for with a callback: its stream begins to flow as soon as it is there,
// which is too early for who awaits it.
function text(get) {
  return new Promise((resolve, reject) => {
    get((error, stream) => {
      if (error) {
        reject(error);
        return;
      }
      const chunks = [];
      stream.on("data", (chunk) => chunks.push(chunk));
      stream.on("end", () => resolve(Buffer.concat(chunks).toString()));
      stream.on("error", reject);
    });
  });
}

// Follows the pages of a list.
async function all(operations, firstPage, next = "listNext") {
  let page = await firstPage;
  const items = [...page];
  while (page.odatanextLink) {
    page = await operations[next](page.odatanextLink);
    items.push(...page);
  }
  return items;
}

async function waitFor(what, done, seconds = 120) {
  const end = Date.now() + seconds * 1000;
  while (!(await done())) {
    assert.ok(Date.now() < end, `no ${what} in ${seconds} seconds`);
    await sleep(300);
  }
}

// Expects the service to refuse a call with this error. The answer to HEAD has no code in it.
async function fails(code, status, call) {
  await assert.rejects(call, (error) => {
    assert.equal(error.statusCode, status, error.message);
    if (error.request.method !== "HEAD") {
      assert.equal(error.code, code);
    }
    return true;
  });
}

function lengthAndKind({ response }) {
  return [response.headers["content-length"], response.headers["ocp-batch-file-isdirectory"]];
}

async function gone(code, call) {
  try {
    await call;
    return false;
  } catch (error) {
    assert.deepEqual([error.code, error.statusCode], [code, 404]);
    return true;
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
