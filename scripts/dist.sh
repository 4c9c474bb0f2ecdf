#!/bin/sh
# Builds what a release consists of, and checks it as those who get it would:
#
#   scripts/dist.sh [FOLDER]      FOLDER (default: dist) then holds the source distribution, the wheel, a bill
#                                 of materials (CycloneDX) and SHA256SUMS
#
# The wheel is built from the source distribution, and installed into a clean environment with exactly the
# versions and hashes of requirements.lock; there it has to run.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
python=$root/.venv/bin/python
folder=${1:-dist}
# The source would be found in place of what is installed.
unset PYTHONPATH PYTHONHOME

uv() { "$root/.venv/bin/uv" "$@"; }

say() { printf 'dist: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

version=$("$python" -c 'from dnsproxy.version import __version__; print(__version__)')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run_demo() { # bin folder
    port=$("$python" -c 'import socket
with socket.socket() as sock:
    sock.bind(("127.0.0.1", 0))
    print(sock.getsockname()[1])')
    "$1/dnsproxy" demo --once --listen "127.0.0.1:$port" >"$work/demo.log" 2>&1 || fail "$(cat "$work/demo.log")"
}

# --- build -------------------------------------------------------------------

# The same source gives the same wheel: times in it are those of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1764000000)}
export SOURCE_DATE_EPOCH
say "building $version"
"$python" -m build --installer uv --outdir "$work/dist" . >"$work/build.log" 2>&1 || fail "$(cat "$work/build.log")"
source=$work/dist/dnsproxy-$version.tar.gz
wheel=$work/dist/dnsproxy-$version-py3-none-any.whl
for file in "$source" "$wheel"; do
    [ -f "$file" ] || fail "$(basename "$file") was not built; there is: $(ls "$work/dist")"
done
"$python" -m twine check --strict "$source" "$wheel" >&2

# --- the source distribution -------------------------------------------------

tar -C "$work" -xzf "$source"
unpacked=$work/dnsproxy-$version
for needed in LICENSE CHANGELOG.md README.md Makefile config.example.yaml mkdocs.yml requirements.lock \
    docs/index.md docs/man/dnsproxy.1 completions/dnsproxy scripts/setup.sh tests/test_layout.py; do
    [ -e "$unpacked/$needed" ] || fail "the source distribution lacks $needed; see MANIFEST.in"
done
[ ! -d deploy ] || [ -d "$unpacked/deploy" ] || fail "the source distribution lacks deploy/; see MANIFEST.in"

# --- the wheel, in a clean environment ---------------------------------------

say "installing it into a clean environment"
"$python" -m venv "$work/venv"
clean=$work/venv/bin
# uv, as it takes a tenth of pip's time. The wheel itself is left to pip.
uv pip install --quiet --no-config --python "$clean/python" --require-hashes \
    --requirement requirements.lock
"$clean/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps "$wheel"
"$clean/python" -m pip check >&2

# Away from the source, which must not be found instead.
cd "$work"
shown=$("$clean/dnsproxy" --version)
[ "$shown" = "dnsproxy $version" ] || fail "--version prints '$shown'"
"$clean/dnsproxy" check "$unpacked/config.example.yaml" >&2
"$clean/dnsproxy" schema >"$work/schema.json"
run_demo "$clean"
for needed in man/man1/dnsproxy.1 bash-completion/completions/dnsproxy zsh/site-functions/_dnsproxy \
    fish/vendor_completions.d/dnsproxy.fish; do
    [ -f "$work/venv/share/$needed" ] || fail "the wheel does not install share/$needed; see setup.py"
done

# --- the oldest versions that pyproject.toml admits ---------------------------

say "trying it with the oldest versions that pyproject.toml admits"
uv pip compile --quiet --no-config --resolution lowest-direct --python "$python" --no-header \
    --output-file "$work/oldest.txt" "$root/pyproject.toml" >/dev/null
uv venv --quiet --no-config --python "$python" "$work/oldest"
uv pip install --quiet --no-config --python "$work/oldest/bin/python" --requirement "$work/oldest.txt" "$wheel"
"$work/oldest/bin/dnsproxy" schema >"$work/schema-oldest.json"
"$work/oldest/bin/dnsproxy" check "$unpacked/config.example.yaml" >/dev/null
run_demo "$work/oldest/bin"

# --- bill of materials, sums -------------------------------------------------

# The environment without its installer, which is no part of the program. The version of the program itself is
# read by the build alone, so it is put in for this.
"$clean/python" -m pip uninstall --quiet --yes pip setuptools >/dev/null 2>&1 || fail "pip cannot be removed"
sed "s/^dynamic = .*/version = \"$version\"/" "$root/pyproject.toml" >"$work/pyproject.toml"
"$python" -m cyclonedx_py environment --pyproject "$work/pyproject.toml" --mc-type application \
    --output-reproducible --of JSON --output-file "$work/dist/dnsproxy-$version.cdx.json" "$clean/python" \
    >"$work/sbom.log" 2>&1 || fail "$(cat "$work/sbom.log")"
cd "$work/dist"
sha256sum -- * >"$work/SHA256SUMS"

cd "$root"
mkdir -p "$folder"
# Only what this script makes: nothing else in the folder is touched.
rm -f "$folder"/dnsproxy-*.tar.gz "$folder"/dnsproxy-*.whl "$folder"/dnsproxy-*.cdx.json "$folder/SHA256SUMS"
cp "$work/dist"/* "$work/SHA256SUMS" "$folder"
say "$folder holds:"
ls -l "$folder" >&2
