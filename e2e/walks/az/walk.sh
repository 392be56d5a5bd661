#!/usr/bin/env bash
# A whole job with `az batch` and `az storage` of azure-cli.
#
# It finds the highest of some measured values, in 200 small tasks on two nodes, and on the way
# uses what the service offers around pools, jobs, tasks and files. The environment names the
# services (AZURE_BATCH_ACCOUNT, AZURE_BATCH_ACCESS_KEY, AZURE_BATCH_ENDPOINT,
# AZURE_STORAGE_CONNECTION_STRING); WALK_PREFIX keeps its names apart from those of others.
set -euo pipefail

pool=$WALK_PREFIX-pool job=$WALK_PREFIX-job inputs=$WALK_PREFIX-in outputs=$WALK_PREFIX-out
tasks=200

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export AZURE_CONFIG_DIR=$work/azure AZURE_CORE_COLLECT_TELEMETRY=false AZURE_CORE_OUTPUT=tsv
export AZURE_CORE_ONLY_SHOW_ERRORS=true
version=$(az version --query '"azure-cli"')

main() {
  step upload_inputs
  step create_pool
  step wait_for_nodes
  step read_node_files
  step change_pool
  step create_job
  step add_tasks
  step wait_for_tasks
  step read_task_files
  step follow_troubled_tasks
  step restart_node
  step change_job
  step resize_pool
  step end_job
  step download_outputs
  step delete_everything
}

upload_inputs() {
  az storage container create --name "$inputs" >/dev/null
  az storage container create --name "$outputs" >/dev/null
  mkdir measures
  for n in 0 1 2 3; do # the highest value of file n is 100 * (n + 1) + 9
    for k in 0 1 2 3 4 5 6 7 8 9; do echo $((100 * (n + 1) + 7 * k % 10)); done >"measures/measure-$n.txt"
  done
  az storage blob upload-batch --destination "$inputs" --source measures --no-progress >/dev/null
}

create_pool() {
  local sku='batch.node.ubuntu 22.04' image
  image=$(az batch pool supported-images list --query "[?nodeAgentSkuId=='$sku'].imageReference | [0]" --output json)
  cat >pool.json <<EOF
{
  "id": "$pool",
  "displayName": "measures",
  "vmSize": "STANDARD_D2_V3",
  "virtualMachineConfiguration": {"imageReference": $image, "nodeAgentSKUId": "$sku"},
  "targetDedicatedNodes": 2,
  "taskSlotsPerNode": 4,
  "startTask": {
    "commandLine": "/bin/sh -c 'echo ready: \$AZ_BATCH_NODE_ID; echo \$TOOL > \$AZ_BATCH_NODE_SHARED_DIR/tool.txt'",
    "environmentSettings": [{"name": "TOOL", "value": "sort"}],
    "waitForSuccess": true
  },
  "metadata": [{"name": "client", "value": "az"}]
}
EOF
  fails 'pool does not exist' az batch pool show --pool-id "$pool"
  az batch pool create --json-file pool.json
  fails 'pool already exists' az batch pool create --json-file pool.json
}

wait_for_nodes() {
  wait_for 2 idle_nodes
  equal "$(az batch pool show --pool-id "$pool" \
    --query '[allocationState, currentDedicatedNodes, taskSlotsPerNode, vmSize]' | tr "[:upper:]" "[:lower:]" | paste -sd' ')" \
    "steady 2 4 standard_d2_v3"
  node=$(az batch node list --pool-id "$pool" --query '[0].id')
  equal "$(az batch node show --pool-id "$pool" --node-id "$node" --query startTaskInfo.exitCode)" 0
}

idle_nodes() {
  az batch pool node-counts list --filter "poolId eq '$pool'" --query '[0].dedicated.idle'
}

read_node_files() {
  az batch node file list --pool-id "$pool" --node-id "$node" --recursive true --query '[].name' >names
  grep -qx startup/stdout.txt names
  grep -qx shared/tool.txt names
  az batch node file download --pool-id "$pool" --node-id "$node" --file-path startup/stdout.txt --destination ./start.txt
  equal "$(cat start.txt)" "ready: $node"
}

