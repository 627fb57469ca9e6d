// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/segment.h"

namespace mesh::netstack {

bool Segmenter::begin(const TunRead& read, const Parsed& parsed) {
    bytes_ = ByteSpan(read.bytes).first(parsed.total);
    parsed_ = parsed;
    vnet_ = read.vnet;
    split_ = false;
    count_ = 1;
    size_ = bytes_.size();
    header_ = 0;
    if (vnet_.gso_type == VnetHdr::kNone) {
        if ((vnet_.flags & VnetHdr::kNeedsCsum) == 0) return true;
        return size_t{vnet_.csum_start} + vnet_.csum_offset + 2 <= bytes_.size();
    }

    const bool tcp = vnet_.gso_type == VnetHdr::kTcpV4 || vnet_.gso_type == VnetHdr::kTcpV6;
    const uint8_t version = vnet_.gso_type == VnetHdr::kTcpV4 ? 4 : vnet_.gso_type == VnetHdr::kTcpV6 ? 6 : parsed.version;
    if (!tcp && vnet_.gso_type != VnetHdr::kUdpL4) return false;
    if (parsed.version != version || parsed.proto != (tcp ? kProtoTcp : kProtoUdp)) return false;
    if (parsed.fragment != Fragment::kWhole || vnet_.csum_start != parsed.ip_len || vnet_.gso_size == 0) return false;

    split_ = true;
    header_ = parsed.header_len();
    size_ = vnet_.gso_size;
    const size_t payload = bytes_.size() - header_;
    count_ = payload == 0 ? 1 : (payload + size_ - 1) / size_;
    return count_ <= kMaxSegments;
}

void Segmenter::write(size_t i, uint8_t* out) const {
    const size_t len = length(i);
    if (!split_) {
        std::memcpy(out, bytes_.data(), len);
        if ((vnet_.flags & VnetHdr::kNeedsCsum) != 0) finish_checksum(out, len);
        return;
    }
    std::memcpy(out, bytes_.data(), header_);
    std::memcpy(out + header_, bytes_.data() + header_ + i * size_, len - header_);

    const size_t ip_len = parsed_.ip_len;
    if (parsed_.version == 4) {
        store_be16(out + 2, static_cast<uint16_t>(len));
        store_be16(out + 4, static_cast<uint16_t>(load_be16(out + 4) + i));
        fix_ipv4_checksum(out, ip_len);
    } else {
        store_be16(out + 4, static_cast<uint16_t>(len - 40));
    }
    uint8_t* l4 = out + ip_len;
    const size_t l4_bytes = len - ip_len;
    size_t field = 6;
    if (parsed_.proto == kProtoTcp) {
        store_be32(l4 + 4, static_cast<uint32_t>(load_be32(l4 + 4) + i * size_));
        if (i + 1 < count_) l4[13] = static_cast<uint8_t>(l4[13] & ~(kTcpFin | kTcpPsh));
        field = 16;
    } else {
        store_be16(l4 + 4, static_cast<uint16_t>(l4_bytes));
    }
    store_be16(l4 + field, 0);
    const Sum pseudo = pseudo_sum(out, parsed_.version, parsed_.proto, static_cast<uint32_t>(l4_bytes));
    uint16_t sum = checksum({l4, l4_bytes}, pseudo);
    if (sum == 0 && parsed_.proto == kProtoUdp) sum = 0xFFFF;
    store_be16(l4 + field, sum);
}

void Segmenter::finish_checksum(uint8_t* out, size_t len) const {
    // The field holds the pseudo header's sum already, so it needs no zeroing: it is part of what is summed.
    const size_t field = size_t{vnet_.csum_start} + vnet_.csum_offset;
    uint16_t sum = checksum({out + vnet_.csum_start, len - vnet_.csum_start});
    if (sum == 0 && parsed_.proto == kProtoUdp) sum = 0xFFFF;
    store_be16(out + field, sum);
}

}  // namespace mesh::netstack
