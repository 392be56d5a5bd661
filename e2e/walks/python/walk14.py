"""A whole job with azure-batch 14.2.0, the last of the first generation of the Python client.

It finds the highest of some measured values, in 200 small tasks on two nodes, and on the way
uses what the service offers around pools, jobs, tasks and files. The environment names the
services; WALK_PREFIX keeps its names apart from those of other programs.
"""

import datetime
import os
import time

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    generate_blob_sas,
    generate_container_sas,
)

PREFIX = os.environ["WALK_PREFIX"]
POOL, JOB = f"{PREFIX}-pool", f"{PREFIX}-job"
INPUTS, OUTPUTS = f"{PREFIX}-in", f"{PREFIX}-out"
TASKS = 200
# Measured values, a file each; the highest of file n is 100 * (n + 1) + 9.
MEASURES = [[100 * (n + 1) + (7 * k) % 10 for k in range(10)] for n in range(4)]

batch = BatchServiceClient(
    SharedKeyCredentials(os.environ["AZURE_BATCH_ACCOUNT"], os.environ["AZURE_BATCH_ACCESS_KEY"]),
    batch_url=os.environ["AZURE_BATCH_ENDPOINT"],
)
storage = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])


def main():
    step("upload inputs", upload_inputs)
    step("create a pool", create_pool)
    step("wait for its nodes", wait_for_nodes)
    step("read a node's files", read_node_files)
    step("change the pool", change_pool)
    step("create a job", create_job)
    step("add tasks", add_tasks)
    step("wait for the tasks", wait_for_tasks)
    step("read the tasks' files", read_task_files)
    step("follow tasks that do not succeed", follow_troubled_tasks)
    step("restart a node", restart_node)
    step("change the job", change_job)
    step("resize the pool", resize_pool)
    step("end the job", end_job)
    step("download outputs", download_outputs)
    step("delete everything", delete_everything)


def upload_inputs():
    for name in (INPUTS, OUTPUTS):
        storage.create_container(name)
    for n, values in enumerate(MEASURES):
        text = "".join(f"{v}\n" for v in values)
        storage.get_blob_client(INPUTS, f"measure-{n}.txt").upload_blob(text)
    names = [b.name for b in storage.get_container_client(INPUTS).list_blobs(name_starts_with="measure-")]
    equal(names, [f"measure-{n}.txt" for n in range(4)])


def blob_url(name):
    """A URL with which anybody may read one blob for an hour."""
    blob = storage.get_blob_client(INPUTS, name)
    sas = generate_blob_sas(
        storage.account_name, INPUTS, name,
        account_key=storage.credential.account_key,
        permission=BlobSasPermissions(read=True), expiry=in_an_hour(),
    )
    return f"{blob.url}?{sas}"


def container_url(name, **permissions):
    """A URL with these permissions for a whole container, for an hour."""
    sas = generate_container_sas(
        storage.account_name, name,
        account_key=storage.credential.account_key,
        permission=ContainerSasPermissions(**permissions), expiry=in_an_hour(),
    )
    return f"{storage.get_container_client(name).url}?{sas}"


def create_pool():
    images = [i for i in batch.account.list_supported_images() if i.node_agent_sku_id == "batch.node.ubuntu 22.04"]
    equal(images[0].os_type, models.OSType.linux)
    pool = models.PoolAddParameter(
        id=POOL,
        display_name="measures",
        vm_size="STANDARD_D2_V3",
        virtual_machine_configuration=models.VirtualMachineConfiguration(
            image_reference=images[0].image_reference,
            node_agent_sku_id=images[0].node_agent_sku_id,
        ),
        target_dedicated_nodes=2,
        task_slots_per_node=4,
        resize_timeout=datetime.timedelta(minutes=10),
        start_task=models.StartTask(
            command_line="/bin/sh -c 'echo ready: $AZ_BATCH_NODE_ID; echo $TOOL > $AZ_BATCH_NODE_SHARED_DIR/tool.txt'",
            environment_settings=[models.EnvironmentSetting(name="TOOL", value="sort")],
            wait_for_success=True,
        ),
        metadata=[models.MetadataItem(name="client", value="python14")],
    )
    equal(batch.pool.exists(POOL), False)
    batch.pool.add(pool)
    equal(batch.pool.exists(POOL), True)
    fails("PoolExists", 409, lambda: batch.pool.add(pool))
    fails("PoolNotFound", 404, lambda: batch.pool.get(f"{POOL}-other"))


