// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Splits a TUN super-packet (virtio GSO: TCPv4, TCPv6, UDP_L4) into packets, and completes checksums the kernel left
/// to us. Each segment is written straight into memory the caller reserved: header copied and fixed, payload copied
/// once. The writes are independent of each other.

#include "base/packet.h"
#include "netstack/checksum.h"
#include "netstack/packet.h"

namespace mesh::netstack {

class Segmenter {
   public:
    /// Kernels allow an MSS down to 48 bytes; a super-packet that splits finer is refused.
    static constexpr size_t kMaxSegments = 2048;

    /// Borrows `read.bytes` until the next begin(). False: the offload fields contradict the packet.
    /// hdr_len of the virtio header is ignored: for forwarded packets kernels put nonsense there.
    [[nodiscard]] bool begin(const TunRead& read, const Parsed& parsed);
    [[nodiscard]] size_t count() const { return count_; }
    /// Bytes of segment `i` < count().
    [[nodiscard]] size_t length(size_t i) const {
        return i + 1 < count_ ? header_ + size_ : bytes_.size() - i * size_;
    }
    /// Writes segment `i` to `out`, which has room for length(i).
    void write(size_t i, uint8_t* out) const;

   private:
    void finish_checksum(uint8_t* out, size_t len) const;

    ByteSpan bytes_;
    Parsed parsed_;
    VnetHdr vnet_;
    size_t header_ = 0;  // bytes repeated in each segment
    size_t size_ = 0;    // payload bytes of every segment but the last
    size_t count_ = 0;
    bool split_ = false;
};

}  // namespace mesh::netstack
