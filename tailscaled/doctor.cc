// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/doctor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "magicsock/netcheck/format.h"
#include "tailscaled/api/json_text.h"

namespace mesh::daemon {

using Level = Finding::Level;
using netmap::Node;

namespace {

/// A peer that was heard within this time is connected.
constexpr Duration kHeardLately = seconds(20);
/// One that the control server takes for offline may have left since.
constexpr Duration kHeardJustNow = seconds(4);
/// Pings that were not answered so long after the search began will not be.
constexpr Duration kAnswersDue = seconds(2);

std::string region_name(const DoctorInputs& in, int region) {
    const derp::DerpRegion* r = in.derp_map ? in.derp_map->region(region) : nullptr;
    return r == nullptr ? fmt::format("region {}", region) : r->code;
}

/// "udp 203.0.113.7:3478" of the first node that answers STUN, "" if none does.
std::string stun_address(const derp::DerpRegion& region) {
    for (const derp::DerpNode& n : region.nodes)
        if (const auto port = n.effective_stun_port()) return fmt::format("udp {}:{}", n.host_name, *port);
    return "";
}

std::string relay_address(const DoctorInputs& in, int region) {
    const derp::DerpRegion* r = in.derp_map ? in.derp_map->region(region) : nullptr;
    if (r != nullptr)
        for (const derp::DerpNode& n : r->nodes)
            if (!n.stun_only) return fmt::format("tcp {}:{}", n.host_name, n.effective_derp_port());
    return "";
}

/// "3 hours", "90 seconds": the largest unit of which there are two.
std::string span_text(Duration d) {
    const int64_t s = (d.ns < 0 ? -d.ns : d.ns) / 1'000'000'000;
    struct Unit {
        int64_t seconds;
        const char* name;
    };
    for (const Unit u : {Unit{365 * 86400, "years"}, Unit{86400, "days"}, Unit{3600, "hours"}, Unit{60, "minutes"}})
        if (s >= 2 * u.seconds) return fmt::format("{} {}", (s + u.seconds / 2) / u.seconds, u.name);
    return fmt::format("{} seconds", s);
}

std::string latency_text(Duration d) { return netcheck::duration_text(Duration{(d.ns + 50'000) / 100'000 * 100'000}); }

bool stun_answered(const netcheck::Report& r, int region) {
    return r.region_v4_latency.contains(region) || r.region_v6_latency.contains(region);
}

Endpoint own_mapping(const DoctorInputs& in) {
    for (const auto& e : in.status->endpoints)
        if (e.type == magicsock::EndpointType::kStun && e.ep.addr.is_v4()) return e.ep;
    return {};
}

bool is_own_address(const DoctorInputs& in, const Addr& a) {
    return std::any_of(in.status->endpoints.begin(), in.status->endpoints.end(),
                       [&](const auto& e) { return e.type == magicsock::EndpointType::kLocal && e.ep.addr == a; });
}

/// An endpoint that only a host of the same network reaches.
bool is_inside(const Endpoint& e) { return e.addr.is_private() || e.addr.is_link_local(); }

/// Some peer behind a router answers by UDP: whatever STUN says, UDP works.
bool udp_proven(const DoctorInputs& in) {
    for (const auto& [id, p] : in.status->engine->peers)
        if (p.path.cur_addr.is_valid() && !is_inside(p.path.cur_addr)) return true;
    return false;
}

bool udp_blocked(const DoctorInputs& in) {
    return in.report != nullptr && !in.report->udp && (in.report->ipv4_can_send || in.report->ipv6_can_send) && !udp_proven(in);
}

// ---- this host

void examine_control(const DoctorInputs& in, std::vector<Finding>& out) {
    const netmap::NetMap* map = in.status->map;
    if (map != nullptr && map->clock_offset.ns != 0) {
        out.push_back({Level::kProblem, "clock-wrong",
                       fmt::format("The clock of this host is {} {} the control server's.", span_text(map->clock_offset),
                                   map->clock_offset.ns > 0 ? "behind" : "ahead of"),
                       "Set the clock (timedatectl set-ntp true): certificates are judged by it, and peers may refuse handshakes."});
    }
    if (in.control_error.empty()) return;
    const bool date = in.control_error.find("not yet valid") != std::string::npos;
    if (date && (map == nullptr || map->clock_offset.ns == 0))
        out.push_back({Level::kProblem, "clock-wrong", "The control server's certificate is from the future for this host: its clock is probably behind.",
                       "Set the clock (timedatectl set-ntp true)."});
    out.push_back({Level::kProblem, "control-unreachable",
                   fmt::format("The control server {} cannot be used now: {}. Peers that are known already stay reachable, changes do not arrive.",
                               in.control_url, in.control_error),
                   "Check that the server runs and that this host can open its address."});
}

void examine_udp(const DoctorInputs& in, std::vector<Finding>& out) {
    const netcheck::Report& r = *in.report;
    std::vector<std::string> silent;
    std::vector<std::string> works;
    size_t measurable = 0;
    if (in.derp_map != nullptr) {
        for (const auto& [id, region] : in.derp_map->regions) {
            const std::string address = stun_address(region);
            if (address.empty() || region.no_measure_no_home) continue;
            ++measurable;
            const bool answered = stun_answered(r, id);
            if (!answered) silent.push_back(fmt::format("{} ({})", address, region.code));
            if (!answered && (in.live_derps->contains(id) || r.region_latency.contains(id))) works.push_back(region.code);
        }
    }
    const std::string list = fmt::format("{}", fmt::join(silent, ", "));
    if (udp_blocked(in)) {
        const bool tcp = !works.empty();
        out.push_back({Level::kProblem, "udp-blocked",
                       fmt::format("UDP does not get through: {} STUN ({}){}.{}", measurable == 1 ? "the only relay does not answer" : "no relay answers", list,
                                   tcp ? fmt::format(", while TCP to {} works", fmt::join(works, ", ")) : "",
                                   measurable == 1 ? " With a single relay this is either a firewall that drops UDP, or its STUN port is closed." : ""),
                       fmt::format("Let this host send UDP to everywhere and let the answers in (firewall of the host, of the router, of the "
                                   "network's operator){}. Until then everything goes by relay.",
                                   measurable == 1 ? "; open the STUN port at the relay" : "")});
        return;
    }
    if (!r.udp && !r.ipv4_can_send && !r.ipv6_can_send) return;  // no network at all: said elsewhere
    const Endpoint mapping = own_mapping(in);
    if (r.udp)
        out.push_back({Level::kOk, "udp-works",
                       mapping.is_valid() ? fmt::format("UDP works; the internet sees this host as {}.", mapping.str()) : "UDP works.", ""});
    // A full report ends soon after three answers: what was silent then may just be far away.
    if (!silent.empty() && (measurable <= 3 || !r.udp))
        out.push_back({Level::kProblem, "stun-silent",
                       fmt::format("STUN is silent at {}, though UDP works here{}.", list,
                                   works.empty() ? "" : fmt::format(" and TCP to {} works", fmt::join(works, ", "))),
                       "Open that UDP port at the relay (derper -stun, and the firewall in front of it); 3478 unless the relay map says otherwise."});
}

void examine_ipv6(const DoctorInputs& in, std::vector<Finding>& out) {
    const netcheck::Report& r = *in.report;
    if (!r.udp || r.ipv6 || !r.os_has_ipv6 || in.derp_map == nullptr) return;
    std::string asked;
    for (const auto& [id, region] : in.derp_map->regions)
        for (const derp::DerpNode& n : region.nodes)
            if (asked.empty() && n.literal_v6().is_valid() && n.effective_stun_port())
                asked = Endpoint{n.literal_v6(), *n.effective_stun_port()}.str();
    const bool has_address = std::any_of(in.status->endpoints.begin(), in.status->endpoints.end(), [](const auto& e) {
        return e.type == magicsock::EndpointType::kLocal && e.ep.addr.is_v6() && !is_inside(e.ep);
    });
    if (asked.empty() || !has_address) return;
    out.push_back({Level::kProblem, "ipv6-broken",
                   fmt::format("This host has IPv6 addresses, but IPv6 does not work: {} did not answer over it, while IPv4 works.", asked),
                   "Check IPv6 at the router (default route, firewall) or switch it off on this host; programs that try IPv6 first wait in vain."});
}

void examine_relays(const DoctorInputs& in, std::vector<Finding>& out) {
    for (const auto& [region, why] : *in.derp_problems) {
        if (in.live_derps->contains(region)) continue;
        out.push_back({Level::kProblem, "relay-down",
                       fmt::format("The relay {} ({}) cannot be used: {}.", region_name(in, region), relay_address(in, region), why),
                       "Check that derper runs there and that its port is open; 'tailscale netcheck' tells more. Peers without a direct path depend on it."});
    }
    if (in.derp_map == nullptr || in.derp_map->regions.empty())
        out.push_back({Level::kNote, "no-relays", "The control server names no relays.",
                       "Peers behind NATs need one to find each other; see the DERP section of the control server's configuration."});
}

void examine_nat(const DoctorInputs& in, std::vector<Finding>& out) {
    const netcheck::Report& r = *in.report;
    if (r.captive_portal.value_or(false))
        out.push_back({Level::kProblem, "captive-portal", "This network wants a login in a browser first.", "Open any page in a browser and log in."});
    if (r.mapping_varies_by_dest_ip.value_or(false))
        out.push_back({Level::kNote, "nat-hard", "The router uses another port towards each destination (hard or symmetric NAT): peers cannot be told where to knock.",
                       fmt::format("Switch on UPnP or NAT-PMP, forward UDP port {} to this host, or get IPv6; otherwise direct paths work only with peers "
                                   "that are not behind a NAT.", in.port)});
    for (const portmap::Note& n : in.port_mapping) {
        using Kind = portmap::Note::Kind;
        if (n.kind == Kind::kWrongGateway)
            out.push_back({Level::kNote, "port-mapping-wrong-gateway", n.text, "Switch UPnP or NAT-PMP on at the gateway; at the other device it is of no use."});
        else if (n.kind == Kind::kRefused)
            out.push_back({Level::kNote, "port-mapping-refused", n.text, ""});
    }
    Endpoint forwarded;
    for (const auto& e : in.status->endpoints)
        if (e.type == magicsock::EndpointType::kPortmapped) forwarded = e.ep;
    if (forwarded.is_valid() && r.global_v4.is_valid() && forwarded.addr != r.global_v4.addr)
        out.push_back({Level::kProblem, "double-nat",
                       fmt::format("The router opened port {} at {}, but the internet sees this host as {}: there is a second router or the provider's "
                                   "NAT in front of it, and the forwarded port is of no use.",
                                   forwarded.port, forwarded.addr.str(), r.global_v4.addr.str()),
                       "Put the first router into bridge mode, or forward the port at both."});
}

// ---- a peer

struct NatFacts {
    std::optional<bool> hard;  ///< another port for each destination
    std::optional<bool> udp;
};

NatFacts own_nat(const DoctorInputs& in) {
    NatFacts f;
    if (in.report == nullptr) return f;
    f.hard = in.report->mapping_varies_by_dest_ip;
    f.udp = in.report->udp || udp_proven(in);
    return f;
}

/// What the peer tells of itself, as far as the control server passes it on; else what its list of endpoints shows.
NatFacts peer_nat(const DoctorInputs& in, const Node& node, const magicsock::PeerPathStatus& path) {
    NatFacts f;
    if (node.hostinfo) {
        if (const auto j = json::parse(node.hostinfo->json)) {
            if (const Json* net = json::find(*j, "NetInfo"); net != nullptr && net->is_object()) {
                const auto tri = [&](const char* key) -> std::optional<bool> {
                    const Json* v = json::find(*net, key);
                    return v != nullptr && v->is_boolean() ? std::optional(v->get<bool>()) : std::nullopt;
                };
                f.hard = tri("MappingVariesByDestIP");
                f.udp = tri("WorkingUDP");
            }
        }
    }
    // Nodes behind such a NAT advertise what STUN saw and a guess: one address with two ports.
    std::map<Addr, std::set<uint16_t>> ports;
    bool outside = false;
    // Where the internet itself has private addresses (a company, a lab), what looks like our own mapping is outside.
    const Endpoint own = own_mapping(in);
    const auto is_outside = [&](const Endpoint& e) {
        return !is_inside(e) || (own.is_valid() && e.addr.is_v4() && Prefix{own.addr, 16}.masked().contains(e.addr));
    };
    for (const auto& c : path.candidates) {
        if (!c.from_netmap && !c.from_call_me_maybe) continue;
        if (c.ep.addr.is_v4()) ports[c.ep.addr].insert(c.ep.port);
        outside = outside || is_outside(c.ep);
    }
    if (!f.hard && std::any_of(ports.begin(), ports.end(), [](const auto& p) { return p.second.size() > 1; })) f.hard = true;
    if (!f.udp && !outside && !path.candidates.empty() && own.is_valid()) f.udp = false;
    return f;
}

struct Tried {
    std::string list;       ///< addresses pinged, some of them
    size_t addresses = 0;
    uint32_t pings = 0;
    bool decided = false;   ///< some ping had the time to be answered
    bool v6 = false;
    std::string came_from;  ///< where pings of the peer came from, unanswered ours
};

Tried what_was_tried(const magicsock::PeerPathStatus& path, Time now) {
    Tried t;
    const bool a_while = !path.events.empty() && now - path.events.front().at >= kAnswersDue;
    for (const auto& c : path.candidates) {
        if (c.pings == 0) continue;
        if (t.addresses++ < 3) t.list += (t.list.empty() ? "" : ", ") + c.ep.str();
        t.pings += c.pings;
        t.decided = t.decided || c.recent > 0 || (a_while && c.pings > 1);
        t.v6 = t.v6 || (c.ep.addr.is_v6() && !is_inside(c.ep));
    }
    if (t.addresses > 3) t.list += fmt::format(" and {} more", t.addresses - 3);
    for (const auto& e : path.events)
        if (e.kind == magicsock::PathEvent::Kind::kPingReceived) t.came_from = e.ep.str();
    return t;
}

/// Where the peer answers, but only small packets get there; null if nowhere.
const magicsock::CandidateStatus* too_small_path(const magicsock::PeerPathStatus& path, Time now) {
    for (const auto& c : path.candidates)
        if (c.size == magicsock::PathSize::Verdict::kTooSmall && now - c.last_pong < kHeardLately) return &c;
    return nullptr;
}

Finding why_not_direct(const DoctorInputs& in, const Node& node, const magicsock::PeerPathStatus& path) {
    const std::string name(node.host_label());
    const NatFacts own = own_nat(in);
    const NatFacts theirs = peer_nat(in, node, path);
    const Tried tried = what_was_tried(path, in.status->now);
    const std::string ways = fmt::format("UPnP or NAT-PMP in the router, a forwarded UDP port (here {}), or IPv6 on both sides", in.port);
    const std::string six = tried.v6 && in.report != nullptr && in.report->ipv6 ? " IPv6, which both have, does not get through either." : "";

    if (node.wireguard_only || node.disco_key.is_zero())
        return {Level::kNote, "no-disco", fmt::format("{} does not speak the protocol by which direct paths are found.", name), ""};
    if (const auto* c = too_small_path(path, in.status->now))
        return {Level::kProblem, "path-mtu",
                fmt::format("{} answers directly at {}, but on the way there packets of full size ({} bytes) get lost without a word; {} bytes arrive. So that "
                            "downloads do not hang, nothing but pings takes that path.",
                            name, c->ep.str(), c->full, c->carries),
                "Some link on the way is narrower than it says (PPPoE, another VPN, mobile network). Set its MTU right in the routers of both sides, and let ICMP "
                "'fragmentation needed' and ICMPv6 'packet too big' through their firewalls. It is tried again by itself, and at once when tailscaled starts."};
    if (own.udp == false)
        return {Level::kProblem, "no-direct-udp-blocked-here", "No direct path, because UDP does not get out of this network (see above).", "Allow UDP here."};
    if (theirs.udp == false)
        return {Level::kProblem, "no-direct-udp-blocked-there",
                fmt::format("No direct path, because UDP does not get out of the network of {}.", name), fmt::format("Allow UDP there; run 'tailscale doctor' on {}.", name)};
    if (own.hard == true && theirs.hard == true)
        return {Level::kProblem, "hard-hard",
                fmt::format("No direct path: the routers of both sides use another port towards each destination (hard NAT here and at {}), so neither can be "
                            "told where the other is.{}", name, six),
                fmt::format("One side is enough: {}.", ways)};
    const Endpoint mapping = own_mapping(in);
    if (mapping.is_valid() && !is_own_address(in, mapping.addr))
        for (const auto& c : path.candidates)
            if ((c.from_netmap || c.from_call_me_maybe) && c.ep.addr == mapping.addr && tried.decided)
                return {Level::kProblem, "same-public-address",
                        fmt::format("No direct path: {} is seen under the same public address as this host ({}), but its local addresses do not answer: both are "
                                    "in different networks behind one router, which does not send packets back inside.", name, mapping.addr.str()),
                        "Let the networks reach each other (no guest network or client isolation, one router in bridge mode), or get IPv6."};
    if (own.hard == true || theirs.hard == true)
        return {Level::kProblem, "hard-easy",
                fmt::format("No direct path: the router {} uses another port towards each destination (hard NAT), and the one {} lets only known ones in.{}",
                            own.hard == true ? "here" : "of " + name, own.hard == true ? "of " + name : "here", six),
                fmt::format("One side is enough: {}.", ways)};
    if (path.candidates.empty())
        return {Level::kProblem, "no-endpoints", fmt::format("{} has not said under which addresses it can be reached.", name), fmt::format("Look at {}: is it online, does its UDP work?", name)};
    if (!tried.decided)
        return {Level::kNote, "still-trying", fmt::format("A direct path to {} is being looked for ({} pings sent).", name, tried.pings), "Ask again in some seconds."};
    if (!tried.came_from.empty())
        return {Level::kProblem, "firewall-one-way",
                fmt::format("No direct path: pings of {} arrive here from {}, but ours to {} are not answered. A firewall lets UDP pass in one direction only.", name,
                            tried.came_from, tried.list),
                fmt::format("Allow UDP from this host to everywhere, and at {} to its own UDP port (usually 41641).", name)};
    return {Level::kProblem, "firewall",
            fmt::format("No direct path: UDP works here{}, but none of {} pings to {} was answered and none came from {}. A firewall on one of the two hosts "
                        "or in between drops them.{}{}", own.hard == false ? " and the router would allow it" : "", tried.pings, tried.list, name,
                        own.hard ? "" : " (With a single relay it cannot be told whether the router is the reason.)", six),
            fmt::format("Allow UDP from and to the port of each (here {}) in the firewalls of both hosts and routers.", in.port)};
}

void write_findings(api::JsonText& out, const std::vector<Finding>& list) {
    static constexpr const char* kLevels[] = {"ok", "note", "problem"};
    out.open_array();
    for (const Finding& f : list) {
        out.open_object().field("Level", kLevels[static_cast<size_t>(f.level)]).field("Code", f.code).field("Text", f.text);
        if (!f.advice.empty()) out.field("Do", f.advice);
        out.close_object();
    }
    out.close_array();
}

}  // namespace

std::vector<Finding> examine_host(const DoctorInputs& in) {
    std::vector<Finding> out;
    if (in.status->state == api::State::kStopped || !in.status->prefs->want_running) {
        out.push_back({Level::kProblem, "stopped", "Tailscale is stopped on this host.", "Run 'tailscale up'."});
        return out;
    }
    if (in.status->state == api::State::kNeedsLogin) {
        out.push_back({Level::kProblem, "logged-out", "This host is not logged in.", "Run 'tailscale up'."});
        examine_control(in, out);
        return out;
    }
    // A network without a way out may have all that is needed inside.
    if (!in.have_network || (!in.default_route && in.live_derps->empty()))
        out.push_back({Level::kProblem, "no-network", in.have_network ? "This host has no default route: nothing outside its own network can be reached."
                                                                     : "This host has no network: no interface is up and has an address.",
                       "Check cable, WLAN and the router."});
    examine_control(in, out);
    if (in.report != nullptr) {
        examine_udp(in, out);
        examine_ipv6(in, out);
        examine_nat(in, out);
    }
    examine_relays(in, out);
    return out;
}

PeerDiagnosis examine_peer(const DoctorInputs& in, const Node& node, const PeerSnapshot* peer) {
    PeerDiagnosis out;
    const std::string name(node.host_label());
    const StatusInputs& s = *in.status;
    if (s.map->is_expired(node, s.wall)) {
        out.findings.push_back({Level::kProblem, "key-expired", fmt::format("The key of {} has expired: nobody talks to it.", name),
                                fmt::format("Log in again there ('tailscale up --force-reauth'), or extend its key at the control server.")});
        return out;
    }
    const magicsock::PeerPathStatus none;
    const magicsock::PeerPathStatus& path = peer != nullptr ? peer->path : none;
    if (path.cur_addr.is_valid()) {
        out.path = PeerDiagnosis::Path::kDirect;
        out.findings.push_back({Level::kOk, "direct", fmt::format("{} is reached directly at {}, in {}.", name, path.cur_addr.str(), latency_text(path.latency)), ""});
        return out;
    }
    if (path.via_addr.is_valid()) {
        out.path = PeerDiagnosis::Path::kPeerRelay;
        out.findings.push_back({Level::kNote, "peer-relayed", fmt::format("{} is reached through the peer relay at {}, in {}.", name,
                                magicsock::via_text(path.via_addr, path.via_vni), latency_text(path.via_latency)), ""});
        out.findings.push_back(why_not_direct(in, node, path));
        return out;
    }
    const Time last = max(path.last_receive, path.relay_heard);
    const bool heard = !last.is_zero() && last >= path.relay_gone && s.now - last < (node.online == false ? kHeardJustNow : kHeardLately);
    if (heard) {
        out.path = PeerDiagnosis::Path::kRelay;
        out.findings.push_back({Level::kNote, "relayed", fmt::format("{} is reached by the relay {}.", name, region_name(in, path.relay)), ""});
        out.findings.push_back(why_not_direct(in, node, path));
        return out;
    }
    if (node.online == false) {
        const std::string since = node.last_seen && !node.last_seen->is_zero() ? fmt::format(", for {}", span_text(s.wall + s.map->clock_offset - *node.last_seen)) : "";
        out.findings.push_back({Level::kProblem, "peer-offline", fmt::format("{} is offline: it is not connected to the control server{}, and does not answer.", name, since),
                                "Is it switched on and connected? Does tailscaled run there, and is it up ('tailscale status')?"});
        return out;
    }
    if (const auto it = in.derp_problems->find(path.relay); path.relay != 0 && it != in.derp_problems->end() && !in.live_derps->contains(path.relay))
        out.findings.push_back({Level::kProblem, "no-connection-relay-down",
                                fmt::format("{} cannot be reached: its relay {} ({}) cannot be used ({}), and there is no direct path.", name, region_name(in, path.relay),
                                            relay_address(in, path.relay), it->second),
                                "Bring that relay back, or give the control server's relay map a second one."});
    else if (!path.relay_gone.is_zero())
        out.findings.push_back({Level::kProblem, "peer-not-at-relay",
                                fmt::format("{} does not answer: its relay {} says that it is not connected there{}.", name, region_name(in, path.relay),
                                            node.online == true ? ", though the control server takes it for online" : ""),
                                fmt::format("Look at {}: does tailscaled run, can it reach the relay at {}?", name, relay_address(in, path.relay))});
    else if (path.relay == 0)
        out.findings.push_back({Level::kProblem, "no-relay-known", fmt::format("No relay of {} is known, and there is no direct path.", name),
                                fmt::format("Look at {}: 'tailscale netcheck' there must name a nearest relay.", name)});
    else
        out.findings.push_back({Level::kProblem, "peer-silent", fmt::format("{} does not answer, neither by the relay {} nor directly.", name, region_name(in, path.relay)),
                                fmt::format("Is it switched on? Can it reach the relay at {}?", relay_address(in, path.relay))});
    out.findings.push_back(why_not_direct(in, node, path));
    return out;
}

static const char* name_of(PeerDiagnosis::Path path) {
    switch (path) {
        case PeerDiagnosis::Path::kRelay: return "relay";
        case PeerDiagnosis::Path::kPeerRelay: return "peer-relay";
        case PeerDiagnosis::Path::kDirect: return "direct";
        case PeerDiagnosis::Path::kNone: break;
    }
    return "none";
}

std::string doctor_json(const DoctorInputs& in, const netmap::NodePtr& node, const std::optional<Addr>& asked) {
    api::JsonText out;
    out.open_object().key("Node");
    write_findings(out, examine_host(in));
    out.key("Peer");
    if (!asked) {
        out.null();
    } else if (!node || in.status->map == nullptr) {
        out.open_object().field("Name", "").field("Address", asked->str()).field("Path", "none").key("Findings");
        write_findings(out, {{Level::kProblem, "no-such-peer",
                              fmt::format("No peer has or routes to {}.", asked->str()),
                              "Is it in the same network, do the access rules of the control server let this host see it, and is its route approved and accepted "
                              "(tailscale up --accept-routes)?"}});
        out.close_object();
    } else {
        const auto it = in.status->engine->peers.find(in.status->peer_id(node->id));
        const PeerSnapshot* peer = it == in.status->engine->peers.end() ? nullptr : &it->second;
        const PeerDiagnosis d = examine_peer(in, *node, peer);
        out.open_object().field("Name", std::string_view(node->host_label())).field("Address", asked->str());
        out.field("Path", name_of(d.path));
        out.field("Relay", peer != nullptr ? derp_code(in.status->map, peer->path.relay) : "").key("Findings");
        write_findings(out, d.findings);
        out.close_object();
    }
    out.close_object();
    return out.take();
}

}  // namespace mesh::daemon