change_pool() {
  local tag
  tag=$(az batch pool show --pool-id "$pool" --query eTag)
  az batch pool set --pool-id "$pool" --metadata stage=patched >/dev/null
  fails 'condition.*not met' az batch pool set --pool-id "$pool" --metadata stage=stale --if-match "$tag"
  az batch pool reset --pool-id "$pool" --metadata stage=replaced --start-task-command-line /bin/true >/dev/null
  equal "$(az batch pool list --filter "startswith(id,'$WALK_PREFIX-')" --select id,state,metadata \
    --query '[].[id, state, metadata[0].value]')" "$(printf '%s\tactive\treplaced' "$pool")"
}

create_job() {
  cat >job.json <<EOF
{
  "id": "$job",
  "priority": 100,
  "poolInfo": {"poolId": "$pool"},
  "constraints": {"maxWallClockTime": "PT1H", "maxTaskRetryCount": 0},
  "commonEnvironmentSettings": [{"name": "GREETING", "value": "hello"}],
  "metadata": [{"name": "client", "value": "az"}]
}
EOF
  az batch job create --json-file job.json
  fails 'job already exists' az batch job create --json-file job.json
  equal "$(az batch job show --job-id "$job" --query '[state, priority, constraints.maxWallClockTime]' | sed 's|^PT1H$|1:00:00|' | paste -sd' ')" \
    "active 100 1:00:00"
}

add_tasks() {
  local end url out k
  end=$(date -u -d '+1 hour' +%Y-%m-%dT%H:%MZ)
  for k in 0 1 2 3; do
    url[k]=$(az storage blob generate-sas --container-name "$inputs" --name "measure-$k.txt" --permissions r \
      --expiry "$end" --full-uri)
  done
  out=$(container_url "$outputs" w)
  for ((k = 0; k < tasks; k++)); do work_task "$k" "${url[k % 4]}" "$out"; done | paste -sd, | sed 's/.*/[&]/' >tasks.json
  az batch task create --job-id "$job" --json-file tasks.json --query 'length(@)' >added
  equal "$(cat added)" "$tasks"
  fails 'task already exists' az batch task create --job-id "$job" --task-id task-000 --command-line /bin/true
}

