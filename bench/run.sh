#!/usr/bin/env bash
# Measures the figures of docs/performance.md (make bench). Arguments go to the program: see -help.
set -euo pipefail
cd "$(dirname "$0")/.."
go build -o .cache/bench ./bench
exec .cache/bench "$@"
