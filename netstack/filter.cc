// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/filter.h"

#include <algorithm>
#include <array>
#include <bit>

namespace mesh::netstack {

namespace {

Prefix prefix(const char* text) { return *Prefix::parse(text); }

bool is_stateful(uint8_t proto) { return proto == kProtoUdp || proto == kProtoSctp; }

uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15ULL;
    return h ^ (h >> 29);
}

uint64_t mix(uint64_t h, const Addr& a) {
    const ByteSpan b = a.bytes();
    if (b.size() == 4) return mix(h, load_be32(b.data()));
    if (b.size() == 16) return mix(mix(h, load_be64(b.data())), load_be64(b.data() + 8));
    return h;
}

}  // namespace

std::vector<Prefix> exit_node_exceptions() {
    std::vector<Prefix> out;
    for (const char* text : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/4", "100.64.0.0/10",
                             "fe80::/10", "ff00::/8", "fd7a:115c:a1e0::/48"})
        out.push_back(prefix(text));
    return out;
}

FilterTable::FilterTable(std::span<const FilterRule> rules, const LocalSet& local, bool shields_up, const CapLookup& caps)
    : shields_up_(shields_up) {
    for (const Prefix& p : local.prefixes) {
        if (p.is_default()) {
            (p.addr.is_v4() ? internet4_ : internet6_) = true;
        } else {
            local_.insert(p, 1);
        }
    }
    for (const Prefix& p : local.except) except_.insert(p, 1);
    if (shields_up) return;
    for (const FilterRule& rule : rules) {
        if (rule.dst.empty()) continue;
        Row row;
        std::vector<Prefix> src = rule.src;
        for (const std::string& cap : rule.src_caps) {
            if (!caps) break;
            const std::vector<Prefix> holders = caps(cap);
            src.insert(src.end(), holders.begin(), holders.end());
        }
        row.src = PrefixSet(src);
        if (row.src.empty()) continue;
        if (rule.protos.empty()) {
            for (const uint8_t proto : {kProtoTcp, kProtoUdp, kProtoIcmp4, kProtoIcmp6}) row.protos.set(proto);
        }
        for (const uint8_t proto : rule.protos) row.protos.set(proto);
        for (DstMatch d : rule.dst) {
            if (!d.prefix.is_valid()) continue;
            d.prefix = d.prefix.masked();
            row.dst.push_back(d);
        }
        rows_.push_back(std::move(row));
    }
}

bool FilterTable::is_local(const Addr& a) const {
    if (local_.find(a) != nullptr) return true;
    return (a.is_v4() ? internet4_ : internet6_) && except_.find(a) == nullptr;
}

bool FilterTable::allows(const Parsed& p) const {
    for (const Row& row : rows_) {
        if (!row.protos.test(p.proto)) continue;
        // Few destinations, possibly thousands of sources: destinations first.
        const bool hit = std::any_of(row.dst.begin(), row.dst.end(), [&](const DstMatch& d) {
            return d.ports.contains(p.dst_port) && d.prefix.contains(p.dst);
        });
        if (hit && row.src.contains(p.src)) return true;
    }
    return false;
}

bool FilterTable::allows_addresses(const Parsed& p) const {
    for (const Row& row : rows_) {
        const bool hit = std::any_of(row.dst.begin(), row.dst.end(),
                                     [&](const DstMatch& d) { return d.prefix.contains(p.dst); });
        if (hit && row.src.contains(p.src)) return true;
    }
    return false;
}

bool FilterTable::allows_all_ports(const Parsed& p) const {
    for (const Row& row : rows_) {
        if (!row.protos.test(p.proto)) continue;
        const bool hit = std::any_of(row.dst.begin(), row.dst.end(), [&](const DstMatch& d) {
            return d.ports.is_all() && d.prefix.contains(p.dst);
        });
        if (hit && row.src.contains(p.src)) return true;
    }
    return false;
}

FlowTable::FlowTable(size_t capacity, uint64_t hash_seed)
    : seed_(hash_seed), nodes_(std::max<size_t>(capacity, 1)), buckets_(std::bit_ceil(nodes_.size()), kNil) {}

size_t FlowTable::bucket_of(const Key& key) const {
    uint64_t h = mix(mix(seed_, key.src), key.dst);
    h = mix(h, (uint64_t{key.src_port} << 24) | (uint64_t{key.dst_port} << 8) | key.proto);
    return static_cast<size_t>(h >> 20) & (buckets_.size() - 1);
}

