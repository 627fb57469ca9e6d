// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/map_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/json_split.h"
#include "base/log.h"
#include "magicsock/derp/derp_map_json.h"
#include "tailscaled/control/map_fields.h"
#include "tailscaled/netmap/codec.h"

namespace mesh::control {
namespace {

using netmap::Node;
using netmap::NodePtr;

constexpr PieceLimits kWide{16U << 20, 16'384};
constexpr Duration kClockTolerance = seconds(60);
constexpr Duration kClockStep = seconds(10);
constexpr int64_t kYear2023 = 1'672'531'200LL * 1'000'000'000;  // earlier server clocks are made up (test servers)
constexpr double kMaxSleepSeconds = 300;

template <class T>
void assign(T& field, T value, bool& changed) {
    if (field == value) return;
    field = std::move(value);
    changed = true;
}

}  // namespace

void MapSession::begin_poll(Time now) {
    work_ = {};
    static const auto no_dns = std::make_shared<const netmap::DnsConfig>();
    static const auto no_filter = std::make_shared<const netmap::PacketFilter>();
    static const auto no_users = std::make_shared<const std::map<netmap::UserId, netmap::UserProfile>>();
    work_.dns = no_dns;
    work_.filter = no_filter;
    work_.users = no_users;
    chunks_.clear();
    broken_chunks_.clear();
    routes_ = 0;
    first_ = true;
    deadline_ = now + kWatchdog;
}

void MapSession::reset() {
    published_ = nullptr;
    last_ping_url_.clear();
    last_open_url_.clear();
    begin_poll({});
    deadline_ = Time::never();
}

void MapSession::skip(const Error& why) {
    if (++skipped_ <= 5 || skipped_ % 1000 == 0)
        log::info("control: left out an entry of the map: {}", log::printable(why.message()));
}

Result<MapUpdate> MapSession::handle_message(std::string_view json, WallTime wall, Time now) {
    TRY_ASSIGN(const MapFields f, split_map_message(json));
    deadline_ = now + kWatchdog;
    MapUpdate out;
    out.keepalive = f.keep_alive == "true";
    touched_.clear();
    self_changed_ = derp_changed_ = dns_changed_ = filter_changed_ = users_changed_ = other_changed_ = false;
    read_extras(f, out);
    if (given(f.control_time)) apply_control_time(f.control_time, wall);
    if (!out.keepalive) {
        if (first_ && !given(f.node)) return fail(Code::kInvalid, "the first message of the map does not describe this node");
        TRY(apply_self(f));
        TRY(apply_rest(f));
        TRY(apply_users(f));
        TRY(apply_filters(f));
        TRY(apply_messages(f));
        TRY(apply_peers(f, wall));
        out.first = first_;
    }
    if (first_ && out.keepalive) return out;
    const bool from_scratch = first_;
    first_ = false;

    const bool replaced = given(f.peers) && !touched_.empty();
    if (!from_scratch && touched_.empty() && !self_changed_ && !derp_changed_ && !dns_changed_ && !filter_changed_ &&
        !users_changed_ && !other_changed_)
        return out;
    auto next = std::make_shared<const netmap::NetMap>(work_);
    if (from_scratch || replaced) {
        out.changes = netmap::diff(published_.get(), next.get());
    } else {
        for (auto& [id, before] : touched_) {
            NodePtr after = next->peers.find(id);
            if (before == after) continue;
            if (!before)
                out.changes.added.push_back(std::move(after));
            else if (!after)
                out.changes.removed.push_back(std::move(before));
            else
                out.changes.changed.push_back({std::move(before), std::move(after)});
        }
        out.changes.self = self_changed_;
        out.changes.derp_map = derp_changed_;
        out.changes.dns = dns_changed_;
        out.changes.filter = filter_changed_;
        out.changes.users = users_changed_;
        out.changes.other = other_changed_;
    }
    touched_.clear();
    if (from_scratch || !out.changes.empty()) {
        published_ = next;
        out.map = std::move(next);
    }
    return out;
}

void MapSession::read_extras(const MapFields& f, MapUpdate& out) {
    if (const auto j = given(f.ping) ? parse_piece(f.ping) : fail(Code::kNotFound, "")) {
        PingRequest p;
        p.url = json::str(*j, "URL");
        p.url_is_noise = json::boolean(*j, "URLIsNoise");
        p.types = json::str(*j, "Types");
        p.ip = Addr::parse(json::str(*j, "IP")).value_or(Addr{});
        p.payload = base64_decode(json::str(*j, "Payload")).value_or(Bytes{});
        if (!p.url.empty() && p.url != last_ping_url_) {
            last_ping_url_ = p.url;
            out.ping = std::move(p);
        }
    }
    if (given(f.pop_browser)) {
        std::string url = string_value(f.pop_browser);
        const bool web = is_web_url(url);
        if (!web && !url.empty() && !std::exchange(bad_url_told_, true))
            log::info("control: the server wants \"{}\" opened in a browser: no web address, not shown", log::printable(url, 200));
        if (web && url != last_open_url_) {
            last_open_url_ = url;
            out.open_url = std::move(url);
        }
    }
    if (given(f.client_version))
        if (const auto j = parse_piece(f.client_version); j && j->is_object())
            assign(work_.client_version, std::optional(netmap::parse_client_version(*j)), other_changed_);
    if (!out.keepalive && given(f.debug)) {
        if (const auto j = parse_piece(f.debug)) {
            const double sleep = json::number(*j, "SleepSeconds");
            if (sleep > 0) out.sleep = {static_cast<int64_t>(std::min(sleep, kMaxSleepSeconds) * 1e9)};
            if (const Json* code = json::find(*j, "Exit"); code && code->is_number_integer())
                out.exit_code = static_cast<int>(std::clamp<int64_t>(code->get<int64_t>(), 0, 255));
        }
    }
}

void MapSession::apply_control_time(std::string_view text, WallTime wall) {
    const auto t = json::parse_time(string_value(text));
    if (!t || t->unix_ns < kYear2023) return;
    Duration offset = *t - wall;
    if (offset <= kClockTolerance && offset >= Duration{} - kClockTolerance) offset = {};
    const Duration step = offset - work_.clock_offset;
    // Clocks far apart jitter a little with every message: that is no news.
    if (offset.ns != 0 && step <= kClockStep && step >= Duration{} - kClockStep) return;
    assign(work_.clock_offset, offset, other_changed_);
}

Status MapSession::apply_self(const MapFields& f) {
    if (!given(f.node)) return {};
    TRY_ASSIGN(const Json j, parse_piece(f.node));
    TRY_ASSIGN(Node n, netmap::parse_node(j));
    if (work_.self && *work_.self == n) return {};
    work_.self = std::make_shared<const Node>(std::move(n));
    self_changed_ = true;
    return {};
}

Status MapSession::apply_rest(const MapFields& f) {
    if (given(f.derp_map)) {
        TRY_ASSIGN(const Json j, parse_piece(f.derp_map));
        auto next = derp::apply_derp_map_delta(work_.derp_map ? *work_.derp_map : derp::DerpMap{}, j);
        if (!next) {
            skip(next.error());
        } else if (!work_.derp_map || !(*work_.derp_map == *next)) {
            work_.derp_map = std::make_shared<const derp::DerpMap>(std::move(*next));
            derp_changed_ = true;
        }
    }
    if (given(f.dns)) {
        TRY_ASSIGN(const Json j, parse_piece(f.dns, kWide));
        auto next = netmap::parse_dns_config(j);
        if (!(*work_.dns == next)) {
            work_.dns = std::make_shared<const netmap::DnsConfig>(std::move(next));
            dns_changed_ = true;
        }
    }
    if (std::string domain = string_value(f.domain); !domain.empty())
        assign(work_.domain, std::move(domain), other_changed_);
    if (f.collect_services == "true" || f.collect_services == "false")
        assign(work_.collect_services, f.collect_services == "true", other_changed_);
    if (given(f.ssh_policy)) {
        TRY_ASSIGN(const Json j, parse_piece(f.ssh_policy, kWide));
        std::string text = json::dump(j);
        if (!work_.ssh_policy_json || *work_.ssh_policy_json != text) {
            work_.ssh_policy_json = std::make_shared<const std::string>(std::move(text));
            other_changed_ = true;
        }
    }
    if (given(f.tka)) {
        TRY_ASSIGN(const Json j, parse_piece(f.tka));
        assign(work_.tka_head, json::boolean(j, "Disabled") ? std::string() : json::str(j, "Head"), other_changed_);
    }
    return {};
}

Status MapSession::apply_users(const MapFields& f) {
    if (!given(f.user_profiles)) return {};
    // Copied only when a profile is really new: servers repeat the same ones with every peer.
    std::shared_ptr<std::map<netmap::UserId, netmap::UserProfile>> next;
    TRY(each_element(f.user_profiles, [&](std::string_view text) -> Status {
        const auto j = parse_piece(text);
        if (!j || !j->is_object()) {
            skip(j ? Error{Code::kInvalid, 0, "a user profile is no object"} : j.error());
            return {};
        }
        netmap::UserProfile u = netmap::parse_user_profile(*j);
        const auto& now = next ? *next : *work_.users;
        const auto it = now.find(u.id);
        if (it != now.end() ? it->second == u : now.size() >= limits_.users) return {};
        if (!next) next = std::make_shared<std::map<netmap::UserId, netmap::UserProfile>>(*work_.users);
        const netmap::UserId id = u.id;
        next->insert_or_assign(id, std::move(u));
        return {};
    }));
    if (next) {
        work_.users = std::move(next);
        users_changed_ = true;
    }
    return {};
}

bool MapSession::read_filter_list(std::string_view text, std::vector<netstack::FilterRule>& out) {
    size_t entries = 0;
    bool sound = true;
    const Status s = each_element(text, [&](std::string_view piece) -> Status {
        TRY_ASSIGN(const Json j, parse_piece(piece, kWide));
        size_t errors = 0;
        auto rule = netmap::parse_filter_rule(j, errors);
        if (!rule) {
            sound = false;
            return fail(Code::kUnsupported, "the packet filter uses a form that is no longer allowed");
        }
        if (errors > 0) skip({Code::kInvalid, 0, fmt::format("{} parts of a filter rule", errors)});
        entries += 1 + rule->src.size() + rule->dst.size();
        if (entries > limits_.filter_entries) return fail(Code::kLimit, "the packet filter is too large");
        out.push_back(std::move(*rule));
        return {};
    });
    if (!s) {
        // Rules only allow, so the ones read so far are safe to keep, except beside a deprecated form.
        skip(s.error());
        if (!sound) out.clear();
    }
    return sound;
}

Status MapSession::apply_filters(const MapFields& f) {
    bool touched = false;
    const auto replace = [&](const std::string& name, std::string_view list) {
        std::vector<netstack::FilterRule> rules;
        if (read_filter_list(list, rules))
            broken_chunks_.erase(name);
        else
            broken_chunks_.insert(name);
        chunks_[name] = std::move(rules);
        touched = true;
    };
    if (given(f.packet_filter)) replace("base", f.packet_filter);
    if (given(f.packet_filters)) {
        TRY(each_member(f.packet_filters, [&](std::string_view key, std::string_view value) -> Status {
            if (key != "*" || !is_null(value)) return {};
            chunks_.clear();
            broken_chunks_.clear();
            touched = true;
            return {};
        }));
        TRY(each_member(f.packet_filters, [&](std::string_view key, std::string_view value) -> Status {
            const std::string name = unescape(key);
            if (!is_null(value)) {
                if (chunks_.size() >= limits_.messages && !chunks_.contains(name))
                    return fail(Code::kLimit, "the packet filter has too many parts");
                replace(name, value);
            } else if (name != "*") {
                chunks_.erase(name);
                broken_chunks_.erase(name);
                touched = true;
            }
            return {};
        }));
    }
    if (touched) rebuild_filter();
    return {};
}

void MapSession::rebuild_filter() {
    netmap::PacketFilter next;
    if (broken_chunks_.empty())
        for (const auto& [name, rules] : chunks_) next.rules.insert(next.rules.end(), rules.begin(), rules.end());
    if (next == *work_.filter) return;
    work_.filter = std::make_shared<const netmap::PacketFilter>(std::move(next));
    filter_changed_ = true;
}

Status MapSession::apply_messages(const MapFields& f) {
    if (given(f.health) && is_array(f.health)) {
        std::vector<std::string> lines;
        TRY(each_element(f.health, [&](std::string_view v) -> Status {
            if (lines.size() < limits_.messages) lines.push_back(string_value(v));
            return {};
        }));
        assign(work_.health, std::move(lines), other_changed_);
    }
    if (!given(f.display_messages)) return {};
    auto next = work_.display_messages;
    TRY(each_member(f.display_messages, [&](std::string_view key, std::string_view value) -> Status {
        if (key == "*" && is_null(value)) next.clear();
        return {};
    }));
    TRY(each_member(f.display_messages, [&](std::string_view key, std::string_view value) -> Status {
        const std::string id = unescape(key);
        if (is_null(value)) {
            next.erase(id);
        } else if (next.size() < limits_.messages || next.contains(id)) {
            TRY_ASSIGN(const Json j, parse_piece(value));
            next.insert_or_assign(id, netmap::parse_display_message(j));
        }
        return {};
    }));
    assign(work_.display_messages, std::move(next), other_changed_);
    return {};
}

}  // namespace mesh::control
