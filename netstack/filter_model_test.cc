// SPDX-License-Identifier: BSD-3-Clause
// The filter against a second one, written from the rules and the RFCs alone: slow, plain, on bytes, sharing nothing with
// packet.cc and filter.cc but the values that go in. Random policies and packets: fragments, IPv6 extension headers, ICMP
// errors, IPv4 options of all lengths, packets cut off anywhere.

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "base/random.h"
#include "netstack/filter.h"
#include "netstack/test_packets.h"

namespace mesh::netstack {
namespace {

// ---- the reference: what a packet is -------------------------------------------------------------------------------------

/// Read as RFC 791, 8200, 9293, 768, 9260, 792 and 4443 have it.
struct Seen {
    bool is_ip = false;
    bool v4 = false;
    Addr src, dst;
    int proto = 0;           // 0: not understood
    bool later = false;      // a fragment without the transport header
    int sport = 0, dport = 0;
    bool opens = false;      // TCP: SYN without ACK
    bool icmp_answer = false;  // echo reply or error
    bool operator==(const Seen&) const = default;
};

int u16(ByteSpan b, size_t at) { return b[at] * 256 + b[at + 1]; }

void see_transport(ByteSpan t, bool first_fragment, Seen& s) {
    static const std::map<int, size_t> kShortest{{6, 20}, {17, 8}, {132, 12}, {1, 4}, {58, 4}};
    const auto shortest = kShortest.find(s.proto);
    if (shortest == kShortest.end()) return;
    const int proto = s.proto;
    s.proto = 0;
    if (t.size() < shortest->second) return;
    if (proto == 6) {
        const size_t header = size_t{t[12]} / 16 * 4;
        if (header < 20 || (header > t.size() && !first_fragment)) return;
        s.opens = (t[13] & 2) != 0 && (t[13] & 16) == 0;
    }
    s.proto = proto;
    if (proto == 6 || proto == 17 || proto == 132) {
        s.sport = u16(t, 0);
        s.dport = u16(t, 2);
    } else if (t.size() >= 8) {
        static const std::set<int> kErrors4{3, 11, 12}, kErrors6{1, 2, 3, 4};
        const int type = t[0], code = t[1];
        if (proto == 1 && s.v4) s.icmp_answer = (type == 0 && code == 0) || kErrors4.contains(type);
        if (proto == 58 && !s.v4) s.icmp_answer = (type == 129 && code == 0) || kErrors6.contains(type);
    }
}

void see_part(int offset, bool more, ByteSpan t, Seen& s) {
    if (offset == 0) return see_transport(t, more, s);
    s.later = true;
    if (offset * 8 < 80) s.proto = 0;  // could overwrite the headers that were judged
}

Seen see(ByteSpan b) {
    Seen s;
    if (b.empty()) return s;
    if (b[0] / 16 == 4) {
        if (b.size() < 20) return s;
        const size_t header = size_t{b[0]} % 16 * 4, total = static_cast<size_t>(u16(b, 2));
        if (header < 20 || header > total || total > b.size()) return s;
        s = {.is_ip = true, .v4 = true, .src = Addr::v4(b[12], b[13], b[14], b[15]), .dst = Addr::v4(b[16], b[17], b[18], b[19]), .proto = b[9]};
        see_part(u16(b, 6) % 8192, (b[6] & 0x20) != 0, b.subspan(header, total - header), s);
    } else if (b[0] / 16 == 6) {
        if (b.size() < 40 || 40 + static_cast<size_t>(u16(b, 4)) > b.size()) return s;
        s = {.is_ip = true, .v4 = false, .src = Addr::v6_bytes(&b[8], false), .dst = Addr::v6_bytes(&b[24], false), .proto = b[6]};
        ByteSpan rest = b.subspan(40, static_cast<size_t>(u16(b, 4)));
        int offset = 0;
        bool more = false;
        if (s.proto == 44 && rest.size() >= 8) {
            s.proto = rest[0];
            offset = u16(rest, 2) / 8;
            more = rest[3] % 2 == 1;
            rest = rest.subspan(8);
        }
        // Everything but one Fragment header directly behind the IPv6 header is more than this filter judges.
        static const std::set<int> kExtensions{0, 43, 44, 51, 60, 135, 139, 140};
        if (kExtensions.contains(s.proto)) s.proto = 0;
        see_part(offset, more, rest, s);
    }
    return s;
}

// ---- the reference: what may pass ----------------------------------------------------------------------------------------

struct Model {
    std::vector<FilterRule> rules;
    std::vector<Prefix> local;
    bool exit4 = false, shields_up = false;
    std::set<std::tuple<Addr, Addr, int, int, int, bool>> flows;  // as the answer will look