# container_url prints a URL with these permissions for a whole container, for an hour.
container_url() {
  local sas endpoint
  sas=$(az storage container generate-sas --name "$1" --permissions "$2" --expiry "$(date -u -d '+1 hour' +%Y-%m-%dT%H:%MZ)")
  endpoint=${AZURE_STORAGE_CONNECTION_STRING##*BlobEndpoint=}
  echo "${endpoint%%;*}/$1?$sas"
}

work_task() {
  local k=$1 id logs=
  id=$(printf 'task-%03d' "$k")
  if ((k % 50 == 0)); then logs=,$(upload '../std*.txt' "$3" "$id/logs" taskcompletion); fi
  printf '{"id": "%s", "commandLine": "%s", ' "$id" \
    "/bin/sh -c 'echo \$GREETING from \$AZ_BATCH_TASK_ID, \$ROLE; sort -n measures.txt | tail -n 1 > highest.txt'"
  printf '"resourceFiles": [{"httpUrl": "%s", "filePath": "measures.txt"}], ' "$2"
  printf '"environmentSettings": [{"name": "ROLE", "value": "worker %d"}], ' "$k"
  printf '"outputFiles": [%s%s], ' "$(upload highest.txt "$3" "$id/highest.txt" tasksuccess)" "$logs"
  printf '"constraints": {"maxWallClockTime": "PT5M", "retentionTime": "PT1H", "maxTaskRetryCount": 1}}\n'
}

upload() {
  printf '{"filePattern": "%s", "destination": {"container": {"containerUrl": "%s", "path": "%s"}}, "uploadOptions": {"uploadCondition": "%s"}}' "$@"
}

wait_for_tasks() {
  wait_for "$tasks" completed_tasks
  equal "$(az batch job task-counts show --job-id "$job" --query 'taskCounts.[active, running, completed, succeeded, failed]' | paste -sd' ')" \
    "0 0 $tasks $tasks 0"
  equal "$(az batch task show --job-id "$job" --task-id task-007 \
    --query '[executionInfo.exitCode, executionInfo.result, environmentSettings[0].value]' | paste -sd' ')" "0 success worker 7"
}

completed_tasks() {
  az batch task list --job-id "$job" --filter "state eq 'completed'" --select id,executionInfo \
    --query "length([?executionInfo.result=='success'])"
}

read_task_files() {
  local k id
  for k in 0 7 199; do
    id=$(printf 'task-%03d' "$k")
    az batch task file download --job-id "$job" --task-id "$id" --file-path stdout.txt --destination ./"$id.txt"
    equal "$(cat "$id.txt")" "hello from $id, worker $k"
  done
  az batch task file download --job-id "$job" --task-id task-007 --file-path stdout.txt --start-range 6 --end-range 9 \
    --destination ./part.txt
  equal "$(cat part.txt)" from
  # Debian's version prints nothing; newer ones look into the answer of HEAD for members, whatever it is, and fall.
  if [[ $version == 2.45.* ]]; then
    az batch task file show --job-id "$job" --task-id task-007 --file-path wd/highest.txt
  fi
  az batch task file list --job-id "$job" --task-id task-007 --recursive true --query '[].name' >names
  grep -qx wd/highest.txt names
  grep -qx stderr.txt names
  fails 'file does not exist' az batch task file download --job-id "$job" --task-id task-007 --file-path wd/missing.txt \
    --destination ./missing.txt
}

follow_troubled_tasks() {
  cat >summary.json <<EOF
{
  "id": "summary",
  "commandLine": "/bin/sh -c 'cat all/measure-*.txt | wc -l'",
  "resourceFiles": [{"storageContainerUrl": "$(container_url "$inputs" rl)", "blobPrefix": "measure-", "filePath": "all"}]
}
EOF
  az batch task create --job-id "$job" --json-file summary.json >/dev/null
  az batch task create --job-id "$job" --task-id failing --command-line "/bin/sh -c 'echo no >&2; exit 3'" >/dev/null
  az batch task create --job-id "$job" --task-id sleeper --command-line '/bin/sleep 600' >/dev/null
  wait_for completed task_state summary
  az batch task file download --job-id "$job" --task-id summary --file-path stdout.txt --destination ./summary.txt
  equal "$(tr -d ' \n' <summary.txt)" 40
  wait_for completed task_state failing
  equal "$(az batch task show --job-id "$job" --task-id failing \
    --query 'executionInfo.[exitCode, result, failureInfo.code]' | paste -sd' ')" "3 failure FailureExitCode"
  wait_for running task_state sleeper
  az batch task reset --job-id "$job" --task-id sleeper --max-task-retry-count 2 >/dev/null
  az batch task stop --job-id "$job" --task-id sleeper
  equal "$(az batch task show --job-id "$job" --task-id sleeper \
    --query '[state, constraints.maxTaskRetryCount, executionInfo.failureInfo.code]' | paste -sd' ')" "completed 2 TaskEnded"
  fails 'task.*completed' az batch task stop --job-id "$job" --task-id sleeper
  az batch task reactivate --job-id "$job" --task-id sleeper
  wait_for running task_state sleeper
  az batch task delete --job-id "$job" --task-id sleeper --yes
  fails 'task does not exist' az batch task show --job-id "$job" --task-id sleeper
}

task_state() {
  az batch task show --job-id "$job" --task-id "$1" --query state
}

restart_node() {
  az batch node scheduling disable --pool-id "$pool" --node-id "$node"
  equal "$(az batch node show --pool-id "$pool" --node-id "$node" --query schedulingState)" disabled
  az batch node scheduling enable --pool-id "$pool" --node-id "$node"
  az batch node reboot --pool-id "$pool" --node-id "$node"
  wait_for 2 idle_nodes
}

change_job() {
  az batch job set --job-id "$job" --priority -5 >/dev/null
  equal "$(az batch job show --job-id "$job" --query '[priority, constraints.maxWallClockTime]' | sed 's|^PT1H$|1:00:00|' | paste -sd' ')" \
    "-5 1:00:00"
  az batch job reset --job-id "$job" --priority 7 --pool-id "$pool" >/dev/null
  equal "$(az batch job show --job-id "$job" --query priority)" 7
  # No job disable: this version refuses every value of --disable-tasks.
}

job_state() {
  az batch job show --job-id "$job" --query state
}

resize_pool() {
  az batch pool resize --pool-id "$pool" --target-dedicated-nodes 1
  wait_for 'steady 1' allocation
  az batch pool resize --pool-id "$pool" --target-dedicated-nodes 2
  wait_for 'steady 2' allocation
}

allocation() {
  az batch pool show --pool-id "$pool" --query '[allocationState, currentDedicatedNodes]' | paste -sd' '
}

end_job() {
  az batch job stop --job-id "$job" --terminate-reason 'the walk is over'
  wait_for completed job_state
  equal "$(az batch job show --job-id "$job" --query executionInfo.terminateReason)" 'the walk is over'
  fails 'job.*completed' az batch task create --job-id "$job" --task-id late --command-line /bin/true
}

download_outputs() {
  local k id
  mkdir results
  az storage blob download-batch --source "$outputs" --destination results --no-progress >/dev/null
  equal "$(find results -type f | wc -l)" $((tasks + 8))
  for ((k = 0; k < tasks; k++)); do
    id=$(printf 'task-%03d' "$k")
    equal "$(cat "results/$id/highest.txt")" $((100 * (k % 4 + 1) + 9))
  done
  equal "$(cat results/task-050/logs/stdout.txt)" 'hello from task-050, worker 50'
}

delete_everything() {
  az batch task delete --job-id "$job" --task-id task-000 --yes
  fails 'task does not exist' az batch task show --job-id "$job" --task-id task-000
  az batch job delete --job-id "$job" --yes
  wait_for no exists az batch job show --job-id "$job"
  az batch pool delete --pool-id "$pool" --yes
  wait_for no exists az batch pool show --pool-id "$pool"
  az storage container delete --name "$inputs" >/dev/null
  az storage container delete --name "$outputs" >/dev/null
  equal "$(az storage container exists --name "$inputs" --query exists | tr "[:upper:]" "[:lower:]")" false
  equal "$(az storage container exists --name "$outputs" --query exists | tr "[:upper:]" "[:lower:]")" false
}

# --- helpers ---

step() {
  local begin=$EPOCHREALTIME
  "$1"
  awk -v what="${1//_/ }" -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%s: %.1f s\n", what, b - a }'
}

# fails WORDS COMMAND... expects the service to refuse the command with a message of these words. az
# does not show the code of an error.
fails() {
  if "${@:2}" >/dev/null 2>error.txt; then die "no error from ${*:2}"; fi
  grep -qi "$1" error.txt || die "no word of '$1' in: $(cat error.txt)"
}

# exists COMMAND... prints yes or, if the service knows no such thing, no.
exists() {
  if "$@" >/dev/null 2>error.txt; then
    echo yes
  else
    grep -qi 'does not exist' error.txt && echo no
  fi
}

# wait_for VALUE COMMAND... runs the command until it prints the value.
wait_for() {
  local end=$((SECONDS + 180))
  until [[ $("${@:2}") == "$1" ]]; do
    if ((SECONDS > end)); then die "no $1 from ${*:2} in three minutes"; fi
    sleep 0.2
  done
}

equal() {
  [[ $1 == "$2" ]] || die "got '$1', want '$2'"
}

die() {
  echo "walk.sh: ${FUNCNAME[*]:2:2}: $*" >&2
  exit 1
}

main