def wait_for_nodes():
    wait_for("two idle nodes", lambda: idle_nodes() == 2)
    pool = batch.pool.get(POOL)
    equal(pool.allocation_state, models.AllocationState.steady)
    equal((pool.current_dedicated_nodes, pool.target_dedicated_nodes), (2, 2))
    equal((pool.task_slots_per_node, pool.resize_timeout), (4, datetime.timedelta(minutes=10)))
    equal(pool.vm_size.lower(), "standard_d2_v3")
    node = nodes()[0]
    equal(node.state, models.ComputeNodeState.idle)
    equal(node.start_task_info.exit_code, 0)
    equal(batch.compute_node.get(POOL, node.id).id, node.id)


def idle_nodes():
    options = models.AccountListPoolNodeCountsOptions(filter=f"poolId eq '{POOL}'")
    counts = list(batch.account.list_pool_node_counts(options))
    return counts[0].dedicated.idle if counts else 0


def nodes():
    return list(batch.compute_node.list(POOL))


def read_node_files():
    node = nodes()[0].id
    names = [f.name for f in batch.file.list_from_compute_node(POOL, node, recursive=True)]
    contains(names, "startup/stdout.txt")
    contains(names, "shared/tool.txt")
    text = content(batch.file.get_from_compute_node(POOL, node, "startup/stdout.txt"))
    equal(text, f"ready: {node}\n")
    head = batch.file.get_properties_from_compute_node(POOL, node, "shared/tool.txt", raw=True)
    equal(head.headers["Content-Length"], 5)
    batch.file.delete_from_compute_node(POOL, node, "shared/tool.txt")
    fails("FileNotFound", 404, lambda: content(batch.file.get_from_compute_node(POOL, node, "shared/tool.txt")))


def change_pool():
    before = batch.pool.get(POOL)
    batch.pool.patch(POOL, models.PoolPatchParameter(metadata=[models.MetadataItem(name="stage", value="patched")]))
    after = batch.pool.get(POOL)
    equal([(m.name, m.value) for m in after.metadata], [("stage", "patched")])
    equal(after.start_task.command_line, before.start_task.command_line)
    equal(after.e_tag != before.e_tag, True)
    patch = models.PoolPatchParameter(metadata=[])
    stale = models.PoolPatchOptions(if_match=before.e_tag)
    fails("ConditionNotMet", 412, lambda: batch.pool.patch(POOL, patch, stale))
    batch.pool.patch(POOL, patch, models.PoolPatchOptions(if_match=after.e_tag))
    batch.pool.update_properties(POOL, models.PoolUpdatePropertiesParameter(
        start_task=before.start_task, certificate_references=[], application_package_references=[],
        metadata=[models.MetadataItem(name="stage", value="replaced")],
    ))
    pools = list(batch.pool.list(models.PoolListOptions(filter=f"startswith(id,'{PREFIX}-')", select="id,state,metadata")))
    equal([(p.id, p.state, p.metadata[0].value) for p in pools], [(POOL, models.PoolState.active, "replaced")])


