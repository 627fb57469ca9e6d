#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds what the last stage of packaging/container/Dockerfile describes, without a container engine: a fresh Debian below a
# folder, the stage's own RUN lines in it, the files its COPY lines name. Then the container tests of test_service.py start
# the image's entry point in there. The first stage (compiling) is the ordinary build.
# Needs root, debootstrap and a Debian mirror. Prints "N passed, N failed".
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
build=$(readlink -f "${1:-build/release}")
suite=bookworm
work=$(mktemp -d)
root=$work/root
finish() {
    for m in proc dev; do ! mountpoint -q "$root/$m" || umount "$root/$m"; done
    rm -rf "$work"
}
trap finish EXIT
die() { echo "$*"; echo "0 passed, 1 failed"; exit 1; }

mkdir -p "$build/packages"
cache=$build/packages/debootstrap-$suite.tar
if [ ! -s "$cache" ]; then
    debootstrap --variant=minbase --include=init-system-helpers,ca-certificates "$suite" "$root" >"$work/log" 2>&1 ||
        { tail -20 "$work/log"; die "debootstrap failed"; }
    tar -C "$root" -cf "$cache" .
else
    mkdir -p "$root"
    tar -C "$root" -xf "$cache"
fi
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/apt/sources.list "$root/etc/apt/sources.list" 2>/dev/null || true
for d in apt.conf.d sources.list.d trusted.gpg.d keyrings; do [ ! -d /etc/apt/$d ] || cp -r /etc/apt/$d "$root/etc/apt/"; done
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"

# What "COPY --from=build" brings.
mkdir -p "$root/usr/local/lib/tailmesh" "$root/usr/local/bin"
ldd "$build/bin/tailscaled" "$build/bin/tailscale" | awk '$3 ~ "^/" {print $3}' | sort -u | xargs -I{} cp -L {} "$root/usr/local/lib/tailmesh/"
for p in tailscaled tailscale; do strip -o "$root/usr/local/bin/$p" "$build/bin/$p"; done
install -m 755 packaging/container/entrypoint.sh "$root/usr/local/bin/entrypoint"

# The RUN lines of the last stage, continuation lines joined.
sed -e ':a' -e '/\\$/N; s/\\\n//; ta' packaging/container/Dockerfile | awk '/^FROM /{n = ""} /^RUN /{n = n substr($0, 5) "\n"} END {printf "%s", n}' >"$work/run"
[ -s "$work/run" ] || die "no RUN line found in the Dockerfile"
while IFS= read -r line; do
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -c "$line" </dev/null >"$work/log" 2>&1 ||
        { tail -20 "$work/log"; die "RUN $line"; }
done <"$work/run"
umount "$root/proc" "$root/dev"

CONTAINER_ROOT=$root TAILMESH_BIN=$build/bin tests/netns/isolated python3 -m pytest -q -p no:cacheprovider tests/netns/test_service.py -k container
