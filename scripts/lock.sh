#!/bin/sh
# Writes the lock files: what the program runs with (requirements.lock), the same with the stores and dnstap
# (-extras), what compiles it (-build), and what it is developed, documented and released with (-dev). Every
# package in one version for Python 3.11 and newer, with hashes.
# Options go to uv: `scripts/lock.sh --upgrade` takes newer versions where pyproject.toml admits them.
set -eu

cd "$(dirname "$0")/.."

lock() { # file, options...
    file=$1
    source=$2
    shift 2
    # No index, header or path of this machine gets into the file.
    UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/uv pip compile --quiet --no-config --universal \
        --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
        --output-file "$file" "$@" "$source"
}

lock requirements.lock pyproject.toml "$@"
lock requirements-extras.lock pyproject.toml --constraint requirements.lock \
    --extra s3 --extra kubernetes --extra dnstap "$@"
lock requirements-dev.lock pyproject.toml --extra dev --extra docs --extra release "$@"
lock requirements-build.lock requirements-build.in --constraint requirements-dev.lock "$@"
