# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Sourced: a fresh Debian below a folder for the tests of packages and of the image.

# open_chroot ROOT CACHE: kept as an archive in the folder CACHE; with this host's resolver and apt settings, /proc and /dev.
# False, after the reason.
open_chroot() {
    local root=$1 suite=bookworm archive log d
    archive=$2/debootstrap-$suite.tar log=$1.log
    mkdir -p "$root" "$2" || return 1
    if [ ! -s "$archive" ]; then
        debootstrap --variant=minbase --include=init-system-helpers,ca-certificates "$suite" "$root" >"$log" 2>&1 ||
            { tail -20 "$log"; return 1; }
        tar -C "$root" -cf "$archive" . || return 1
    else
        tar -C "$root" -xf "$archive" || return 1
    fi
    cp /etc/resolv.conf "$root/etc/resolv.conf" || return 1
    cp /etc/apt/sources.list "$root/etc/apt/sources.list" 2>/dev/null || true
    for d in apt.conf.d sources.list.d trusted.gpg.d keyrings; do
        [ ! -d "/etc/apt/$d" ] || cp -r "/etc/apt/$d" "$root/etc/apt/" || return 1
    done
    mount -t proc proc "$root/proc" && mount --bind /dev "$root/dev"
}

close_chroot() { # ROOT
    local m
    for m in proc dev; do ! mountpoint -q "$1/$m" || umount "$1/$m"; done
}
