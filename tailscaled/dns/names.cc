// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace mesh::dns {

namespace {

constexpr uint32_t kTtl = 5;           // seconds: names move when nodes do
constexpr uint32_t kNegativeTtl = 10;  // seconds
constexpr size_t kMaxAddrs = 16;
constexpr std::string_view kServiceName = "magicdns.localhost-tailscale-daemon";

/// Questions a system asks by itself to find services in the local network; nothing to be found through a tunnel.
bool is_service_browsing(const Query& q) {
    static constexpr std::array<std::string_view, 5> kFirst{"b", "db", "r", "dr", "lb"};
    const size_t dot = q.name.find('.');
    return dot != std::string::npos && std::find(kFirst.begin(), kFirst.end(), std::string_view(q.name).substr(0, dot)) != kFirst.end() &&
           std::string_view(q.name).substr(dot).starts_with("._dns-sd._udp.");
}

/// "10-1-2-3-via-7": IPv4 10.1.2.3 at site 7 (fd7a:115c:a1e0:b1a::/64, site, IPv4).
std::optional<Addr> parse_via(std::string_view label) {
    constexpr std::string_view kVia = "-via-";
    const size_t at = label.rfind(kVia);
    if (at == std::string_view::npos) return std::nullopt;
    std::string dotted(label.substr(0, at));
    std::replace(dotted.begin(), dotted.end(), '-', '.');
    const auto v4 = Addr::parse(dotted);
    const std::string_view number = label.substr(at + kVia.size());
    uint32_t site = 0;
    const auto [end, ec] = std::from_chars(number.data(), number.data() + number.size(), site);
    if (!v4 || !v4->is_v4() || number.empty() || ec != std::errc() || end != number.data() + number.size()) return std::nullopt;
    std::array<uint8_t, 16> bytes{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0x0b, 0x1a};
    store_be32(bytes.data() + 8, site);
    std::copy_n(v4->bytes().data(), 4, bytes.data() + 12);
    return Addr::v6_bytes(bytes.data(), false);
}

std::optional<Addr> via_address(const NameTable& names, const std::string& name) {
    const size_t dot = name.find('.');
    if (dot != std::string::npos) {
        const std::string_view rest = std::string_view(name).substr(dot + 1);
        const bool known = is_inside(rest, "ts.net") || is_inside(rest, "tailscale.net") || (!names.suffix().empty() && rest == names.suffix());
        if (!known) return std::nullopt;
    }
    return parse_via(std::string_view(name).substr(0, dot));
}

/// What a host has to say to one type of question.
Bytes host_reply(const NameTable& names, const Query& q, const std::vector<Addr>& addrs) {
    switch (q.type) {
        case kTypeA:
        case kTypeAaaa:
        case kTypeAll: {
            Reply reply(q, kNoError, true);
            bool any = false;
            for (const Addr& a : addrs) {
                if (a.is_v4() ? q.type == kTypeAaaa : q.type == kTypeA) continue;
                reply.add_address(a, kTtl);
                any = true;
            }
            const std::string* zone = names.zone_of(q.name);
            if (!any && zone) reply.add_soa(*zone, kNegativeTtl);
            return reply.finish();
        }
        case kTypeNs:
        case kTypeSoa:
        case kTypeAxfr:
        case kTypeHinfo: return Reply(q, kNotImp, true).finish();
        default: return Reply(q, kNoError, true).finish();
    }
}

Bytes no_such_name(const Query& q, std::string_view zone) {
    Reply reply(q, kNxDomain, true);
    reply.add_soa(zone, kNegativeTtl);
    return reply.finish();
}

/// Without a SOA: caches keep it for their own minimum.
Bytes via_reply(const Query& q, const Addr& a) {
    Reply reply(q, kNoError, true);
    if (q.type == kTypeAaaa || q.type == kTypeAll) reply.add_address(a, kTtl);
    return reply.finish();
}

Bytes pointer_reply(const Query& q, std::string_view target) {
    Reply reply(q, kNoError, true);
    Bytes data;
    if ((q.type == kTypePtr || q.type == kTypeAll) && append_name(data, target)) reply.add(kTypePtr, kTtl, data);
    return reply.finish();
}

}  // namespace

