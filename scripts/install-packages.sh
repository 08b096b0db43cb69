#!/usr/bin/env bash
# install-packages.sh [SECTION…]: installs the Debian packages of these sections of packages.txt (default: build test
# demo). Says nothing and touches nothing when all of them are there; never starts a service.
set -euo pipefail
cd "$(dirname "$0")"

wanted=$(awk -v sections=" ${*:-build test demo} " '
  /^\[/ { on = index(sections, " " substr($0, 2, length($0) - 2) " "); next }
  on && NF && !/^#/ { print $1 }' packages.txt | sort -u)
installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' | awk '/^ii/ { print $2 }' | sort -u)
missing=$(comm -23 <(echo "$wanted") <(echo "$installed"))
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "install-packages: needs root to install: $(echo $missing)" >&2
  exit 1
fi
echo "install-packages: installing $(echo $missing)"
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy=
cleanup() {
  rm -f "$log"
  [ -z "$made_policy" ] || rm -f "$policy"
}
trap cleanup EXIT
# Debian's registry and nginx packages would start a service each: they are wanted as programs only.
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  made_policy=yes
fi
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -y -o DPkg::Lock::Timeout=300 -o APT::Install-Recommends=false)
if ! { "${apt[@]}" update && "${apt[@]}" install $missing; } > "$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "install-packages: apt-get failed, see above" >&2
  exit 1
fi
