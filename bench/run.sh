#!/usr/bin/env bash
# Measures the figures of docs/performance.md (make bench). Arguments go to the program: see -help.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache/bench
CGO_ENABLED=0 go build -trimpath -o .cache/bench/bench ./bench
CGO_ENABLED=0 go build -trimpath -tags slowcommit -o .cache/bench/batchyard-slow ./cmd/batchyard
exec .cache/bench/bench "$@"
