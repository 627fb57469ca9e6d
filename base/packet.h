// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The currency of the packet path: batches of bytes between the kernel's devices and the pure rooms. Nobody here
/// owns memory; every span is valid until the call that got it returns.

#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/keys.h"

namespace mesh {

/// virtio_net_hdr without its byte-order question: what TUN reads and writes carry (linux/virtio_net.h).
struct VnetHdr {
    static constexpr uint8_t kNeedsCsum = 1;
    enum Gso : uint8_t { kNone = 0, kTcpV4 = 1, kUdp = 3, kTcpV6 = 4, kUdpL4 = 5 };
    uint8_t flags = 0;
    uint8_t gso_type = kNone;
    uint16_t hdr_len = 0;
    uint16_t gso_size = 0;
    uint16_t csum_start = 0;
    uint16_t csum_offset = 0;
};

/// One TUN read: a packet of up to 65,535 bytes, or a TCP/UDP super-packet that the kernel left to us to segment.
struct TunRead {
    VnetHdr vnet;
    MutByteSpan bytes;
};

/// One TUN write: the pieces, in order, form one (super-)packet.
struct TunWrite {
    VnetHdr vnet;
    std::span<const ByteSpan> pieces;
};

/// One UDP receive: datagrams of `stride` bytes each (the last may be shorter), all from one source (UDP_GRO).
struct UdpReceive {
    Endpoint from;
    MutByteSpan bytes;
    uint32_t stride = 0;  ///< 0: one datagram

    [[nodiscard]] size_t step() const { return stride == 0 ? bytes.size() : stride; }
    /// take(MutByteSpan) for each datagram, in order.
    template <class Take>
    void each(Take take) const {
        for (MutByteSpan rest = bytes; !rest.empty();) {
            const MutByteSpan one = rest.first(rest.size() < step() ? rest.size() : step());
            rest = rest.subspan(one.size());
            take(one);
        }
    }
};

/// One UDP send: datagrams of `segment` bytes each (the last may be shorter) to one endpoint (UDP_SEGMENT).
struct UdpSend {
    Endpoint to;
    ByteSpan bytes;
    uint32_t segment = 0;
};

/// Where a datagram came from: a UDP endpoint, a peer through the UDP relay there, or a peer by a DERP region.
struct Source {
    Endpoint udp;          ///< valid() unless by DERP
    int derp_region = 0;   ///< > 0: by DERP
    NodePublic derp_key;   ///< sender as the relay names it
    uint32_t vni = 0;      ///< > 0: under this number through the UDP relay at `udp`
    [[nodiscard]] bool by_derp() const { return derp_region > 0; }
};

}  // namespace mesh
