// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/coalesce.h"

#include "netstack/checksum.h"

namespace mesh::netstack {

namespace {

constexpr uint32_t kMaxSuperPacket = 65535;

bool bytes_equal(const uint8_t* a, const uint8_t* b, size_t n) { return std::memcmp(a, b, n) == 0; }

uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15ULL;
    return h ^ (h >> 29);
}

uint64_t load64(const uint8_t* p) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    return v;
}

}  // namespace

Coalescer::Coalescer(uint64_t hash_seed) : seed_(hash_seed) {
    items_.reserve(kMaxPackets);
    chain_.reserve(kMaxPackets);
    pieces_.reserve(2 * kMaxPackets);
    writes_.reserve(kMaxPackets);
}

int32_t& Coalescer::bucket(uint64_t hash) {
    Bucket& b = buckets_[(hash >> 32) % kBuckets];
    if (b.batch != batch_) b = {batch_, kNone};
    return b.head;
}

bool Coalescer::is_candidate(ByteSpan packet, const Parsed& p) const {
    if (p.fragment != Fragment::kWhole || p.ip_len != (p.version == 4 ? 20 : 40)) return false;
    if (p.total != packet.size() || p.payload_len() == 0) return false;
    const uint8_t* l4 = packet.data() + p.ip_len;
    if (p.proto == kProtoTcp) return tcp_ && (l4[13] == kTcpAck || l4[13] == (kTcpAck | kTcpPsh));
    if (p.proto == kProtoUdp) return udp_ && load_be16(l4 + 4) == p.total - p.ip_len;
    return false;
}

uint64_t Coalescer::hash_of(ByteSpan packet, const Parsed& p) const {
    const uint8_t* ip = packet.data();
    uint64_t h = mix(seed_, p.proto);
    if (p.version == 4) {
        h = mix(h, load64(ip + 12));
    } else {
        for (size_t i = 8; i < 40; i += 8) h = mix(h, load64(ip + i));
    }
    const uint8_t* l4 = ip + p.ip_len;
    h = mix(h, load_be32(l4));
    return p.proto == kProtoTcp ? mix(h, load_be32(l4 + 8)) : h;
}

bool Coalescer::same_flow(const Item& item, ByteSpan packet, const Parsed& p) {
    if (item.version != p.version || item.proto != p.proto) return false;
    const uint8_t* a = item.head.data();
    const uint8_t* b = packet.data();
    const bool addrs = p.version == 4 ? bytes_equal(a + 12, b + 12, 8) : bytes_equal(a + 8, b + 8, 32);
    const uint8_t* s = a + item.ip_len;
    const uint8_t* t = b + p.ip_len;
    return addrs && bytes_equal(s, t, 4) && (p.proto != kProtoTcp || bytes_equal(s + 8, t + 8, 4));
}

bool Coalescer::same_headers(const Item& item, ByteSpan packet, const Parsed& p) {
    const uint8_t* a = item.head.data();
    const uint8_t* b = packet.data();
    if (p.version == 4) {
        if (a[1] != b[1] || (a[6] >> 5) != (b[6] >> 5) || a[8] != b[8]) return false;
    } else if (!bytes_equal(a, b, 4) || a[7] != b[7]) {
        return false;
    }
    if (p.proto != kProtoTcp) return true;
    const uint8_t* s = a + p.ip_len;
    const uint8_t* t = b + p.ip_len;
    // Data offset with reserved bits, window, urgent pointer, options: only one copy of them survives.
    return item.l4_len == p.l4_len && s[12] == t[12] && bytes_equal(s + 14, t + 14, 2) &&
           bytes_equal(s + 18, t + 18, p.l4_len - 18U);
}

Coalescer::Fit Coalescer::fit(const Item& item, ByteSpan packet, const Parsed& p) {
    if (item.closed || !same_headers(item, packet, p)) return Fit::kNo;
    const uint32_t len = p.payload_len();
    if (p.header_len() + item.payload + len > kMaxSuperPacket || item.merged + 2U > kMaxPackets) return Fit::kNo;
    const bool open_end = item.payload % item.gso_size == 0 && len <= item.gso_size;
    if (p.proto == kProtoUdp) return open_end ? Fit::kAppend : Fit::kNo;

    const uint32_t seq = load_be32(packet.data() + p.ip_len + 4);
    if (seq == item.seq + item.payload) return open_end && !item.psh ? Fit::kAppend : Fit::kNo;
    if (seq + len == item.seq) {
        if ((p.tcp_flags & kTcpPsh) != 0 || len < item.gso_size) return Fit::kNo;
        return len > item.gso_size && item.merged > 0 ? Fit::kNo : Fit::kPrepend;
    }
    return Fit::kNo;
}

