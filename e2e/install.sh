#!/usr/bin/env bash
# Installs strace, and the official clients that the walks use: azure-cli from Debian and a newer one in an environment
# of its own, two generations of the Python client in theirs, and the JavaScript clients. Everything but the
# Debian packages goes to .cache/e2e, at the exact versions of the requirement and lock files.
# Takes some minutes the first time and no time when nothing has changed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=$here/../.cache/e2e
walks=$here/walks
mkdir -p "$cache"

# have tells whether NAME was installed from these FILES, done notes that it is.
have() { [ "$(cat "$cache/$1.installed" 2>/dev/null)" = "$(cat "${@:2}" | sha256sum)" ]; }
done_with() { cat "${@:2}" | sha256sum >"$cache/$1.installed"; }

packages=(azure-cli strace)
if ! /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; then packages+=(python3 python3-venv); fi
if ! command -v npm >/dev/null; then packages+=(nodejs npm); fi
"$here/../tools/apt-install" "${packages[@]}"

# environment NAME REQUIREMENTS makes a Python environment with exactly these packages.
environment() {
  have "$1" "$2" && return
  echo "installing $1"
  rm -rf "${cache:?}/$1"
  /usr/bin/python3 -m venv "$cache/$1"
  "$cache/$1/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$2"
  "$cache/$1/bin/pip" check >/dev/null
  done_with "$1" "$2"
}

environment python14 "$walks/python/requirements14.txt"
environment python15 "$walks/python/requirements15.txt"
environment az "$walks/az/requirements.txt"

lock=("$walks/javascript/package.json" "$walks/javascript/package-lock.json")
if ! have javascript "${lock[@]}"; then
  echo "installing the JavaScript clients"
  rm -rf "$cache/javascript"
  mkdir "$cache/javascript"
  cp "${lock[@]}" "$walks/javascript/.npmrc" "$cache/javascript"
  (cd "$cache/javascript" && npm ci --silent --ignore-scripts --no-audit --no-fund)
  done_with javascript "${lock[@]}"
fi