def create_job():
    job = models.JobAddParameter(
        id=JOB,
        priority=100,
        pool_info=models.PoolInformation(pool_id=POOL),
        constraints=models.JobConstraints(max_wall_clock_time=datetime.timedelta(hours=1), max_task_retry_count=0),
        common_environment_settings=[models.EnvironmentSetting(name="GREETING", value="hello")],
        metadata=[models.MetadataItem(name="client", value="python14")],
    )
    batch.job.add(job)
    fails("JobExists", 409, lambda: batch.job.add(job))
    made = batch.job.get(JOB)
    equal((made.state, made.priority), (models.JobState.active, 100))
    equal(made.constraints.max_wall_clock_time, datetime.timedelta(hours=1))
    equal(made.on_all_tasks_complete, models.OnAllTasksComplete.no_action)


def add_tasks():
    urls = [blob_url(f"measure-{n}.txt") for n in range(4)]
    outputs = container_url(OUTPUTS, write=True)
    tasks = [work_task(k, urls[k % 4], outputs) for k in range(TASKS)]
    added = batch.task.add_collection(JOB, tasks)
    equal(sorted(t.task_id for t in added.value), [t.id for t in tasks])
    equal({t.status for t in added.value}, {models.TaskAddStatus.success})
    fails("TaskExists", 409, lambda: batch.task.add(JOB, tasks[0]))


def work_task(k, url, outputs):
    task_id = f"task-{k:03}"
    files = [upload("highest.txt", outputs, f"{task_id}/highest.txt", models.OutputFileUploadCondition.task_success)]
    if k % 50 == 0:
        files.append(upload("../std*.txt", outputs, f"{task_id}/logs", models.OutputFileUploadCondition.task_completion))
    return models.TaskAddParameter(
        id=task_id,
        command_line="/bin/sh -c 'echo $GREETING from $AZ_BATCH_TASK_ID, $ROLE; sort -n measures.txt | tail -n 1 > highest.txt'",
        resource_files=[models.ResourceFile(http_url=url, file_path="measures.txt")],
        environment_settings=[models.EnvironmentSetting(name="ROLE", value=f"worker {k}")],
        output_files=files,
        constraints=models.TaskConstraints(
            max_wall_clock_time=datetime.timedelta(minutes=5), retention_time=datetime.timedelta(hours=1), max_task_retry_count=1,
        ),
    )


def upload(pattern, url, path, condition):
    container = models.OutputFileBlobContainerDestination(container_url=url, path=path)
    return models.OutputFile(
        file_pattern=pattern,
        destination=models.OutputFileDestination(container=container),
        upload_options=models.OutputFileUploadOptions(upload_condition=condition),
    )


def wait_for_tasks():
    done = models.TaskListOptions(filter="state eq 'completed'", select="id,state,executionInfo", max_results=80)
    wait_for("all tasks", lambda: len(list(batch.task.list(JOB, done))) == TASKS, 240)
    failures = [(t.id, t.execution_info.failure_info.message) for t in batch.task.list(JOB, done) if t.execution_info.failure_info]
    equal(failures, [])
    counts = batch.job.get_task_counts(JOB)
    equal((counts.task_counts.active, counts.task_counts.running), (0, 0))
    equal((counts.task_counts.completed, counts.task_counts.succeeded, counts.task_counts.failed), (TASKS, TASKS, 0))
    equal(counts.task_slot_counts.completed, TASKS)
    task = batch.task.get(JOB, "task-007")
    equal((task.execution_info.exit_code, task.execution_info.retry_count), (0, 0))
    contains([n.id for n in nodes()], task.node_info.node_id)
    equal(task.environment_settings[0].value, "worker 7")
    equal(task.constraints.max_task_retry_count, 1)
    equal(task.user_identity.auto_user.elevation_level, models.ElevationLevel.non_admin)


