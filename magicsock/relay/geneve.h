// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The header before everything that goes through a UDP relay server: Geneve (RFC 8926) of eight bytes, without options.
///
///     version 2 bits (0) | option length 6 bits (0) | control bit, 7 bits 0 | protocol 16 | VNI 24 | 0
///
/// The control bit marks what passes between a client and the server itself (the steps of disco::RelayBind); without it
/// the server forwards the datagram unchanged. Source: tailscale/tailscale net/packet/geneve.go.

#include <algorithm>
#include <optional>

#include "base/bytes.h"

namespace mesh::relay {

inline constexpr size_t kGeneveLen = 8;
inline constexpr uint32_t kMaxVni = (1U << 24) - 1;

struct Geneve {
    enum Protocol : uint16_t { kDisco = 0x7a11, kWireGuard = 0x7a12 };
    uint16_t protocol = kDisco;
    bool control = false;
    uint32_t vni = 0;  ///< 1 … kMaxVni
    bool operator==(const Geneve&) const = default;

    /// nullopt if the datagram does not begin with such a header for one of the two protocols.
    [[nodiscard]] static std::optional<Geneve> parse(ByteSpan datagram) {
        if (datagram.size() < kGeneveLen) return std::nullopt;
        const uint8_t* b = datagram.data();
        const uint16_t protocol = load_be16(b + 2);
        if (b[0] != 0 || (b[1] & 0x7f) != 0 || b[7] != 0 || (protocol != kDisco && protocol != kWireGuard)) return std::nullopt;
        const Geneve g{protocol, (b[1] & 0x80) != 0, load_be32(b + 4) >> 8};
        if (g.vni == 0) return std::nullopt;
        return g;
    }
    /// Writes kGeneveLen bytes.
    void write(uint8_t* to) const {
        to[0] = 0;
        to[1] = control ? 0x80 : 0;
        store_be16(to + 2, protocol);
        store_be32(to + 4, vni << 8);
    }
    /// The datagram around `inner`. For messages; data gets its header where it lies.
    [[nodiscard]] Bytes around(ByteSpan inner) const {
        Bytes out(kGeneveLen + inner.size());
        write(out.data());
        std::copy(inner.begin(), inner.end(), out.begin() + kGeneveLen);
        return out;
    }
};

}  // namespace mesh::relay
