// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/world.h"

#include <numeric>

#include "magicsock/derp/derp_map_json.h"
#include "tests/sim/run.h"

namespace mesh::sim {
namespace {

constexpr Duration kRollCall = seconds(12);
constexpr Duration kKeepAlive = seconds(50);

// Source and destination of a packet of the tunnel, 100.64.0.x twice, or the mark of its payload.
bool in_clear(ByteSpan datagram) {
    const std::string_view text = as_text(datagram);
    if (text.find(kInTheClear) != std::string_view::npos) return true;
    constexpr std::string_view kNet("\x64\x40\0", 3);
    for (size_t i = text.find(kNet); i != std::string_view::npos; i = text.find(kNet, i + 1))
        if (text.substr(std::min(i + 4, text.size())).starts_with(kNet)) return true;
    return false;
}

}  // namespace

// ---- building and running

World::World(const Scenario& s, const TraceSink& trace)
    : scenario_(s), random_(s.seed ^ 0x5eedULL), net_(random_.u64()), start_(net_.now()) {
    if (trace) net_.set_trace(trace);
    net_.set_tap([this](ByteSpan datagram) {
        if (in_clear(datagram)) fail("a packet of the tunnel in clear at " + at(net_.now()));
    });
}

void World::build() {
    net_.add_regions(scenario_.regions);
    net_.set_liar(scenario_.liar);
    for (size_t i = 0; i < scenario_.far.size(); ++i) {
        const RegionSpec& r = scenario_.far[i];
        const int region = static_cast<int>(i) + 1;
        net_.set_region_delay(region, r.delay);
        if (r.dies.ns > 0) net_.at(start() + r.dies, [this, region] { net_.kill_region(region, true); });
        if (r.back.ns > 0) net_.at(start() + r.back, [this, region] { net_.kill_region(region, false); });
    }
    for (const SiteSpec& spec : scenario_.sites) {
        Site& s = net_.add_site(spec.v4);
        s.link = spec.link;
        if (spec.has_v6) {
            NatType firewall = kFirewall;
            firewall.filtering = spec.v6_filter;
            s.v6 = std::make_unique<Nat>(firewall, Addr{}, random_.u64());
        }
    }
    lab::RegistryOptions options;
    options.derp_map = derp::derp_map_json(*net_.derp_map());
    control_ = std::make_unique<lab::Registry>(options, random_);
    const size_t n = scenario_.nodes.size();
    polls_.resize(n);
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scenario_.nodes[a].join < scenario_.nodes[b].join; });
    addrs_.resize(n);
    for (size_t rank = 0; rank < n; ++rank) addrs_[order[rank]] = Addr::v4(100, 64, 0, static_cast<uint8_t>(rank + 1));
    for (size_t i = 0; i < n; ++i) {
        nodes_.push_back(std::make_unique<Node>(net_, *this, static_cast<int>(i), addrs_[i], net_.site(scenario_.nodes[i].site), random_.u64()));
        net_.at(start_ + scenario_.nodes[i].join, [this, i] { nodes_[i]->start(true); });
    }
    if (n > 1) nodes_[1]->set_sabotage(scenario_.sabotage);
    for (size_t i = 0; i < scenario_.flows.size(); ++i) {
        flows_.push_back({.spec = scenario_.flows[i]});
        net_.at(start_ + scenario_.flows[i].start, [this, i] { tick(i); });
    }
    for (const Disturbance& d : scenario_.disturbances) net_.at(start_ + d.at, [this, d] { disturb(d); });
    if (scenario_.roll_call) net_.at(start_ + scenario_.length - kRollCall, [this] { call_the_roll(); });
}

// Each pair that has no flow yet, from either end.
void World::call_the_roll() {
    std::set<Pair> have;
    for (const Flow& f : flows_)
        if (f.spec.as < 0) have.insert(std::minmax(f.spec.from, f.spec.to));
    const int n = static_cast<int>(nodes_.size());
    for (int a = 0; a < n; ++a)
        for (int b = a + 1; b < n; ++b) {
            FlowSpec f{.from = a, .to = b, .start = {}, .interval = milliseconds(500)};
            if (forbidden(a, b) || (random_.below(2) == 0 && !forbidden(b, a))) std::swap(f.from, f.to);
            if (have.contains({a, b}) || forbidden(f.from, f.to)) continue;
            flows_.push_back({.spec = f, .roll_call = true});
            net_.at(net_.now() + milliseconds(random_.below(200)), [this, i = flows_.size() - 1] { tick(i); });
        }
}

