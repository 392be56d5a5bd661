#!/usr/bin/env python3
"""Render an animation: one task a frame over the nodes of a pool, then a merge.

Uses the official clients only, so it runs against Azure Batch too:
    pip install azure-batch==15.1.0 azure-storage-blob
Needs povray and convert (imagemagick) on the nodes.
"""
import argparse
import os
import sys
import time
from datetime import datetime, timedelta, timezone

from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--scene", default=os.path.join(os.path.dirname(__file__), "scene.pov"))
parser.add_argument("--frames", type=int, default=36)
parser.add_argument("--size", default="320x240")
parser.add_argument("--nodes", type=int, default=3)
parser.add_argument("--out", default="animation.gif")
args = parser.parse_args()
width, height = args.size.split("x")

batch = BatchClient(
    os.environ["AZURE_BATCH_ENDPOINT"],
    AzureNamedKeyCredential(os.environ["AZURE_BATCH_ACCOUNT"], os.environ["AZURE_BATCH_ACCESS_KEY"]),
)
storage = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])


def container(name, **rights):
    """Makes a container and returns it with a URL that tasks may use."""
    client = storage.get_container_client(name)
    try:
        client.create_container()
    except ResourceExistsError:
        pass
    sas = generate_container_sas(
        storage.account_name, name, account_key=storage.credential.account_key,
        permission=ContainerSasPermissions(**rights), expiry=datetime.now(timezone.utc) + timedelta(hours=4))
    return client, f"{client.url}?{sas}"


def upload(url, pattern, condition=models.OutputFileUploadCondition.TASK_SUCCESS):
    """Says which files of a task go to a container when it has succeeded."""
    return models.OutputFile(
        file_pattern=pattern,
        destination=models.OutputFileDestination(
            container=models.OutputFileBlobContainerDestination(container_url=url)),
        upload_options=models.OutputFileUploadConfiguration(upload_condition=condition))


def wait(job_id, total, what):
    """Shows progress until all tasks are done; ends the program if one failed."""
    begun = time.time()
    while True:
        counts = batch.get_job_task_counts(job_id).task_counts
        done = counts.succeeded + counts.failed
        bar = "#" * (30 * done // total)
        print(f"\r{what}  [{bar:<30}] {done}/{total}  {counts.running} running  {time.time() - begun:.0f} s ",
              end="", flush=True)
        if done >= total:
            print()
            break
        time.sleep(0.5)
    for task in batch.list_tasks(job_id, filter="state eq 'completed'"):
        if task.execution_info.result != models.BatchTaskExecutionResult.SUCCESS:
            error = b"".join(batch.download_task_file(job_id, task.id, "stderr.txt")).decode(errors="replace")
            sys.exit(f"task {task.id} failed: {task.execution_info.failure_info.message}\n{error[-2000:]}")


run = datetime.now().strftime("%H%M%S")
scenes, scenes_url = container("scenes", read=True, list=True)
frames, frames_url = container(f"frames-{run}", read=True, list=True, write=True, create=True)
with open(args.scene, "rb") as scene:
    scenes.upload_blob("scene.pov", scene, overwrite=True)

pool_id, job_id = f"render-{run}", f"animation-{run}"
batch.create_pool(models.BatchPoolCreateOptions(
    id=pool_id, vm_size="STANDARD_D1_V2", target_dedicated_nodes=args.nodes,
    virtual_machine_configuration=models.VirtualMachineConfiguration(
        image_reference=models.BatchVmImageReference(
            publisher="canonical", offer="0001-com-ubuntu-server-jammy", sku="22_04-lts"),
        node_agent_sku_id="batch.node.ubuntu 22.04"),
    start_task=models.BatchStartTask(command_line="/bin/sh -c 'command -v povray && command -v convert'",
                                     wait_for_success=True)))
batch.create_job(models.BatchJobCreateOptions(id=job_id, pool_info=models.BatchPoolInfo(pool_id=pool_id)))
print(f"{args.frames} frames of {args.size} on {args.nodes} nodes, job {job_id}")

batch.create_tasks(job_id, [
    models.BatchTaskCreateOptions(
        id=f"frame-{n:04}",
        command_line=f"povray +Iscene.pov +Oframe-{n:04}.png +W{width} +H{height} +A0.2 -D -GA +WT1 +K{n / args.frames:.5f}",
        resource_files=[models.ResourceFile(storage_container_url=scenes_url, blob_prefix="scene.pov")],
        output_files=[upload(frames_url, f"frame-{n:04}.png")])
    for n in range(args.frames)])
wait(job_id, args.frames, "render")

batch.create_task(job_id, models.BatchTaskCreateOptions(
    id="merge",
    command_line="/bin/sh -c 'convert -delay 6 -loop 0 frames/frame-*.png -layers Optimize animation.gif'",
    resource_files=[models.ResourceFile(storage_container_url=frames_url, blob_prefix="frame-", file_path="frames")],
    output_files=[upload(frames_url, "animation.gif")]))
wait(job_id, args.frames + 1, "merge ")

with open(args.out, "wb") as result:
    frames.download_blob("animation.gif").readinto(result)
print(f"result: {os.path.abspath(args.out)} ({os.path.getsize(args.out) // 1024} KiB)")
batch.begin_delete_job(job_id)
batch.begin_delete_pool(pool_id)
