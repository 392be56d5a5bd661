#!/usr/bin/env bash
# Financial risk with az alone: 20 simulations as tasks of one job, summed up here.
# Needs AZURE_BATCH_ACCOUNT, AZURE_BATCH_ACCESS_KEY, AZURE_BATCH_ENDPOINT and
# AZURE_STORAGE_CONNECTION_STRING, as 'batchyard dev' prints them, and its pool 'local'.
set -euo pipefail
cd "$(dirname "$0")"
job=risk-$(date +%H%M%S) tasks=20 paths=4000 pool=${POOL:-local}
results=$(mktemp -d)

# The program is an input like any other.
az storage container create --name programs --only-show-errors >/dev/null
az storage blob upload --container-name programs --name simulate.py --file simulate.py --overwrite --only-show-errors >/dev/null
program=$(az storage blob generate-sas --container-name programs --name simulate.py --permissions r \
  --expiry "$(date -u -d '+2 hours' +%Y-%m-%dT%H:%MZ)" --full-uri --only-show-errors -o tsv)

az batch job create --id "$job" --pool-id "$pool"
for seed in $(seq "$tasks"); do
  printf '{"id":"seed-%s","commandLine":"python3 simulate.py %s %s","resourceFiles":[{"httpUrl":"%s","filePath":"simulate.py"}]}\n' \
    "$seed" "$seed" "$paths" "$program"
done | paste -sd, | sed 's/.*/[&]/' > "$results/tasks.json"
az batch task create --job-id "$job" --json-file "$results/tasks.json" >/dev/null
rm "$results/tasks.json"

until [ "$(az batch job task-counts show --job-id "$job" --query taskCounts.completed -o tsv)" = "$tasks" ]; do
  az batch job task-counts show --job-id "$job" --query '[[taskCounts.active, taskCounts.running, taskCounts.succeeded, taskCounts.failed]]' -o tsv \
    | awk '{printf "waiting %s, running %s, done %s, failed %s\n", $1, $2, $3, $4}'
done

for seed in $(seq "$tasks"); do
  az batch task file download --job-id "$job" --task-id "seed-$seed" --file-path stdout.txt --destination "$results/$seed" >/dev/null
done
cat "$results"/* | python3 -c '
import json, math, sys
runs = [json.loads(line) for line in sys.stdin]
n = sum(r["paths"] for r in runs)
mean = sum(r["sum"] for r in runs) / n
error = math.sqrt((sum(r["squares"] for r in runs) / n - mean * mean) / n)
var = sum(r["var99"] for r in runs) / len(runs)
print(f"price {mean:.3f} +- {error:.3f} from {n} paths in {len(runs)} tasks; value at risk (99 %) {var:.1f}")'
az batch job delete --job-id "$job" --yes
