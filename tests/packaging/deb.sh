#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds the Debian packages from build/release and takes one through its life in a fresh Debian below a chroot: install,
# upgrade, remove, reinstall, purge. PID 1 is not systemd there; a stand-in records what it would have been told.
# Needs root, debootstrap and a Debian mirror. Prints "N passed, N failed".
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
. tests/packaging/chroot.sh
build=${1:-build/release}
work=$(mktemp -d)
root=$work/root
passed=0 failed=0
finish() {
    close_chroot "$root"
    rm -rf "$work"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}
trap finish EXIT

check() { # check TEXT COMMAND...
    local text=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $text"
        sed 's/^/    /' "$work/out"
    fi
}
lacks() { ! grep -q "$@"; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
told() { grep -q -- "$1\$" "$root/systemctl.log"; }
untold() { ! grep -q -- "$1" "$root/systemctl.log"; }
forget() { : >"$root/systemctl.log"; }

rm -f "$build"/packages/*.deb
(cd "$build" && cpack -G DEB -B packages >"$work/cpack.log" 2>&1) || { cat "$work/cpack.log"; exit 1; }
first=$(ls "$build"/packages/tailmesh_*.deb)
# The same once more as a newer version.
dpkg-deb -R "$first" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
dpkg-deb --root-owner-group -b "$work/next" "$work/next.deb" >/dev/null

open_chroot "$root" "$build/packages" || exit 1
cat >"$root/usr/bin/systemctl" <<'T'
#!/bin/sh
echo "$*" >>/systemctl.log
for unit; do :; done  # the last word
link=/etc/systemd/system/multi-user.target.wants/$unit
case " $* " in
*" preset "* | *" enable "*) mkdir -p "${link%/*}" && ln -sf "/usr/lib/systemd/system/$unit" "$link" ;;
*" is-enabled "*) [ -L "$link" ] && echo enabled ;;
*" mask "*) ln -sf /dev/null "/etc/systemd/system/$unit" ;;
*" unmask "*) rm -f "/etc/systemd/system/$unit" ;;
esac
T
chmod 755 "$root/usr/bin/systemctl"
mkdir -p "$root/run/systemd/system"
forget
cp "$first" "$root/first.deb"
cp "$work/next.deb" "$root/next.deb"
wants=$root/etc/systemd/system/multi-user.target.wants/tailscaled.service
mask=$root/etc/systemd/system/tailscaled.service

check "apt-get update" inside apt-get -qq update
check "installs with what it depends on" inside apt-get -qq install -y --no-install-recommends ./first.deb
check "the daemon runs" inside tailscaled --version
check "the command runs" inside tailscale version
check "enabled" test -L "$wants"
check "started" told "start tailscaled.service"
check "settings are there" grep -qx 'PORT="41641"' "$root/etc/default/tailscaled"

mkdir -p "$root/var/lib/tailscale"
echo key >"$root/var/lib/tailscale/tailscaled.state"
echo 'FLAGS="--verbose=1"' >>"$root/etc/default/tailscaled"
forget
check "upgrades" inside dpkg -i /next.deb
check "restarted" told "restart tailscaled.service"
check "not stopped while files are unpacked" untold "stop tailscaled"
check "an administrator's settings stay" grep -q verbose=1 "$root/etc/default/tailscaled"
check "the state stays" grep -q key "$root/var/lib/tailscale/tailscaled.state"

rm "$wants"  # systemctl disable
check "upgrades again" inside dpkg -i /first.deb
check "disabled stays disabled" test ! -L "$wants"

forget
check "removes" inside dpkg -r tailmesh
check "stopped" told "stop tailscaled.service"
check "masked" test "$(readlink "$mask")" = /dev/null
check "the state outlives a removal" grep -q key "$root/var/lib/tailscale/tailscaled.state"
check "the settings outlive it" test -f "$root/etc/default/tailscaled"

check "comes back" inside dpkg -i /first.deb
check "unmasked" test ! -e "$mask"
check "purges" inside dpkg -P tailmesh
check "no state" test ! -e "$root/var/lib/tailscale"
check "no settings" test ! -e "$root/etc/default/tailscaled"
check "no mask" test ! -L "$mask"
check "no programs" test ! -e "$root/usr/sbin/tailscaled"
check "dpkg is content" lacks tailmesh "$root/var/lib/dpkg/status"
