#!/usr/bin/env bash
# Runs jobs of /bin/true through a Slurm of its own, on loopback with its own
# ports and folders, and stops it:
#
#   slurm.sh JOBS SINGLE SLOTS
#
# JOBS are the elements of one array; SINGLE jobs are then submitted one by one;
# SLOTS is how many may run at once. It prints one line of figures: elements a
# second, processor time an element in microseconds, sbatch calls a second,
# milliseconds from sbatch to the start of a job on the idle cluster.
#
# Settings favour throughput: the builtin scheduler looks at the whole queue, no
# accounting, no process tracking but the kernel's, ten threads of munged,
# spool folders in memory.
set -euo pipefail

jobs=$1
single=$2
slots=$3

"$(dirname "$0")/../../tools/apt-install" slurmctld slurmd slurm-client munge

if [ "$(id -u)" -ne 0 ]; then
  echo "slurm.sh: slurmd needs root" >&2
  exit 1
fi

home=$(mktemp -d /dev/shm/batchyard-slurm.XXXXXX)
pids=()

# shellcheck disable=SC2317 # called by trap
stop() {
  local at
  for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
    kill "${pids[at]}" 2>/dev/null || true
    wait "${pids[at]}" 2>/dev/null || true
  done
  rm -rf "$home"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

mkdir "$home/munge" "$home/state" "$home/spool" "$home/out"
chmod 755 "$home" "$home/munge"
dd if=/dev/urandom of="$home/munge.key" bs=1024 count=1 status=none
chmod 600 "$home/munge.key"
munged --foreground --force --num-threads=10 --key-file="$home/munge.key" --socket="$home/munge/socket" \
  --pid-file="$home/munge.pid" --seed-file="$home/munge.seed" --log-file="$home/munge.log" 2>"$home/munge.err" &
pids+=($!)

host=$(hostname -s)
export SLURM_CONF=$home/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge/socket
CredType=cred/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/builtin
SchedulerParameters=default_queue_depth=100000,partition_job_depth=0,batch_sched_delay=0,sched_min_interval=0,max_rpc_cnt=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MaxArraySize=100001
MaxJobCount=200000
MinJobAge=10
ReturnToService=2
MessageTimeout=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=$slots State=UNKNOWN
PartitionName=bench Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF

slurmctld -D -i 2>"$home/slurmctld.err" &
pids+=($!)
slurmd -D 2>"$home/slurmd.err" &
pids+=($!)

# wait_for SECONDS INTERVAL COMMAND...: until it succeeds. Asking costs time too,
# so that long waits ask seldom.
wait_for() {
  local until=$((SECONDS + $1)) interval=$2
  shift 2
  until "$@"; do
    if [ "$SECONDS" -ge "$until" ]; then
      echo "slurm.sh: timed out: $*" >&2
      tail -n 5 "$home"/*.log "$home"/*.err >&2 || true
      exit 1
    fi
    sleep "$interval"
  done
}

# shellcheck disable=SC2317 # called by wait_for
is_up() { [ "$(sinfo -h -o %t 2>/dev/null)" = idle ]; }
# shellcheck disable=SC2317 # called by wait_for
is_empty() { [ -z "$(squeue -h -o %i 2>/dev/null)" ]; }
wait_for 60 0.1 is_up

now() { date +%s%N; }

# Steps are no children that slurmd waits for, so the processor time, in ticks of
# ten milliseconds, is that of the whole machine.
busy() {
  local user nice system idle iowait irq softirq rest
  read -r _ user nice system idle iowait irq softirq rest </proc/stat
  echo $((user + nice + system + irq + softirq + 0 * (idle + iowait + ${#rest})))
}

cd "$home/out"
printf '#!/bin/sh\nexec /bin/true\n' >"$home/job"

begun=$(now)
busy_before=$(busy)
sbatch -Q --array="1-$jobs" -o /dev/null "$home/job"
wait_for 600 0.5 is_empty
took=$(($(now) - begun))
busy_for=$(($(busy) - busy_before))

begun_single=$(now)
for ((n = 0; n < single; n++)); do
  sbatch -Q -o /dev/null "$home/job"
done
took_single=$(($(now) - begun_single))
wait_for 600 0.5 is_empty

# Five jobs, each on an idle cluster, write when they began.
printf '#!/bin/sh\ndate +%%s%%N\n' >"$home/clock"
for ((n = 0; n < 5; n++)); do
  sleep 0.3
  begun=$(now)
  sbatch -Q -o "$home/out/$n" "$home/clock"
  wait_for 60 0.05 test -s "$home/out/$n"
  echo $((($(cat "$home/out/$n") - begun) / 1000000))
done | sort -n >"$home/latencies"

awk -v jobs="$jobs" -v took="$took" -v busy="$busy_for" -v single="$single" -v took_single="$took_single" \
  -v latency="$(sed -n 3p "$home/latencies")" 'BEGIN {
    printf "%.1f %.0f %.1f %.0f\n", jobs / (took / 1e9), busy * 1e4 / jobs, single / (took_single / 1e9), latency
  }'