def read_task_files():
    for k in (0, 7, 199):
        text = content(batch.file.get_from_task(JOB, f"task-{k:03}", "stdout.txt"))
        equal(text, f"hello from task-{k:03}, worker {k}\n")
    part = models.FileGetFromTaskOptions(ocp_range="bytes=6-9")
    equal(content(batch.file.get_from_task(JOB, "task-007", "stdout.txt", part)), "from")
    head = batch.file.get_properties_from_task(JOB, "task-007", "wd/highest.txt", raw=True).headers
    equal((head["Content-Length"], head["ocp-batch-file-isdirectory"]), (4, False))
    files = {f.name: f for f in batch.file.list_from_task(JOB, "task-007", recursive=True)}
    equal(files["wd"].is_directory, True)
    equal(files["wd/highest.txt"].properties.content_length, 4)
    contains(files, "stderr.txt")
    flat = [f.name for f in batch.file.list_from_task(JOB, "task-007")]
    equal("wd/highest.txt" in flat, False)
    fails("FileNotFound", 404, lambda: content(batch.file.get_from_task(JOB, "task-007", "wd/missing.txt")))


def follow_troubled_tasks():
    everything = models.ResourceFile(
        storage_container_url=container_url(INPUTS, read=True, list=True), blob_prefix="measure-", file_path="all",
    )
    batch.task.add(JOB, models.TaskAddParameter(
        id="summary", command_line="/bin/sh -c 'cat all/measure-*.txt | wc -l'", resource_files=[everything],
    ))
    batch.task.add(JOB, models.TaskAddParameter(id="failing", command_line="/bin/sh -c 'echo no >&2; exit 3'"))
    batch.task.add(JOB, models.TaskAddParameter(id="sleeper", command_line="/bin/sleep 600"))
    wait_for("the summary", lambda: batch.task.get(JOB, "summary").state == models.TaskState.completed)
    equal(content(batch.file.get_from_task(JOB, "summary", "stdout.txt")).strip(), "40")

    wait_for("the failure", lambda: batch.task.get(JOB, "failing").state == models.TaskState.completed)
    info = batch.task.get(JOB, "failing").execution_info
    equal((info.exit_code, info.result), (3, models.TaskExecutionResult.failure))
    equal((info.failure_info.category, info.failure_info.code), (models.ErrorCategory.user_error, "FailureExitCode"))

    wait_for("the sleeper", lambda: batch.task.get(JOB, "sleeper").state == models.TaskState.running)
    batch.task.update(JOB, "sleeper", models.TaskConstraints(max_task_retry_count=2))
    equal(batch.task.get(JOB, "sleeper").constraints.max_task_retry_count, 2)
    batch.task.terminate(JOB, "sleeper")
    ended = batch.task.get(JOB, "sleeper")
    equal((ended.state, ended.execution_info.failure_info.code), (models.TaskState.completed, "TaskEnded"))
    fails("TaskCompleted", 409, lambda: batch.task.terminate(JOB, "sleeper"))
    batch.task.reactivate(JOB, "sleeper")
    wait_for("the sleeper again", lambda: batch.task.get(JOB, "sleeper").state == models.TaskState.running)
    batch.task.delete(JOB, "sleeper")
    fails("TaskNotFound", 404, lambda: batch.task.get(JOB, "sleeper"))


def restart_node():
    node = nodes()[0]
    batch.compute_node.reboot(POOL, node.id, models.ComputeNodeRebootOption.requeue)
    wait_for("the restart", lambda: rebooted(node))
    batch.compute_node.disable_scheduling(POOL, node.id)
    equal(batch.compute_node.get(POOL, node.id).scheduling_state, models.SchedulingState.disabled)
    batch.compute_node.enable_scheduling(POOL, node.id)
    wait_for("two idle nodes", lambda: idle_nodes() == 2)


def rebooted(before):
    now = batch.compute_node.get(POOL, before.id)
    return now.state == models.ComputeNodeState.idle and now.last_boot_time > before.last_boot_time


