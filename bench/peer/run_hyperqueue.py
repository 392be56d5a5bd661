"""Runs tasks of /bin/true through a HyperQueue server and worker of its own.

    run_hyperqueue.py TASKS

Server and worker live in this process, the worker with two cores, all folders
in the current one. Prints tasks a second, from the submission of one job of
all tasks until the last is done.
"""

import sys
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main() -> None:
    tasks = int(sys.argv[1])
    here = Path.cwd()
    with LocalCluster(server_dir=str(here / "server")) as cluster:
        cluster.start_worker(WorkerConfig(cores=2))
        client = cluster.client()
        job = Job(default_workdir=str(here / "work"))
        for _ in range(tasks):
            job.program(["/bin/true"])
        begun = time.monotonic()
        client.wait_for_jobs([client.submit(job)])
        print(f"{tasks / (time.monotonic() - begun):.1f}")


if __name__ == "__main__":
    main()