    static bool any(const std::vector<Prefix>& list, const Addr& a) {
        bool hit = false;
        for (const Prefix& p : list) hit = hit || p.contains(a);
        return hit;
    }
    [[nodiscard]] bool ours(const Addr& a) const { return any(local, a) || (exit4 && a.is_v4() && !any(exit_node_exceptions(), a)); }

    static Verdict gate(const Seen& s) {
        if (s.proto == 0) return Verdict::kUnknownProto;
        if (s.dst.is_v4() ? s.dst.bytes()[0] / 16 == 14 : s.dst.bytes()[0] == 0xff) return Verdict::kMulticast;
        const bool link_local = s.dst.is_v4() ? s.dst.bytes()[0] == 169 && s.dst.bytes()[1] == 254
                                              : s.dst.bytes()[0] == 0xfe && s.dst.bytes()[1] / 64 == 2;
        return link_local && s.dst != Addr::v4(169, 254, 169, 254) ? Verdict::kLinkLocal : Verdict::kAccept;
    }
    Verdict out(const Seen& s, bool jailed) {
        const Verdict v = gate(s);
        if (v == Verdict::kAccept && !s.later && (s.proto == 17 || s.proto == 132))
            flows.insert({s.dst, s.src, s.dport, s.sport, s.proto, jailed});
        return v;
    }
    [[nodiscard]] Verdict in(const Seen& s, bool jailed) const {
        const Verdict v = gate(s);
        if (v != Verdict::kAccept || s.later) return v;
        if (!ours(s.dst)) return Verdict::kNotLocal;
        return passes(s, jailed) ? Verdict::kAccept : Verdict::kNoRule;
    }
    [[nodiscard]] bool passes(const Seen& s, bool jailed) const {
        const bool icmp = s.proto == (s.v4 ? 1 : 58);
        const bool ports = s.proto == 6 || s.proto == 17 || s.proto == 132;
        if (icmp && s.icmp_answer) return true;
        if (s.proto == 6 && !s.opens) return true;
        if (s.proto == 99) return true;
        if ((s.proto == 17 || s.proto == 132) && flows.contains({s.src, s.dst, s.sport, s.dport, s.proto, jailed})) return true;
        if (jailed || shields_up) return false;
        for (const FilterRule& r : rules) {
            const std::set<int> protos = r.protos.empty() ? std::set<int>{6, 17, 1, 58} : std::set<int>(r.protos.begin(), r.protos.end());
            if (!any(r.src, s.src)) continue;
            for (const DstMatch& d : r.dst) {
                if (!d.prefix.contains(s.dst)) continue;
                if (icmp) return true;  // addresses alone decide
                if (!protos.contains(s.proto)) continue;
                if (ports ? d.ports.first <= s.dport && s.dport <= d.ports.last : d.ports.first == 0 && d.ports.last == 65535) return true;
            }
        }
        return false;
    }
};

// ---- random policies and packets -------------------------------------------------------------------------------------------

constexpr std::array<std::string_view, 11> kAddr4{"100.64.0.1", "100.64.0.2", "100.64.0.3", "192.168.5.7", "8.8.8.8", "10.1.2.3", "100.64.0.1",
                                                  "100.64.0.2", "224.0.0.251", "169.254.1.1", "169.254.169.254"};
constexpr std::array<std::string_view, 8> kAddr6{"fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::3", "2001:db8::1",
                                                 "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", "fe80::1",           "ff02::1"};
constexpr std::array<std::string_view, 11> kSets{"*", "100.64.0.2", "100.64.0.0/10", "100.64.0.1-100.64.0.2", "192.168.5.0/24", "8.0.0.0/6",
                                                 "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::1", "2001:db8::/32", "100.64.0.1"};
constexpr std::array<std::string_view, 7> kLocals{"100.64.0.1/32", "fd7a:115c:a1e0::1/128", "192.168.5.0/24", "2001:db8::/32", "10.1.0.0/16",
                                                  "128.0.0.0/1", "169.254.0.0/16"};
constexpr std::array<uint16_t, 6> kPorts{0, 22, 53, 80, 443, 65535};
constexpr std::array<uint8_t, 14> kProtos{6, 6, 6, 17, 17, 17, 1, 58, 1, 58, 132, 99, 47, 0};
constexpr std::array<uint8_t, 11> kFlags{2, 2, 2, 0x12, 0x10, 0x18, 0x04, 0x11, 0, 0x42, 0xC2};
constexpr std::array<uint8_t, 10> kExtensions{0, 43, 51, 60, 135, 139, 140, 44, 59, 253};

class Source {
   public:
    explicit Source(uint64_t seed) : random(seed) {}
    SeededRandom random;

