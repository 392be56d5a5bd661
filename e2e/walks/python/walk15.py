"""A whole job with azure-batch 15.1.0, the newest Python client.

It finds the highest of some measured values, in 200 small tasks on two nodes, and on the way
uses what the service offers around pools, jobs, tasks and files. The environment names the
services; WALK_PREFIX keeps its names apart from those of other programs.

Operations that take time return a poller, as everywhere in this generation of clients: result()
waits until the service has done the work.
"""

import datetime
import os
import time

from azure.batch import BatchClient, models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
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

batch = BatchClient(
    os.environ["AZURE_BATCH_ENDPOINT"],
    AzureNamedKeyCredential(os.environ["AZURE_BATCH_ACCOUNT"], os.environ["AZURE_BATCH_ACCESS_KEY"]),
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
    step("take a node out of scheduling", disable_node)
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
    images = [i for i in batch.list_supported_images() if i.node_agent_sku_id == "batch.node.ubuntu 22.04"]
    equal(images[0].os_type, models.OSType.LINUX)
    pool = models.BatchPoolCreateOptions(
        id=POOL,
        display_name="measures",
        vm_size="STANDARD_D2_V3",
        virtual_machine_configuration=models.VirtualMachineConfiguration(
            image_reference=images[0].image_reference,
            node_agent_sku_id=images[0].node_agent_sku_id,
        ),
        target_dedicated_nodes=2,
        task_slots_per_node=4,
        task_scheduling_policy=models.BatchTaskSchedulingPolicy(node_fill_type=models.BatchNodeFillType.PACK),
        start_task=models.BatchStartTask(
            command_line="/bin/sh -c 'echo ready: $AZ_BATCH_NODE_ID; echo $TOOL > $AZ_BATCH_NODE_SHARED_DIR/tool.txt'",
            environment_settings=[models.EnvironmentSetting(name="TOOL", value="sort")],
            wait_for_success=True,
        ),
        metadata=[models.BatchMetadataItem(name="client", value="python15")],
    )
    equal(pool_exists(), False)
    batch.create_pool(pool)
    equal(pool_exists(), True)
    fails(ResourceExistsError, "PoolExists", lambda: batch.create_pool(pool))
    fails(ResourceNotFoundError, "PoolNotFound", lambda: batch.get_pool(f"{POOL}-other"))


def pool_exists():
    """This client raises an error where its documentation promises False."""
    try:
        return batch.pool_exists(POOL)
    except ResourceNotFoundError:
        return False


def wait_for_nodes():
    wait_for("two idle nodes", lambda: idle_nodes() == 2)
    pool = batch.get_pool(POOL)
    equal(pool.allocation_state, models.AllocationState.STEADY)
    equal((pool.current_dedicated_nodes, pool.target_dedicated_nodes), (2, 2))
    equal((pool.task_slots_per_node, pool.resize_timeout), (4, datetime.timedelta(minutes=15)))
    equal(pool.task_scheduling_policy.node_fill_type.lower(), "pack")
    node = nodes()[0]
    equal(node.state, models.BatchNodeState.IDLE)
    equal(node.start_task_info.exit_code, 0)
    equal(batch.get_node(POOL, node.id).id, node.id)


def idle_nodes():
    counts = list(batch.list_pool_node_counts(filter=f"poolId eq '{POOL}'"))
    return counts[0].dedicated.idle if counts else 0


def nodes():
    return list(batch.list_nodes(POOL))


def read_node_files():
    node = nodes()[0].id
    names = [f.name for f in batch.list_node_files(POOL, node, recursive=True)]
    contains(names, "startup/stdout.txt")
    contains(names, "shared/tool.txt")
    equal(content(batch.download_node_file(POOL, node, "startup/stdout.txt")), f"ready: {node}\n")
    head = batch.get_node_file_properties(POOL, node, "shared/tool.txt")
    equal((head.content_length, head.is_directory), (5, False))
    batch.delete_node_file(POOL, node, "shared/tool.txt")
    # This client does not read why a download was refused.
    fails(ResourceNotFoundError, None, lambda: content(batch.download_node_file(POOL, node, "shared/tool.txt")))


def change_pool():
    before = batch.get_pool(POOL)
    batch.update_pool(POOL, models.BatchPoolUpdateOptions(metadata=[models.BatchMetadataItem(name="stage", value="patched")]))
    after = batch.get_pool(POOL)
    equal([(m.name, m.value) for m in after.metadata], [("stage", "patched")])
    equal(after.start_task.command_line, before.start_task.command_line)
    equal(after.etag != before.etag, True)
    patch = models.BatchPoolUpdateOptions(metadata=[])
    fails(ResourceModifiedError, "ConditionNotMet", lambda: batch.update_pool(
        POOL, patch, etag=before.etag, match_condition=MatchConditions.IfNotModified))
    batch.update_pool(POOL, patch, etag=after.etag, match_condition=MatchConditions.IfNotModified)
    batch.replace_pool_properties(POOL, models.BatchPoolReplaceOptions(
        start_task=before.start_task, application_package_references=[],
        metadata=[models.BatchMetadataItem(name="stage", value="replaced")],
    ))
    pools = list(batch.list_pools(filter=f"startswith(id,'{PREFIX}-')", select=["id", "state", "metadata"]))
    equal([(p.id, p.state, p.metadata[0].value) for p in pools], [(POOL, models.BatchPoolState.ACTIVE, "replaced")])


def create_job():
    job = models.BatchJobCreateOptions(
        id=JOB,
        priority=100,
        pool_info=models.BatchPoolInfo(pool_id=POOL),
        constraints=models.BatchJobConstraints(max_wall_clock_time=datetime.timedelta(hours=1), max_task_retry_count=0),
        common_environment_settings=[models.EnvironmentSetting(name="GREETING", value="hello")],
        metadata=[models.BatchMetadataItem(name="client", value="python15")],
    )
    batch.create_job(job)
    fails(ResourceExistsError, "JobExists", lambda: batch.create_job(job))
    made = batch.get_job(JOB)
    equal((made.state, made.priority), (models.BatchJobState.ACTIVE, 100))
    equal(made.constraints.max_wall_clock_time, datetime.timedelta(hours=1))
    equal(made.max_parallel_tasks, -1)


def acquaint():
    """Uses the classes of the bulk add once, before two threads do.

    The client works out the fields of a class when it is first used, without a lock. If two threads
    do so at the same moment, one of them may be given plain dicts, and then fails with "'dict'
    object has no attribute 'status'".
    """
    models.BatchTaskGroup(task_values=[])
    known = models.BatchCreateTaskCollectionResult({"value": [{"status": "success", "taskId": "x"}]})
    equal(known.result_values[0].task_id, "x")


def add_tasks():
    urls = [blob_url(f"measure-{n}.txt") for n in range(4)]
    outputs = container_url(OUTPUTS, write=True)
    tasks = [work_task(k, urls[k % 4], outputs) for k in range(TASKS)]
    acquaint()
    added = batch.create_tasks(JOB, tasks, max_concurrency=2)
    equal(sorted(t.task_id for t in added.result_values), [t.id for t in tasks])
    equal({t.status.lower() for t in added.result_values}, {"success"})
    again = batch.create_task_collection(JOB, models.BatchTaskGroup(task_values=tasks[:2]))
    equal({(t.status.lower(), t.error.code) for t in again.result_values}, {("clienterror", "TaskExists")})
    fails(ResourceExistsError, "TaskExists", lambda: batch.create_task(JOB, tasks[0]))


def work_task(k, url, outputs):
    task_id = f"task-{k:03}"
    files = [upload("highest.txt", outputs, f"{task_id}/highest.txt", models.OutputFileUploadCondition.TASK_SUCCESS)]
    if k % 50 == 0:
        files.append(upload("../std*.txt", outputs, f"{task_id}/logs", models.OutputFileUploadCondition.TASK_COMPLETION))
    return models.BatchTaskCreateOptions(
        id=task_id,
        command_line="/bin/sh -c 'echo $GREETING from $AZ_BATCH_TASK_ID, $ROLE; sort -n measures.txt | tail -n 1 > highest.txt'",
        resource_files=[models.ResourceFile(http_url=url, file_path="measures.txt")],
        environment_settings=[models.EnvironmentSetting(name="ROLE", value=f"worker {k}")],
        output_files=files,
        constraints=models.BatchTaskConstraints(
            max_wall_clock_time=datetime.timedelta(minutes=5), retention_time=datetime.timedelta(hours=1), max_task_retry_count=1,
        ),
    )


def upload(pattern, url, path, condition):
    container = models.OutputFileBlobContainerDestination(container_url=url, path=path)
    return models.OutputFile(
        file_pattern=pattern,
        destination=models.OutputFileDestination(container=container),
        upload_options=models.OutputFileUploadConfiguration(upload_condition=condition),
    )


def wait_for_tasks():
    wait_for("all tasks", lambda: len(completed()) == TASKS, 240)
    failures = [(t.id, t.execution_info.failure_info.message) for t in completed() if t.execution_info.failure_info]
    equal(failures, [])
    counts = batch.get_job_task_counts(JOB)
    equal((counts.task_counts.active, counts.task_counts.running), (0, 0))
    equal((counts.task_counts.completed, counts.task_counts.succeeded, counts.task_counts.failed), (TASKS, TASKS, 0))
    equal(counts.task_slot_counts.completed, TASKS)
    task = batch.get_task(JOB, "task-007")
    equal((task.execution_info.exit_code, task.execution_info.retry_count), (0, 0))
    contains([n.id for n in nodes()], task.node_info.node_id)
    equal(task.environment_settings[0].value, "worker 7")
    equal(task.constraints.max_task_retry_count, 1)
    equal(task.required_slots, 1)


def completed():
    return list(batch.list_tasks(
        JOB, filter="state eq 'completed'", select=["id", "state", "executionInfo"], max_results=80))


def read_task_files():
    for k in (0, 7, 199):
        text = content(batch.download_task_file(JOB, f"task-{k:03}", "stdout.txt"))
        equal(text, f"hello from task-{k:03}, worker {k}\n")
    equal(content(batch.download_task_file(JOB, "task-007", "stdout.txt", ocp_range="bytes=6-9")), "from")
    head = batch.get_task_file_properties(JOB, "task-007", "wd/highest.txt")
    equal((head.content_length, head.is_directory), (4, False))
    files = {f.name: f for f in batch.list_task_files(JOB, "task-007", recursive=True)}
    equal(files["wd"].is_directory, True)
    equal(files["wd/highest.txt"].properties.content_length, 4)
    contains(files, "stderr.txt")
    fails(ResourceNotFoundError, None, lambda: content(batch.download_task_file(JOB, "task-007", "wd/missing.txt")))


def follow_troubled_tasks():
    everything = models.ResourceFile(
        storage_container_url=container_url(INPUTS, read=True, list=True), blob_prefix="measure-", file_path="all",
    )
    batch.create_task(JOB, models.BatchTaskCreateOptions(
        id="summary", command_line="/bin/sh -c 'cat all/measure-*.txt | wc -l'", resource_files=[everything],
    ))
    batch.create_task(JOB, models.BatchTaskCreateOptions(id="failing", command_line="/bin/sh -c 'echo no >&2; exit 3'"))
    batch.create_task(JOB, models.BatchTaskCreateOptions(id="sleeper", command_line="/bin/sleep 600"))
    wait_for("the summary", lambda: batch.get_task(JOB, "summary").state == models.BatchTaskState.COMPLETED)
    equal(content(batch.download_task_file(JOB, "summary", "stdout.txt")).strip(), "40")

    wait_for("the failure", lambda: batch.get_task(JOB, "failing").state == models.BatchTaskState.COMPLETED)
    info = batch.get_task(JOB, "failing").execution_info
    equal((info.exit_code, info.result), (3, models.BatchTaskExecutionResult.FAILURE))
    equal((info.failure_info.category.lower(), info.failure_info.code), ("usererror", "FailureExitCode"))

    wait_for("the sleeper", lambda: batch.get_task(JOB, "sleeper").state == models.BatchTaskState.RUNNING)
    batch.replace_task(JOB, "sleeper", models.BatchTask(constraints=models.BatchTaskConstraints(max_task_retry_count=2)))
    equal(batch.get_task(JOB, "sleeper").constraints.max_task_retry_count, 2)
    batch.terminate_task(JOB, "sleeper")
    ended = batch.get_task(JOB, "sleeper")
    equal((ended.state, ended.execution_info.failure_info.code), (models.BatchTaskState.COMPLETED, "TaskEnded"))
    fails(ResourceExistsError, "TaskCompleted", lambda: batch.terminate_task(JOB, "sleeper"))
    batch.reactivate_task(JOB, "sleeper")
    wait_for("the sleeper again", lambda: batch.get_task(JOB, "sleeper").state == models.BatchTaskState.RUNNING)
    batch.delete_task(JOB, "sleeper")
    fails(ResourceNotFoundError, "TaskNotFound", lambda: batch.get_task(JOB, "sleeper"))


def disable_node():
    node = nodes()[0].id
    requeue = models.BatchNodeDisableSchedulingOption.REQUEUE
    batch.disable_node_scheduling(POOL, node, models.BatchNodeDisableSchedulingOptions(node_disable_scheduling_option=requeue))
    equal(batch.get_node(POOL, node).scheduling_state, models.SchedulingState.DISABLED)
    batch.enable_node_scheduling(POOL, node)
    equal(batch.get_node(POOL, node).scheduling_state, models.SchedulingState.ENABLED)
    wait_for("two idle nodes", lambda: idle_nodes() == 2)
    # This client has no public class for these options, and cannot do without them.
    batch.begin_reboot_node(POOL, node, {"nodeRebootOption": "requeue"}, polling_interval=1).result()
    wait_for("two idle nodes", lambda: idle_nodes() == 2)


def change_job():
    before = batch.get_job(JOB)
    batch.update_job(JOB, models.BatchJobUpdateOptions(priority=-5))
    after = batch.get_job(JOB)
    equal((after.priority, after.constraints.max_wall_clock_time), (-5, datetime.timedelta(hours=1)))
    after.priority = 7
    fails(ResourceModifiedError, "ConditionNotMet", lambda: batch.replace_job(
        JOB, after, etag=before.etag, match_condition=MatchConditions.IfNotModified))
    batch.replace_job(JOB, after)
    equal(batch.get_job(JOB).priority, 7)
    disable = models.BatchJobDisableOptions(disable_tasks=models.DisableBatchJobOption.REQUEUE)
    batch.begin_disable_job(JOB, disable, polling_interval=1).result()
    equal(batch.get_job(JOB).state, models.BatchJobState.DISABLED)
    batch.begin_enable_job(JOB, polling_interval=1).result()
    equal(batch.get_job(JOB).state, models.BatchJobState.ACTIVE)


def resize_pool():
    batch.begin_resize_pool(POOL, models.BatchPoolResizeOptions(target_dedicated_nodes=1), polling_interval=1).result()
    equal(len(nodes()), 1)
    batch.begin_resize_pool(POOL, models.BatchPoolResizeOptions(target_dedicated_nodes=2), polling_interval=1).result()
    wait_for("two idle nodes", lambda: idle_nodes() == 2)


def end_job():
    batch.begin_terminate_job(JOB, {"terminateReason": "the walk is over"}, polling_interval=1).result()
    job = batch.get_job(JOB)
    equal((job.state, job.execution_info.termination_reason), (models.BatchJobState.COMPLETED, "the walk is over"))
    late = models.BatchTaskCreateOptions(id="late", command_line="/bin/true")
    fails(ResourceExistsError, "JobCompleted", lambda: batch.create_task(JOB, late))


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
    batch.delete_task(JOB, "task-000")
    fails(ResourceNotFoundError, "TaskNotFound", lambda: batch.get_task(JOB, "task-000"))
    batch.begin_delete_job(JOB, polling_interval=1).result()
    fails(ResourceNotFoundError, "JobNotFound", lambda: batch.get_job(JOB))
    batch.begin_delete_pool(POOL, polling_interval=1).result()
    equal(pool_exists(), False)
    for name in (INPUTS, OUTPUTS):
        storage.delete_container(name)
        equal(storage.get_container_client(name).exists(), False)


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


def fails(kind, code, call):
    """Expects the service to refuse a call with this error."""
    try:
        call()
    except HttpResponseError as error:
        equal((type(error), error.error and error.error.code), (kind, code))
        return
    raise AssertionError(f"no error {code}")


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def contains(several, one):
    if one not in several:
        raise AssertionError(f"{one!r} is not in {sorted(several)!r}")


main()