uint32_t FlowTable::find(const Key& key) const {
    uint32_t n = buckets_[bucket_of(key)];
    while (n != kNil && nodes_[n].key != key) n = nodes_[n].bucket_next;
    return n;
}

void FlowTable::unlink(uint32_t n) {
    const Node& node = nodes_[n];
    (node.older == kNil ? oldest_ : nodes_[node.older].newer) = node.newer;
    (node.newer == kNil ? newest_ : nodes_[node.newer].older) = node.older;
}

void FlowTable::push_newest(uint32_t n) {
    nodes_[n].older = newest_;
    nodes_[n].newer = kNil;
    (newest_ == kNil ? oldest_ : nodes_[newest_].newer) = n;
    newest_ = n;
}

void FlowTable::drop_from_bucket(uint32_t n) {
    uint32_t* link = &buckets_[bucket_of(nodes_[n].key)];
    while (*link != n) link = &nodes_[*link].bucket_next;
    *link = nodes_[n].bucket_next;
}

bool FlowTable::touch(const Key& key) {
    if (used_ == 0) return false;
    const uint32_t n = find(key);
    if (n == kNil) return false;
    if (n != newest_) {
        unlink(n);
        push_newest(n);
    }
    return true;
}

void FlowTable::insert(const Key& key) {
    if (touch(key)) return;
    uint32_t n = used_;
    if (used_ < nodes_.size()) {
        ++used_;
    } else {
        n = oldest_;
        unlink(n);
        drop_from_bucket(n);
    }
    nodes_[n].key = key;
    uint32_t& bucket = buckets_[bucket_of(key)];
    nodes_[n].bucket_next = bucket;
    bucket = n;
    push_newest(n);
}

void FlowTable::clear() {
    std::fill(buckets_.begin(), buckets_.end(), kNil);
    used_ = 0;
    newest_ = oldest_ = kNil;
}

Filter::Filter(uint64_t hash_seed) : normal_(kFlows, hash_seed), jailed_(kFlows / 4, hash_seed) {}

Verdict Filter::pre(const Parsed& p, bool& decided) {
    decided = true;
    if (p.proto == kProtoUnknown) return Verdict::kUnknownProto;
    if (p.dst.is_multicast()) return Verdict::kMulticast;
    // The cloud metadata address is link-local by name only: it is reached through routers.
    if (p.dst.is_link_local() && p.dst != Addr::v4(169, 254, 169, 254)) return Verdict::kLinkLocal;
    decided = p.fragment == Fragment::kLater;
    return Verdict::kAccept;
}

Verdict Filter::check_in(const FilterTable& table, const Parsed& p, Trust trust) {
    bool decided = false;
    const Verdict early = pre(p, decided);
    if (decided) return early;
    if (!table.is_local(p.dst)) return Verdict::kNotLocal;
    const bool rules = trust == Trust::kNormal;
    bool ok = false;
    if (p.proto == kProtoTcp) {
        ok = !p.is_tcp_syn() || (rules && table.allows(p));
    } else if (is_stateful(p.proto)) {
        FlowTable& flows = trust == Trust::kNormal ? normal_ : jailed_;
        ok = flows.touch({p.src, p.dst, p.src_port, p.dst_port, p.proto}) || (rules && table.allows(p));
    } else if (p.proto == (p.version == 4 ? kProtoIcmp4 : kProtoIcmp6)) {
        ok = p.is_echo_reply() || p.is_icmp_error() || (rules && table.allows_addresses(p));
    } else if (p.proto == kProtoTsmp) {
        ok = true;
    } else {
        ok = rules && table.allows_all_ports(p);
    }
    return ok ? Verdict::kAccept : Verdict::kNoRule;
}

Verdict Filter::check_out(const Parsed& p, Trust trust) {
    bool decided = false;
    const Verdict early = pre(p, decided);
    if (decided || !is_stateful(p.proto)) return early;
    const FlowTable::Key key{p.dst, p.src, p.dst_port, p.src_port, p.proto};
    if (key == last_out_ && trust == last_trust_) return Verdict::kAccept;
    (trust == Trust::kNormal ? normal_ : jailed_).insert(key);
    last_out_ = key;
    last_trust_ = trust;
    return Verdict::kAccept;
}

void Filter::table_changed(const FilterTable& before, const FilterTable& after) {
    if (before.shields_up() || !after.shields_up()) return;
    normal_.clear();
    last_out_ = {};
}

}  // namespace mesh::netstack