    template <class List>
    auto pick(const List& list) { return list[random.below(static_cast<uint32_t>(list.size()))]; }
    bool once_in(uint32_t n) { return random.below(n) == 0; }
    uint8_t byte() { return static_cast<uint8_t>(random.below(256)); }

    Model policy(LocalSet& set) {
        Model m;
        m.exit4 = once_in(4);
        m.shields_up = once_in(6);
        for (uint32_t i = 0, n = 1 + random.below(4); i < n; ++i) m.local.push_back(*Prefix::parse(pick(kLocals)));
        set.prefixes = m.local;
        if (m.exit4) {
            set.prefixes.push_back(*Prefix::parse("0.0.0.0/0"));
            set.except = exit_node_exceptions();
        }
        for (uint32_t i = 0, n = random.below(5); i < n; ++i) {
            FilterRule r;
            for (uint32_t k = 0, c = 1 + random.below(9); k < c; ++k) EXPECT_TRUE(parse_source(pick(kSets), r));
            std::vector<Prefix> dsts;
            for (uint32_t k = 0, c = 1 + random.below(2); k < c; ++k) EXPECT_TRUE(parse_ip_set(pick(kSets), dsts));
            for (const Prefix& d : dsts) {
                PortRange ports;
                if (once_in(2)) ports = {pick(kPorts), pick(kPorts)};
                if (ports.first > ports.last) std::swap(ports.first, ports.last);
                r.dst.push_back({d, ports});
            }
            for (uint32_t k = 0, c = once_in(2) ? 0 : 1 + random.below(3); k < c; ++k) r.protos.push_back(pick(kProtos));
            m.rules.push_back(r);
        }
        return m;
    }

    Bytes packet() {
        const bool v4 = random.below(3) != 0;
        const uint8_t proto = once_in(40) ? byte() : pick(kProtos);
        Bytes t = transport(proto);
        if (once_in(8)) t.resize(random.below(static_cast<uint32_t>(t.size()) + 1));  // cut off, and the lengths agree
        Bytes p = v4 ? ip4(proto, t) : ip6(proto, t);
        if (once_in(12)) p.resize(random.below(static_cast<uint32_t>(p.size()) + 1));  // cut off, and the lengths do not
        if (once_in(4)) p.resize(p.size() + random.below(16));                         // padding of WireGuard
        if (once_in(30) && !p.empty()) p[random.below(static_cast<uint32_t>(std::min<size_t>(p.size(), 64)))] = byte();
        return p;
    }