void World::disturb(const Disturbance& d) {
    using Kind = Disturbance::Kind;
    net_.trace("disturbance begins");
    switch (d.kind) {
        case Kind::kCut:
            net_.cut(d.x, d.y, true);
            net_.at(net_.now() + d.length, [this, d] {
                net_.trace("disturbance ends");
                net_.cut(d.x, d.y, false);
            });
            break;
        case Kind::kNatReboot: net_.site(d.x).v4.reboot(); break;
        case Kind::kRenumber:
            net_.site(d.x).v4.renumber(Addr::v4(203, 0, static_cast<uint8_t>(213 + d.x), 1));
            for (const auto& n : nodes_)
                if (n->site().number == d.x && n->running()) n->rebind();
            break;
        case Kind::kRestart:
        case Kind::kRestartNewKey: {
            const auto i = static_cast<size_t>(d.x);
            nodes_[i]->kill();
            close_poll(i);
            for (auto& [pair, t] : trust_)
                if (pair.first == d.x) t.now = false;
            for (auto& [pair, t] : known_)
                if (pair.first == d.x || pair.second == d.x) known_again_[pair] = {};
            net_.at(net_.now() + d.length, [this, i, d] {
                nodes_[i]->start(d.kind == Kind::kRestartNewKey);
            });
            break;
        }
        case Kind::kRelayRestart: net_.derp_restart(d.x); break;
        case Kind::kPollBreaks: {
            const auto i = static_cast<size_t>(d.x);
            close_poll(i);
            net_.at(net_.now() + d.length, [this, i] {
                if (nodes_[i]->running()) nodes_[i]->poll_again();
            });
            break;
        }
        case Kind::kDenied:
            denied_now_.insert({d.x, d.y});
            send_filter(static_cast<size_t>(d.y));
            net_.at(net_.now() + d.length, [this, d] {
                denied_now_.erase({d.x, d.y});
                send_filter(static_cast<size_t>(d.y));
            });
            break;
    }
}

void World::tick(size_t flow) {
    Flow& f = flows_[flow];
    const auto id = static_cast<uint32_t>((flow << 16) | f.echoes.size());
    f.echoes.push_back({net_.now(), {}, {}});
    nodes_[static_cast<size_t>(f.spec.from)]->ping(addr(f.spec.to), id, f.spec.size, f.spec.as < 0 ? Addr{} : addr(f.spec.as));
    // Not all at the same instants.
    net_.at(net_.now() + f.spec.interval + microseconds(random_.below(2000)), [this, flow] { tick(flow); });
}

// ---- control: the lab's registry behind a slow line

void World::control_request(Node& node, Node::Request kind, const std::string& body) {
    const auto i = static_cast<size_t>(node.number());
    if (kind == Node::Request::kRegister) {
        const auto answer = control_->on_register(node.machine(), body, wall(net_.now()));
        const auto parsed = control::parse_register_response(answer.body);
        if (!parsed || !parsed->error.empty() || !parsed->machine_authorized) fail("control refused a registration");
        return forward_messages();
    }
    if (kind == Node::Request::kPoll) close_poll(i);
    Time& arrives = polls_[i].last_request;
    arrives = max(arrives, net_.now() + milliseconds(20 + random_.below(60)));
    net_.at(arrives, [this, i, kind, body, number = polls_[i].number] {
        if (!nodes_[i]->running() || polls_[i].number != number) return;
        if (kind == Node::Request::kPoll) return open_poll(i, body);
        if (control_->on_map(nodes_[i]->machine(), body, wall(net_.now())).node == 0) fail("control refused an update");
        forward_messages();
        for (size_t other = 0; other < nodes_.size(); ++other) note_known(static_cast<int>(other));  // perhaps nothing changed
    });
}

void World::close_poll(size_t node) {
    polls_[node].open = false;
    ++polls_[node].number;
}