void Coalescer::merge(Item& item, Fit how, MutByteSpan packet, const Parsed& p) {
    const auto node = static_cast<int32_t>(chain_.size());
    const size_t header = p.header_len();
    if (how == Fit::kAppend) {
        chain_.push_back({ByteSpan(packet).subspan(header), kNone});
        if (item.last == kNone) {
            item.first = node;
        } else {
            chain_[static_cast<size_t>(item.last)].next = node;
        }
        item.last = node;
    } else {
        chain_.push_back({ByteSpan(item.head).subspan(header), item.first});
        if (item.last == kNone) item.last = node;
        item.first = node;
        item.head = packet;
        item.seq -= p.payload_len();
        item.gso_size = p.payload_len();
    }
    item.psh = item.psh || (p.tcp_flags & kTcpPsh) != 0;
    item.payload += p.payload_len();
    ++item.merged;
}

int32_t Coalescer::push_item(MutByteSpan packet, const Parsed& p) {
    Item item;
    item.head = packet;
    item.ip_len = p.ip_len;
    item.l4_len = p.l4_len;
    item.version = p.version;
    item.proto = p.proto;
    items_.push_back(item);
    return static_cast<int32_t>(items_.size() - 1);
}

void Coalescer::add(MutByteSpan packet, const Parsed& p) {
    if (taken_) {
        items_.clear();
        chain_.clear();
        packets_ = 0;
        ++batch_;
        taken_ = false;
    }
    ++packets_;
    const bool candidate = is_candidate(packet, p);
    // A datagram that cannot be joined must still not be overtaken by later ones of its flow.
    const bool barrier = !candidate && p.proto == kProtoUdp && p.fragment == Fragment::kWhole && p.l4_len == 8;
    if (!candidate && !barrier) {
        push_item(packet, p);
        return;
    }
    const uint64_t hash = hash_of(packet, p);
    int32_t& head = bucket(hash);
    int seen = 0;
    bool alone = barrier;
    for (int32_t i = head; candidate && i != kNone && seen < kLookBack; i = items_[static_cast<size_t>(i)].next_in_bucket) {
        Item& item = items_[static_cast<size_t>(i)];
        if (item.hash != hash || !same_flow(item, packet, p)) continue;
        ++seen;
        const Fit how = fit(item, packet, p);
        if (how != Fit::kNo) {
            if (!item.verified) {
                item.verified = true;
                item.closed = !l4_checksum_ok(item.head, item.version, item.ip_len, item.proto);
            }
            if (!l4_checksum_ok(packet, p.version, p.ip_len, p.proto)) {
                alone = true;
                break;
            }
            if (!item.closed) {
                merge(item, how, packet, p);
                return;
            }
        }
        if (p.proto == kProtoUdp) break;  // only the last one: the order of datagrams is kept
    }
    const int32_t index = push_item(packet, p);
    Item& item = items_.back();
    item.hash = hash;
    item.closed = alone;
    if (alone && p.proto == kProtoTcp) return;
    item.payload = item.gso_size = alone ? 0 : p.payload_len();
    item.seq = p.proto == kProtoTcp ? load_be32(packet.data() + p.ip_len + 4) : 0;
    item.psh = (p.tcp_flags & kTcpPsh) != 0;
    item.next_in_bucket = head;
    head = index;
}

void Coalescer::finish_head(const Item& item, VnetHdr& vnet) {
    uint8_t* ip = item.head.data();
    uint8_t* l4 = ip + item.ip_len;
    const bool tcp = item.proto == kProtoTcp;
    const uint32_t l4_bytes = item.l4_len + item.payload;
    vnet.flags = VnetHdr::kNeedsCsum;
    vnet.gso_type = !tcp ? VnetHdr::kUdpL4 : item.version == 4 ? VnetHdr::kTcpV4 : VnetHdr::kTcpV6;
    vnet.hdr_len = static_cast<uint16_t>(item.ip_len + item.l4_len);
    vnet.gso_size = static_cast<uint16_t>(item.gso_size);
    vnet.csum_start = item.ip_len;
    vnet.csum_offset = tcp ? 16 : 6;
    if (item.version == 4) {
        store_be16(ip + 2, static_cast<uint16_t>(item.ip_len + l4_bytes));
        fix_ipv4_checksum(ip, item.ip_len);
    } else {
        store_be16(ip + 4, static_cast<uint16_t>(l4_bytes));
    }
    if (tcp) {
        if (item.psh) l4[13] = static_cast<uint8_t>(l4[13] | kTcpPsh);
    } else {
        store_be16(l4 + 4, static_cast<uint16_t>(l4_bytes));
    }
    store_be16(l4 + vnet.csum_offset, sum_fold(pseudo_sum(ip, item.version, item.proto, l4_bytes)));
}

std::span<const TunWrite> Coalescer::take() {
    if (taken_ || packets_ == 0) return {};
    taken_ = true;
    packets_ = 0;
    pieces_.clear();
    writes_.clear();
    pieces_.resize(items_.size() + chain_.size());
    size_t n = 0;
    for (const Item& item : items_) {
        const size_t start = n;
        pieces_[n++] = item.head;
        for (int32_t c = item.first; c != kNone; c = chain_[static_cast<size_t>(c)].next)
            pieces_[n++] = chain_[static_cast<size_t>(c)].payload;
        TunWrite w;
        if (item.merged > 0) finish_head(item, w.vnet);
        w.pieces = {pieces_.data() + start, n - start};
        writes_.push_back(w);
    }
    return writes_;
}

}  // namespace mesh::netstack