   private:
    Bytes transport(uint8_t proto) {
        Bytes t;
        WireWriter w(t);
        if (proto == 1 || proto == 58) {
            w.u8(static_cast<uint8_t>(once_in(3) ? 126 + random.below(6) : random.below(14)));
            w.u8(static_cast<uint8_t>(once_in(5)));
            w.zeros(6);
            if (once_in(2)) {  // as in an error: the packet that caused it
                const Bytes inner = ip4(17, Bytes(8, 1));
                w.bytes(inner);
            }
            return t;
        }
        w.be16(pick(kPorts));
        w.be16(pick(kPorts));
        w.zeros(8);
        if (proto == 6) {
            w.u8(once_in(6) ? byte() : uint8_t{0x50});
            w.u8(pick(kFlags));
            w.zeros(6);
        }
        w.zeros(random.below(48));
        return t;
    }
    Bytes ip4(uint8_t proto, const Bytes& t) {
        const uint32_t options = once_in(2) ? 0 : random.below(11) * 4;  // all lengths there are
        unsigned fragment = 0;
        if (once_in(6)) {
            constexpr std::array<unsigned, 6> kOffsets{0, 1, 9, 10, 200, 8191};
            fragment = pick(kOffsets) | (once_in(2) ? 0x2000U : 0U);
        }
        Bytes p;
        WireWriter w(p);
        const size_t header = 20 + options;
        w.u8(static_cast<uint8_t>(0x40 | (once_in(60) ? random.below(16) : header / 4)));
        w.u8(0);
        w.be16(static_cast<uint16_t>(once_in(60) ? random.below(200) : header + t.size()));
        w.be16(7);
        w.be16(static_cast<uint16_t>(fragment));
        w.u8(64);
        w.u8(proto);
        w.be16(0);
        w.bytes(Addr::parse(pick(kAddr4))->bytes());
        w.bytes(Addr::parse(pick(kAddr4))->bytes());
        for (uint32_t i = 0; i < options; ++i) w.u8(byte());
        w.bytes(t);
        return p;
    }
    Bytes ip6(uint8_t proto, const Bytes& t) {
        // A chain of extension headers, each 8 bytes long here.
        std::vector<uint8_t> chain;
        if (once_in(3)) chain.push_back(44);
        while (once_in(4)) chain.push_back(pick(kExtensions));
        Bytes p;
        WireWriter w(p);
        w.be32(0x60000000U);
        w.be16(static_cast<uint16_t>(once_in(60) ? random.below(200) : chain.size() * 8 + t.size()));
        w.u8(chain.empty() ? proto : chain[0]);
        w.u8(64);
        w.bytes(Addr::parse(pick(kAddr6))->bytes());
        w.bytes(Addr::parse(pick(kAddr6))->bytes());
        for (size_t i = 0; i < chain.size(); ++i) {
            constexpr std::array<unsigned, 6> kOffsets{0, 0, 1, 9, 10, 8191};
            w.u8(i + 1 < chain.size() ? chain[i + 1] : proto);
            w.u8(0);
            w.be16(static_cast<uint16_t>(chain[i] == 44 ? pick(kOffsets) << 3 | random.below(2) : 0));
            w.be32(0);
        }
        w.bytes(t);
        return p;
    }
};

std::string describe(const Bytes& packet) { return std::to_string(packet.size()) + " bytes: " + hex_encode(packet); }

TEST(FilterModel, AgreesOnRandomPoliciesAndPackets) {
    const char* full = std::getenv("MESH_FULL");
    const size_t wanted = full != nullptr && *full != '\0' ? 1'000'000 : 200'000;
    const uint64_t seed = std::random_device{}();
    std::cout << "seed " << seed << ", " << wanted << " pairs\n";
    SCOPED_TRACE("seed " + std::to_string(seed));
    Source source(seed);

    std::map<Verdict, size_t> verdicts;
    size_t not_ip = 0, later = 0, icmp_answers = 0, not_understood = 0, options = 0;
    for (size_t pairs = 0; pairs < wanted;) {
        LocalSet local;
        Model m = source.policy(local);
        const FilterTable table(m.rules, local, m.shields_up);
        Filter filter(source.random.u64());
        for (int i = 0; i < 200; ++i, ++pairs) {
            const Bytes packet = source.packet();
            const Seen s = see(packet);
            Parsed p;
            ASSERT_EQ(parse(packet, p), s.is_ip) << describe(packet);
            if (!s.is_ip) {
                ++not_ip;
                continue;
            }
            const bool jailed = source.once_in(5), outbound = source.once_in(3);
            const Trust trust = jailed ? Trust::kJailed : Trust::kNormal;
            const Verdict want = outbound ? m.out(s, jailed) : m.in(s, jailed);
            const Verdict got = outbound ? filter.check_out(p, trust) : filter.check_in(table, p, trust);
            ASSERT_EQ(got, want) << (outbound ? "out " : "in ") << (jailed ? "jailed " : "") << describe(packet);
            ++verdicts[got];
            later += s.later ? 1 : 0;
            icmp_answers += s.icmp_answer ? 1 : 0;
            not_understood += s.proto == 0 ? 1 : 0;
            options += s.v4 && (packet[0] & 0x0f) > 5 ? 1U : 0U;
        }
    }
    // All that is named above did come up, and often.
    for (const Verdict v : {Verdict::kAccept, Verdict::kUnknownProto, Verdict::kMulticast, Verdict::kLinkLocal, Verdict::kNotLocal, Verdict::kNoRule})
        EXPECT_GT(verdicts[v], wanted / 60) << static_cast<int>(v);
    for (const size_t n : {not_ip, later, icmp_answers, not_understood, options}) EXPECT_GT(n, wanted / 100);
}

}  // namespace
}  // namespace mesh::netstack