void World::open_poll(size_t node, const std::string& body) {
    const auto poll = control_->on_map(nodes_[node]->machine(), body, wall(net_.now()));
    if (poll.node == 0) return fail("control refused a poll");
    control_->set_online(poll.node, true, wall(net_.now()));
    forward_messages();
    polls_[node].open = true;
    Json map = control_->first_map(poll.node, wall(net_.now()));
    map["PacketFilters"] = filter_of(refused_by(node));
    send(node, std::move(map));
    keep_alive(node, polls_[node].number);
}

void World::keep_alive(size_t node, uint64_t number) {
    net_.at(net_.now() + kKeepAlive, [this, node, number] {
        if (!polls_[node].open || polls_[node].number != number) return;
        Json alive = Json::object();
        alive["KeepAlive"] = true;
        send(node, std::move(alive));
        keep_alive(node, number);
    });
}

void World::forward_messages() {
    for (auto& [id, message] : control_->take_messages()) {
        const size_t to = number_of(control_->nodes().at(id).v4);
        if (to < polls_.size() && polls_[to].open) send(to, std::move(message));
    }
}

void World::send(size_t to, Json message) {
    Poll& poll = polls_[to];
    const auto spread = static_cast<uint32_t>(scenario_.control_delay.millis()) + 1;
    poll.last = max(poll.last, net_.now() + milliseconds(30 + random_.below(spread)));
    const bool has_filter = message.contains("PacketFilters");
    net_.at(poll.last, [this, to, has_filter, refused = refused_by(to), number = poll.number, text = json::dump(message)] {
        Poll& p = polls_[to];
        if (!p.open || p.number != number || !nodes_[to]->running()) return;
        if (has_filter) p.denied = refused;
        nodes_[to]->control_says(text);
        note_known(static_cast<int>(to));
    });
}

void World::send_filter(size_t to) {
    if (!polls_[to].open) return;  // the next first map has it
    Json message = Json::object();
    message["PacketFilters"] = filter_of(refused_by(to));
    send(to, std::move(message));
}

std::set<int> World::refused_by(size_t node) const {
    std::set<int> out;
    for (const auto* pairs : {&scenario_.forbidden, &denied_now_})
        for (const Pair& p : *pairs)
            if (p.second == static_cast<int>(node)) out.insert(p.first);
    return out;
}

Json World::filter_of(const std::set<int>& refused) const {
    Json sources = Json::array();
    for (size_t i = 0; i < addrs_.size(); ++i)
        if (!refused.contains(static_cast<int>(i))) sources.push_back(addrs_[i].str());
    Json ports = Json::object();
    ports["First"] = 0;
    ports["Last"] = 65535;
    Json dst = Json::object();
    dst["IP"] = "*";
    dst["Ports"] = std::move(ports);
    Json rule = Json::object();
    rule["SrcIPs"] = std::move(sources);
    rule["DstPorts"] = Json::array({dst});
    Json out = Json::object();
    out["base"] = Json::array({rule});
    return out;
}

void World::note_known(int node) {
    const Node& n = *nodes_[static_cast<size_t>(node)];
    for (const auto& peer : nodes_) {
        if (peer.get() == &n) continue;
        const Record r = n.knows(peer->tunnel_addr());
        if (r.home_derp == 0) continue;
        const Pair pair{node, peer->number()};
        known_.try_emplace(pair, net_.now());
        // A restarted peer counts as known again with the keys it has now.
        const auto again = known_again_.find(pair);
        if (again != known_again_.end() && again->second.is_zero() && peer->running() && r == peer->record()) again->second = net_.now();
    }
}

Outcome World::run() {
    build();
    const Time end = start_ + scenario_.length;
    uint64_t turns_at_once = 0;
    while (true) {
        Time next = net_.next_event();
        Node* node = nullptr;
        for (const auto& n : nodes_)
            if (n->next_timeout() < next) {
                next = n->next_timeout();
                node = n.get();
            }
        if (next > end) break;
        turns_at_once = next > net_.now() ? 0 : turns_at_once + 1;
        if (turns_at_once > 200'000) {
            fail("time stands still at " + at(net_.now()));
            break;
        }
        net_.advance_to(next);
        if (node != nullptr)
            node->handle_timeout();
        else
            net_.run_next();
    }
    net_.advance_to(end);
    check();
    outcome_.trace_hash = net_.trace_hash();
    outcome_.datagrams = net_.datagrams();
    return std::move(outcome_);
}

