#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The cipher's NEON code, compiled for 64-bit ARM and run by qemu-user, beside the same source on this processor.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
out=build/arm64
mkdir -p $out
sources=(tests/arm64/aead_print.cc base/crypto/aead_vec128.cc)
flags=(-std=c++20 -O3 -Wall -Wno-maybe-uninitialized -Wno-uninitialized -DMESH_AEAD_VEC128 -I. -static)
g++ "${flags[@]}" "${sources[@]}" -o $out/native
aarch64-linux-gnu-g++ "${flags[@]}" "${sources[@]}" -o $out/arm64
$out/native >$out/native.txt
qemu-aarch64 $out/arm64 >$out/arm64.txt
# The forged one is refused, all others are opened, and both processors agree.
if diff $out/native.txt $out/arm64.txt | head -5 >&2 && awk '$4 != 0 || $5 != $2 - 1 { bad = 1 } END { exit bad || NR != 2101 }' $out/arm64.txt; then
    echo "1 passed, 0 failed"
else
    echo "0 passed, 1 failed"
    exit 1
fi