void NameTable::add_host(std::string_view name, const Addr& addr) {
    std::vector<Addr>& list = hosts_[canonical(name)];
    if (list.size() < kMaxAddrs && std::find(list.begin(), list.end(), addr) == list.end()) list.push_back(addr);
}

void NameTable::set_host(std::string_view name, std::vector<Addr> addrs) {
    if (addrs.size() > kMaxAddrs) addrs.resize(kMaxAddrs);
    hosts_[canonical(name)] = std::move(addrs);
}

void NameTable::add_reverse(const Addr& addr, std::string_view name) { reverse_.emplace(addr, canonical(name)); }

void NameTable::add_zone(std::string_view zone) {
    if (std::string z = canonical(zone); !z.empty()) zones_.insert(std::move(z));  // the root is never ours
}

const std::vector<Addr>* NameTable::host(std::string_view name) const {
    std::string key(name);
    if (const auto it = hosts_.find(key); it != hosts_.end()) return &it->second;
    if (!suffix_.empty() && !key.empty() && key.find('.') == std::string::npos)
        if (const auto it = hosts_.find(key + "." + suffix_); it != hosts_.end()) return &it->second;
    if (wildcards_.empty()) return nullptr;
    for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.')) {
        key.erase(0, dot + 1);
        if (!wildcards_.contains(key)) continue;
        const auto it = hosts_.find(key);
        return it == hosts_.end() ? nullptr : &it->second;
    }
    return nullptr;
}

const std::string* NameTable::reverse(const Addr& addr) const {
    const auto it = reverse_.find(addr);
    return it == reverse_.end() ? nullptr : &it->second;
}

const std::string* NameTable::zone_of(std::string_view name) const {
    for (std::string rest(name); !rest.empty();) {
        if (const auto it = zones_.find(rest); it != zones_.end()) return &*it;
        const size_t dot = rest.find('.');
        if (dot == std::string::npos) break;
        rest.erase(0, dot + 1);
    }
    return nullptr;
}

Outcome answer(const NameTable& names, ByteSpan query, Bytes& reply) {
    Query q;
    const auto done = [&](Bytes bytes) {
        reply = std::move(bytes);
        return Outcome::kAnswered;
    };
    switch (parse_query(query, q)) {
        case QueryError::kIgnore: return Outcome::kIgnore;
        case QueryError::kFormErr: return done(error_reply(q, kFormErr));
        case QueryError::kNotImp: return done(error_reply(q, kNotImp));
        case QueryError::kNone: break;
    }
    if (q.cls != kClassIn) return names.zone_of(q.name) ? done(error_reply(q, kNotImp)) : Outcome::kForward;
    if (is_inside(q.name, "onion")) return done(Reply(q, kNxDomain, true).finish());
    if (is_service_browsing(q)) return done(error_reply(q, kNxDomain));
    if (q.name == kServiceName) return done(host_reply(names, q, {service_addr_v4(), service_addr_v6()}));
    if (const auto* addrs = names.host(q.name)) return done(host_reply(names, q, *addrs));
    if (const auto via = via_address(names, q.name)) return done(via_reply(q, *via));
    if (const auto addr = parse_reverse(q.name)) {
        if (*addr == service_addr_v4() || *addr == service_addr_v6()) return done(pointer_reply(q, kServiceName));
        if (const std::string* name = names.reverse(*addr)) return done(pointer_reply(q, *name));
    }
    if (const std::string* zone = names.zone_of(q.name)) return done(no_such_name(q, *zone));
    return Outcome::kForward;
}

Bytes fit_udp(ByteSpan query, Bytes reply) {
    Query q;
    if (reply.size() <= kPlainUdpBytes || parse_query(query, q) != QueryError::kNone || reply.size() <= q.udp_limit()) return reply;
    return truncated_reply(q, reply);
}

Bytes failure(ByteSpan query, Rcode rcode) {
    Query q;
    return parse_query(query, q) == QueryError::kIgnore ? Bytes{} : error_reply(q, rcode);
}

}  // namespace mesh::dns