def change_job():
    before = batch.job.get(JOB)
    batch.job.patch(JOB, models.JobPatchParameter(priority=-5))
    stale = models.JobUpdateOptions(if_match=before.e_tag)
    update = models.JobUpdateParameter(pool_info=before.pool_info, priority=7, metadata=before.metadata)
    fails("ConditionNotMet", 412, lambda: batch.job.update(JOB, update, stale))
    equal(batch.job.get(JOB).priority, -5)
    batch.job.update(JOB, update)
    after = batch.job.get(JOB)
    equal(after.priority, 7)
    equal(after.constraints.max_wall_clock_time > datetime.timedelta(days=1000), True)
    batch.job.disable(JOB, models.DisableJobOption.requeue)
    wait_for("the job to be disabled", lambda: batch.job.get(JOB).state == models.JobState.disabled)
    batch.job.enable(JOB)
    wait_for("the job to be active", lambda: batch.job.get(JOB).state == models.JobState.active)


def resize_pool():
    batch.pool.resize(POOL, models.PoolResizeParameter(target_dedicated_nodes=1))
    wait_for("one node", lambda: steady() and len(nodes()) == 1)
    batch.pool.resize(POOL, models.PoolResizeParameter(target_dedicated_nodes=2, target_low_priority_nodes=0))
    wait_for("two nodes", lambda: steady() and idle_nodes() == 2)


def steady():
    return batch.pool.get(POOL).allocation_state == models.AllocationState.steady


def end_job():
    batch.job.terminate(JOB, "the walk is over")
    wait_for("the end of the job", lambda: batch.job.get(JOB).state == models.JobState.completed)
    equal(batch.job.get(JOB).execution_info.terminate_reason, "the walk is over")
    late = models.TaskAddParameter(id="late", command_line="/bin/true")
    fails("JobCompleted", 409, lambda: batch.task.add(JOB, late))


def download_outputs():
    container = storage.get_container_client(OUTPUTS)
    names = {b.name for b in container.list_blobs()}
    logs = {f"task-{k:03}/logs/{name}" for k in range(0, TASKS, 50) for name in ("stdout.txt", "stderr.txt")}
    equal(names, logs | {f"task-{k:03}/highest.txt" for k in range(TASKS)})
    for k in range(0, TASKS, 9):
        text = container.download_blob(f"task-{k:03}/highest.txt").readall().decode()
        equal(text, f"{100 * (k % 4 + 1) + 9}\n")
    text = container.download_blob("task-050/logs/stdout.txt").readall().decode()
    equal(text, "hello from task-050, worker 50\n")


def delete_everything():
    batch.task.delete(JOB, "task-000")
    fails("TaskNotFound", 404, lambda: batch.task.get(JOB, "task-000"))
    batch.job.delete(JOB)
    wait_for("the job to be gone", lambda: gone("JobNotFound", lambda: batch.job.get(JOB)))
    batch.pool.delete(POOL)
    wait_for("the pool to be gone", lambda: gone("PoolNotFound", lambda: batch.pool.get(POOL)))
    equal(batch.pool.exists(POOL), False)
    for name in (INPUTS, OUTPUTS):
        storage.delete_container(name)
        try:
            storage.get_container_client(name).get_container_properties()
        except ResourceNotFoundError:
            continue
        raise AssertionError(f"container {name} is still there")


# --- helpers ---


def step(what, do):
    begin = time.monotonic()
    do()
    print(f"{what}: {time.monotonic() - begin:.1f} s", flush=True)


def in_an_hour():
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)


def content(chunks):
    return b"".join(chunks).decode()


def wait_for(what, done, seconds=120):
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} in {seconds} seconds")
        time.sleep(0.3)


def fails(code, status, call):
    """Expects the service to refuse a call with this error."""
    try:
        call()
    except models.BatchErrorException as error:
        equal((error.error.code, error.response.status_code), (code, status))
        return
    raise AssertionError(f"no error {code}")


def gone(code, get):
    try:
        get()
    except models.BatchErrorException as error:
        equal((error.error.code, error.response.status_code), (code, 404))
        return True
    return False


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def contains(several, one):
    if one not in several:
        raise AssertionError(f"{one!r} is not in {sorted(several)!r}")


main()
