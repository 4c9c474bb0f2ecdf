#!/bin/sh
# Install what the benchmark needs on Debian or Ubuntu (as root): a compiler, the load generator, the backend
# and the peers. None of the daemons is started: the benchmark runs them itself, on 127.0.0.1.
# CoreDNS is not packaged there; `coredns` on PATH is taken when present.
set -eu

packages="gcc python3-dev python3-venv dnsperf knot unbound dnsmasq-base dnsdist bind9 pdns-recursor util-linux"
missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || { echo "everything is installed"; exit 0; }

# Package scripts ask this file whether they may start a daemon: 101 is "no".
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get update
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
