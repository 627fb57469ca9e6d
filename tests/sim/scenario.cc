// SPDX-License-Identifier: BSD-3-Clause
// Scenarios from seeds.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "tests/sim/world.h"

namespace mesh::sim {
namespace {

// As they are met outside, roughly.
constexpr std::array<NatType, 14> kNats{kEasy, kEasy, kEasy, kEasy, kEasyRandomPort, kEasyRandomPort, kEasyAddress, kHard,
                                        kHard, kHardAddress, kFullCone, kOpen, kFirewall, kBlocked};

// RFC 4787: mapping endpoint-independent, address-dependent, address- and port-dependent; filtering likewise.
constexpr std::array<const char*, 9> kGridNames{"EIM, EIF", "EIM, ADF", "EIM, APDF", "ADM, EIF", "ADM, ADF", "ADM, APDF", "APDM, EIF", "APDM, ADF", "APDM, APDF"};

NatType random_nat(SeededRandom& r) {
    if (r.below(2) == 0) return kNats[r.below(kNats.size())];
    const uint32_t mapping = r.below(3), filtering = r.below(3);
    return {.name = kGridNames[mapping * 3 + filtering],
            .translates = true,
            .mapping = static_cast<Depends>(mapping),
            .filtering = static_cast<Depends>(filtering),
            .preserves_port = r.below(2) == 0};
}

Duration between_ms(SeededRandom& r, uint32_t low, uint32_t high) { return milliseconds(low + r.below(high - low + 1)); }

SiteSpec random_site(SeededRandom& r, bool lossy) {
    SiteSpec s;
    s.v4 = random_nat(r);
    constexpr std::array<int, 5> kExpiry{30, 30, 60, 120, 300};
    s.v4.expiry = seconds(kExpiry[r.below(kExpiry.size())]);
    s.has_v6 = r.below(4) == 0;
    s.v6_filter = r.below(3) == 0 ? Depends::kNothing : Depends::kAddressAndPort;
    s.link.delay = between_ms(r, 1, 60);
    if (r.below(2) == 0) s.link.jitter = between_ms(r, 1, 15);
    if (r.below(3) == 0) s.link.reorder_ppm = r.below(50'000);
    if (r.below(3) == 0) s.link.replay_ppm = r.below(20'000);
    if (r.below(4) == 0) {
        s.link.kbit_per_s = 1'000 + r.below(20'000);
        s.link.queue = 16'384 + r.below(131'072);
    }
    constexpr std::array<size_t, 8> kMtu{1500, 1500, 1492, 1492, 1420, 1360, 1350, 1280};
    s.link.mtu = kMtu[r.below(kMtu.size())];
    if (lossy) {
        s.link.loss_ppm = 2'000 + r.below(25'000);  // each way through each link
        s.link.duplicate_ppm = r.below(10'000);
    }
    return s;
}

void add_flows(SeededRandom& r, Scenario& s) {
    const auto n = static_cast<uint32_t>(s.nodes.size());
    const uint32_t wanted = 1 + r.below(n > 6 ? 12 : 4);
    for (uint32_t i = 0; i < wanted; ++i) {
        const int from = static_cast<int>(r.below(n));
        const int to = static_cast<int>((static_cast<uint32_t>(from) + 1 + r.below(n - 1)) % n);
        // One flow per pair: the checks of two would repeat each other.
        if (std::any_of(s.flows.begin(), s.flows.end(), [&](const FlowSpec& f) { return std::minmax(f.from, f.to) == std::minmax(from, to); }))
            continue;
        s.flows.push_back({.from = from,
                           .to = to,
                           .start = between_ms(r, 0, 8000),
                           .interval = between_ms(r, 50, 400),
                           .size = Node::kMinPing + r.below(1281 - Node::kMinPing)});
    }
}

// Who may not talk to whom, and who pretends to be somebody else.
void add_policy(SeededRandom& r, Scenario& s) {
    const auto n = static_cast<uint32_t>(s.nodes.size());
    const auto any = [&] { return static_cast<int>(r.below(n)); };
    if (r.below(3) == 0)
        for (uint32_t i = 0, count = 1 + r.below(n); i < count; ++i)
            if (const std::pair pair{any(), any()}; pair.first != pair.second) s.forbidden.insert(pair);
    if (n < 3 || r.below(3) != 0) return;
    const int from = any();
    const int to = static_cast<int>((static_cast<uint32_t>(from) + 1) % n), as = static_cast<int>((static_cast<uint32_t>(from) + 2) % n);
    s.flows.push_back({.from = from, .to = to, .start = seconds(6), .interval = milliseconds(900), .as = as});
}

void add_disturbance(SeededRandom& r, Scenario& s) {
    using Kind = Disturbance::Kind;
    Disturbance d{.kind = Kind::kCut, .at = between_ms(r, 18'000, 22'000)};
    const FlowSpec& f = s.flows[r.below(static_cast<uint32_t>(s.flows.size()))];
    const int site = s.nodes[static_cast<size_t>(f.to)].site;
    switch (r.below(10)) {
        case 0:
        case 1:
            d.x = s.nodes[static_cast<size_t>(f.from)].site;
            d.y = site;
            if (d.x == d.y) return;
            d.length = between_ms(r, 1000, 7000);
            break;
        case 2:
            d.kind = Kind::kNatReboot;
            d.x = site;
            break;
        case 3:
            if (!s.sites[static_cast<size_t>(site)].v4.translates) return;
            d.kind = Kind::kRenumber;
            d.x = site;
            break;
        case 4:
        case 5:
            d.kind = r.below(2) == 0 ? Kind::kRestart : Kind::kRestartNewKey;
            d.x = r.below(2) == 0 ? f.from : f.to;
            d.length = between_ms(r, 50, 2000);
            break;
        case 6:
            d.kind = Kind::kRelayRestart;
            d.x = 1 + static_cast<int>(r.below(static_cast<uint32_t>(s.regions)));
            break;
        case 7:
            d.kind = Kind::kPollBreaks;
            d.x = f.from;
            d.length = between_ms(r, 500, 7000);
            break;
        case 8:
            if (s.forbidden.contains({f.from, f.to})) return;
            d.kind = Kind::kDenied;
            d.x = f.from;
            d.y = f.to;
            d.length = between_ms(r, 1000, 7000);
            break;
        default: return;
    }
    s.disturbances.push_back(d);
}

const char* name_of(Disturbance::Kind k) {
    switch (k) {
        case Disturbance::Kind::kCut: return "cut between sites";
        case Disturbance::Kind::kNatReboot: return "NAT reboot of site";
        case Disturbance::Kind::kRenumber: return "new address of site";
        case Disturbance::Kind::kRestart: return "restart of node";
        case Disturbance::Kind::kRestartNewKey: return "restart with new disco key of node";
        case Disturbance::Kind::kRelayRestart: return "restart of relay";
        case Disturbance::Kind::kPollBreaks: return "control lost by node";
        case Disturbance::Kind::kDenied: return "filter refuses packets of node";
    }
    return "";
}

}  // namespace

Scenario random_scenario(uint64_t seed) {
    SeededRandom r(seed * 0x9e3779b97f4a7c15ULL + 1);
    Scenario s;
    s.seed = seed;
    const bool lossy = r.below(3) == 0;
    s.regions = 1 + static_cast<int>(r.below(3));
    const bool large = r.below(8) == 0;
    s.roll_call = true;
    s.length = seconds(46);
    const uint32_t sites = 2 + r.below(large ? 7 : 3);
    for (uint32_t i = 0; i < sites; ++i) s.sites.push_back(random_site(r, lossy));
    const uint32_t nodes = large ? 7 + r.below(14) : 2 + r.below(5);
    for (uint32_t i = 0; i < nodes; ++i)
        s.nodes.push_back({.site = static_cast<int>(i < sites ? i : r.below(sites)), .join = between_ms(r, 0, 4000)});
    s.control_delay = between_ms(r, 50, 1000);
    add_flows(r, s);
    add_policy(r, s);
    add_disturbance(r, s);
    if (lossy)
        for (SiteSpec& site : s.sites)
            if (r.below(2) == 0) site.link.loss_in_ppm = r.below(30'000);
    if (r.below(4) == 0) s.liar = 1 + static_cast<int>(r.below(static_cast<uint32_t>(s.regions)));
    return s;
}

std::string Scenario::describe() const {
    std::string out = fmt::format("seed {}: {} regions, control ≤ {} ms\n", seed, regions, control_delay.millis());
    for (size_t i = 0; i < sites.size(); ++i) {
        const SiteSpec& s = sites[i];
        out += fmt::format("  site {}: {}{}, {} ms + {} ms, loss {:.1f} % out, {:.1f} % in, mapping {} s, {}MTU {}\n", i, s.v4.name,
                           !s.has_v6 ? "" : s.v6_filter == Depends::kNothing ? ", open IPv6" : ", IPv6", s.link.delay.millis(),
                           s.link.jitter.millis(), s.link.loss_ppm / 1e4, (s.link.loss_ppm + s.link.loss_in_ppm) / 1e4, s.v4.expiry.millis() / 1000,
                           s.link.kbit_per_s == 0 ? "" : fmt::format("{} kbit/s, queue {} bytes, ", s.link.kbit_per_s, s.link.queue), s.link.mtu);
    }
    if (liar != 0) out += fmt::format("  the relay of region {} lies\n", liar);
    for (size_t i = 0; i < nodes.size(); ++i) out += fmt::format("  n{} in site {} from {:.1f} s\n", i, nodes[i].site, nodes[i].join.seconds());
    for (const FlowSpec& f : flows)
        out += fmt::format("  n{} pings n{} from {:.1f} s every {} ms, {} bytes{}\n", f.from, f.to, f.start.seconds(), f.interval.millis(), f.size, f.as < 0 ? "" : fmt::format(", as n{}", f.as));
    for (const auto& [from, to] : forbidden) out += fmt::format("  n{} may not reach n{}\n", from, to);
    for (const Disturbance& d : disturbances)
        out += fmt::format("  at {:.1f} s {} {}{}, {:.1f} s\n", d.at.seconds(), name_of(d.kind), d.x,
                           d.kind == Disturbance::Kind::kCut || d.kind == Disturbance::Kind::kDenied ? fmt::format(" and {}", d.y) : "", d.length.seconds());
    return out;
}

}  // namespace mesh::sim
