#!/bin/sh
# Makes a release of the commit that is checked out: looks whether it is fit for one, builds and checks what is
# handed out (scripts/dist.sh), and sets the tag. Uploads nothing and pushes nothing. docs/releasing.md has
# the steps around it.
set -eu

cd "$(dirname "$0")/.."

fail() {
    printf 'release: %s\n' "$*" >&2
    exit 1
}

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' dnsproxy/version.py)
printf '%s\n' "$version" | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?' ||
    fail "dnsproxy/version.py says '$version', which is no version to release; write for example 0.1.0 or 0.1.0rc1"
escaped=$(printf '%s' "$version" | sed 's/\./\\./g')
grep -Eq "^## \[$escaped\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
    fail "CHANGELOG.md has no section '## [$version] - YYYY-MM-DD'"
[ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed: git status"
if git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then
    fail "the tag v$version is there already; a version is released once"
fi

scripts/dist.sh dist
[ -z "$(git status --porcelain)" ] || fail "building has changed files: git status"
git tag --annotate "v$version" --message "dnsproxy $version"
printf 'release: tagged v%s; dist/ holds what belongs to it. Next: docs/releasing.md\n' "$version" >&2
