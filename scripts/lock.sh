#!/bin/sh
# Writes requirements.lock (what the program runs with) and requirements-dev.lock (what it is developed,
# documented and released with): every package in one version for Python 3.11 and newer, with hashes.
# Options go to uv: `scripts/lock.sh --upgrade` takes newer versions where pyproject.toml admits them.
set -eu

cd "$(dirname "$0")/.."

lock() { # file, options...
    file=$1
    shift
    # No index, header or path of this machine gets into the file.
    UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/uv pip compile --quiet --no-config --universal \
        --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
        --output-file "$file" "$@" pyproject.toml
}

lock requirements.lock "$@"
lock requirements-dev.lock --extra dev --extra docs --extra release "$@"