// ---- watching

void World::path_changed(Node& node, const Addr& peer, const magicsock::Path& path) {
    const Pair pair{node.number(), static_cast<int>(number_of(peer))};
    Trust& t = trust_[pair];
    const Time now = net_.now();
    if (path.udp_trusted && !t.now) {
        t.since = now;
        if (t.first.is_zero()) t.first = now;
        if (!direct_path_possible(place_of(pair.first), place_of(pair.second)) && !ports_shuffled(pair.first) && !ports_shuffled(pair.second))
            fail(fmt::format("n{} trusts {} to n{} at {}, which cannot work", pair.first, path.udp.str(), pair.second, at(now)));
    }
    if (!path.udp_trusted && t.now) {
        t.lost = now;
        t.losses.push_back(now);
    }
    t.now = path.udp_trusted;
}

void World::ping_arrived(Node& node, const Addr& from, uint32_t id, bool intact) {
    const size_t flow = id >> 16, seq = id & 0xffff;
    if (flow >= flows_.size() || seq >= flows_[flow].echoes.size()) return fail("a packet that nobody sent");
    Flow& f = flows_[flow];
    Echo& e = f.echoes[seq];
    if (f.spec.as >= 0) return fail(fmt::format("n{} took a packet of n{} under the address of n{}", f.spec.to, f.spec.from, f.spec.as));
    if (polls_[static_cast<size_t>(node.number())].denied.contains(f.spec.from)) fail(name(f) + ": a packet arrived that the filter forbids");
    if (!intact || f.spec.to != node.number() || addr(f.spec.from) != from) fail("a packet arrived changed");
    if (!e.arrived.is_zero()) fail(fmt::format("{}: a packet of {} arrived twice", name(f), at(e.sent)));
    e.arrived = net_.now();
}

void World::pong_arrived(Node& node, const Addr& from, uint32_t id, bool intact) {
    const size_t flow = id >> 16, seq = id & 0xffff;
    if (flow >= flows_.size() || seq >= flows_[flow].echoes.size()) return fail("an answer to nothing");
    Flow& f = flows_[flow];
    Echo& e = f.echoes[seq];
    if (!intact || f.spec.from != node.number() || addr(f.spec.to) != from) fail("an answer arrived changed");
    if (!e.answered.is_zero()) fail(fmt::format("{}: the answer to {} arrived twice", name(f), at(e.sent)));
    e.answered = net_.now();
}

// ---- judging

Place World::place_of(int node) const {
    const int n = scenario_.nodes[static_cast<size_t>(node)].site;
    const SiteSpec& s = scenario_.sites[static_cast<size_t>(n)];
    return {.site = n, .v4 = s.v4, .has_v6 = s.has_v6, .v6_filter = s.v6_filter, .mtu = s.link.mtu};
}

Duration World::round_trip(const Flow& f) const {
    const Link& a = scenario_.sites[static_cast<size_t>(place_of(f.spec.from).site)].link;
    const Link& b = scenario_.sites[static_cast<size_t>(place_of(f.spec.to).site)].link;
    return (a.delay + a.jitter + b.delay + b.jitter + milliseconds(4)) * 2;
}

bool World::ports_shuffled(int node) const {
    const Place p = place_of(node);
    return p.v4.preserves_port && p.v4.mapping != Depends::kNothing &&
           std::any_of(scenario_.disturbances.begin(), scenario_.disturbances.end(), [&](const Disturbance& d) {
               return (d.kind == Disturbance::Kind::kNatReboot || d.kind == Disturbance::Kind::kRenumber) && d.x == p.site &&
                      net_.now() >= start_ + d.at;
           });
}

bool Scenario::lossy() const {
    return std::any_of(sites.begin(), sites.end(), [](const SiteSpec& s) { return s.link.loss_ppm > 0; });
}

Outcome run_scenario(const Scenario& scenario, const TraceSink& trace) { return World(scenario, trace).run(); }

}  // namespace mesh::sim
