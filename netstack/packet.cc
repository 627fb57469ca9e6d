// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/packet.h"

namespace mesh::netstack {

namespace {

// A later fragment may not reach into the first 80 bytes: longest IPv4 header and TCP header without options.
constexpr unsigned kMinLaterBlocks = 80 / 8;

/// `l4`: the transport bytes of a packet or first fragment, `proto` already set.
void parse_transport(ByteSpan l4, Parsed& out) {
    const bool first = out.fragment == Fragment::kFirst;
    switch (out.proto) {
        case kProtoTcp: {
            if (l4.size() < 20) break;
            const auto len = static_cast<uint8_t>((l4[12] >> 4) * 4);
            // A data offset below 20 is nonsense; one beyond the packet hides the options from us. A first fragment
            // may cut options off.
            if (len < 20 || (len > l4.size() && !first)) break;
            out.l4_len = len > l4.size() ? uint8_t{20} : len;
            out.src_port = load_be16(l4.data());
            out.dst_port = load_be16(l4.data() + 2);
            out.tcp_flags = l4[13];
            return;
        }
        case kProtoUdp:
            if (l4.size() < 8) break;
            out.l4_len = 8;
            out.src_port = load_be16(l4.data());
            out.dst_port = load_be16(l4.data() + 2);
            return;
        case kProtoSctp:
            if (l4.size() < 12) break;
            out.l4_len = 12;
            out.src_port = load_be16(l4.data());
            out.dst_port = load_be16(l4.data() + 2);
            return;
        case kProtoIcmp4:
        case kProtoIcmp6:
            if (l4.size() < 4) break;
            out.l4_len = 4;
            out.icmp_type = l4[0];
            out.icmp_code = l4[1];
            return;
        default:
            return;
    }
    out.proto = kProtoUnknown;
}

void parse_fragment(unsigned offset_blocks, bool more, ByteSpan l4, Parsed& out) {
    if (offset_blocks == 0) {
        out.fragment = more ? Fragment::kFirst : Fragment::kWhole;
        parse_transport(l4, out);
        return;
    }
    out.fragment = Fragment::kLater;
    if (offset_blocks < kMinLaterBlocks) out.proto = kProtoUnknown;
}

/// Headers that may stand between an IPv6 header and its transport (IANA ipv6-parameters).
bool is_extension6(uint8_t proto) {
    switch (proto) {
        case 0:    // hop-by-hop options
        case 43:   // routing
        case kProtoFragment6:
        case 51:   // authentication
        case 60:   // destination options
        case 135:  // mobility
        case 139:  // host identity
        case 140:  // shim6
            return true;
        default:
            return false;
    }
}

bool parse4(ByteSpan b, Parsed& out) {
    if (b.size() < 20) return false;
    const size_t ip_len = size_t{b[0] & 0x0FU} * 4;
    const size_t total = load_be16(b.data() + 2);
    if (ip_len < 20 || total < ip_len || total > b.size()) return false;
    out.version = 4;
    out.ip_len = static_cast<uint8_t>(ip_len);
    out.total = static_cast<uint32_t>(total);
    out.proto = b[9];
    out.src = Addr::v4_bytes(b.data() + 12);
    out.dst = Addr::v4_bytes(b.data() + 16);
    const unsigned fragment = load_be16(b.data() + 6);
    parse_fragment(fragment & 0x1FFFU, (fragment & 0x2000U) != 0, b.subspan(ip_len, total - ip_len), out);
    return true;
}

bool parse6(ByteSpan b, Parsed& out) {
    if (b.size() < 40) return false;
    const size_t total = size_t{40} + load_be16(b.data() + 4);
    if (total > b.size()) return false;
    out.version = 6;
    out.ip_len = 40;
    out.total = static_cast<uint32_t>(total);
    out.proto = b[6];
    out.src = Addr::v6_bytes(b.data() + 8, false);
    out.dst = Addr::v6_bytes(b.data() + 24, false);
    if (out.proto == kProtoFragment6 && total >= 48) {
        out.ip_len = 48;
        out.proto = b[40];
        // Behind a Fragment header, too, only a transport is understood.
        const unsigned fragment = load_be16(b.data() + 42);
        if (is_extension6(out.proto)) out.proto = kProtoUnknown;
        parse_fragment(fragment >> 3, (fragment & 1U) != 0, b.subspan(48, total - 48), out);
    } else if (is_extension6(out.proto)) {
        out.proto = kProtoUnknown;
    } else {
        parse_transport(b.subspan(40, total - 40), out);
    }
    return true;
}

}  // namespace

bool parse(ByteSpan bytes, Parsed& out) {
    out = Parsed{};
    if (bytes.empty()) return false;
    switch (bytes[0] >> 4) {
        case 4:
            return parse4(bytes, out);
        case 6:
            return parse6(bytes, out);
        default:
            return false;
    }
}

bool Parsed::is_echo_request() const {
    if (fragment != Fragment::kWhole || total < ip_len + 8U) return false;
    return (version == 4 && proto == kProtoIcmp4 && icmp_type == 8 && icmp_code == 0) ||
           (version == 6 && proto == kProtoIcmp6 && icmp_type == 128 && icmp_code == 0);
}

bool Parsed::is_echo_reply() const {
    if (total < ip_len + 8U) return false;
    return (version == 4 && proto == kProtoIcmp4 && icmp_type == 0 && icmp_code == 0) ||
           (version == 6 && proto == kProtoIcmp6 && icmp_type == 129 && icmp_code == 0);
}

bool Parsed::is_icmp_error() const {
    if (total < ip_len + 8U) return false;
    // RFC 792: destination unreachable, time exceeded, parameter problem. RFC 4443: types 1..4.
    if (version == 4 && proto == kProtoIcmp4) return icmp_type == 3 || icmp_type == 11 || icmp_type == 12;
    return version == 6 && proto == kProtoIcmp6 && icmp_type >= 1 && icmp_type <= 4;
}

}  // namespace mesh::netstack
