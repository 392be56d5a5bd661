#!/usr/bin/env bash
# The README's first command (make demo): starts everything on this machine, renders an animation as
# many tasks over several compute nodes, merges it, and leaves it where a person can open it.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/apt-install povray imagemagick python3-venv
venv=.cache/demo
if ! cmp -s demo/requirements.txt "$venv/installed.txt" 2>/dev/null; then
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r demo/requirements.txt
  cp demo/requirements.txt "$venv/installed.txt"
fi

ready=$(mktemp)
bin/batchyard dev --ephemeral --ci --listen 127.0.0.1:0 --blob-listen 127.0.0.1:0 --nodes 0 > "$ready" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$ready"' EXIT
for _ in $(seq 150); do
  [ -s "$ready" ] && break
  kill -0 "$server" 2>/dev/null || { echo "the server did not start" >&2; exit 1; }
  sleep 0.2
done

eval "$(/usr/bin/python3 - "$ready" <<'PY'
import json, shlex, sys
r = json.load(open(sys.argv[1]))
connection = (f"DefaultEndpointsProtocol=http;AccountName={r['storageAccount']};AccountKey={r['storageKey']};"
              f"BlobEndpoint={r['blobEndpoint']};")
for name, value in {"AZURE_BATCH_ACCOUNT": r["account"], "AZURE_BATCH_ACCESS_KEY": r["accountKey"],
                    "AZURE_BATCH_ENDPOINT": r["endpoint"], "AZURE_STORAGE_CONNECTION_STRING": connection}.items():
    print(f"export {name}={shlex.quote(value)}")
PY
)"
mkdir -p demo/result
"$venv/bin/python" examples/render/render.py --out demo/result/animation.gif "$@"
