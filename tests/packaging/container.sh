#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds what the last stage of packaging/container/Dockerfile describes, without a container engine: a fresh Debian below a
# folder, the stage's own RUN lines in it, the files its COPY lines name. Then the container tests of test_service.py start
# the image's entry point in there. The first stage (compiling) is the ordinary build.
# Needs root, debootstrap and a Debian mirror. Prints "N passed, N failed".
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
. tests/packaging/chroot.sh
build=$(readlink -f "${1:-build/release}")
work=$(mktemp -d)
root=$work/root
finish() {
    close_chroot "$root"
    rm -rf "$work"
}
trap finish EXIT
die() { echo "$*"; echo "0 passed, 1 failed"; exit 1; }

open_chroot "$root" "$build/packages" || die "no Debian to test in"

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
