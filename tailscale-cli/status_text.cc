// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/status_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "tailscale-cli/table_text.h"

namespace mesh::cli {
namespace {

/// Names and owners come from other parties: nothing in them may reach the terminal as a command.
std::string shown(std::string_view text) { return log::printable(text); }

std::string owner_text(const api::DaemonStatus& status, const api::PeerStatus& peer) {
    if (peer.user_id == 0 || !status.users) return "-";
    const auto it = status.users->find(peer.user_id);
    if (it == status.users->end()) return fmt::format("{}", peer.user_id);
    const std::string& login = it->second.login_name;
    const size_t at = login.find('@');
    return shown(at == std::string::npos ? login : login.substr(0, at + 1));
}

std::string state_text(const api::PeerStatus& p, WallTime now) {
    const bool traffic = p.rx_bytes != 0 || p.tx_bytes != 0;
    const std::string offline = p.online ? "" : "; offline" + last_seen_text(p.last_seen, now);
    std::string out;
    if (!p.active) {
        if (p.exit_node)
            out = "idle; exit node" + offline;
        else if (p.exit_node_option)
            out = "idle; offers exit node" + offline;
        else if (traffic)
            out = "idle" + offline;
        else if (!p.online)
            out = "offline" + last_seen_text(p.last_seen, now);
        else
            out = "-";
    } else {
        out = "active; ";
        if (p.exit_node)
            out += "exit node; ";
        else if (p.exit_node_option)
            out += "offers exit node; ";
        if (!p.peer_relay.empty() && p.cur_addr.empty())
            out += "peer-relay " + shown(p.peer_relay);
        else if (!p.relay.empty() && p.cur_addr.empty())
            out += fmt::format("relay \"{}\"", shown(p.relay));
        else if (!p.cur_addr.empty())
            out += "direct " + shown(p.cur_addr);
        out += offline;
    }
    if (traffic) out += fmt::format(", tx {} rx {}", p.tx_bytes, p.rx_bytes);
    return out;
}

std::string health_text(const api::DaemonStatus& status) {
    if (status.health.empty()) return "";
    std::string out = "# Health check:\n";
    for (const std::string& h : status.health) out += "#     - " + log::printable(h, 2000) + "\n";
    return out;
}

}  // namespace

std::string last_seen_text(WallTime seen, WallTime now) {
    if (seen.is_zero()) return "";
    const int64_t minutes = std::max<int64_t>(1, (now - seen).ns / 60'000'000'000);
    if (minutes < 60) return fmt::format(", last seen {}m ago", minutes);
    if (minutes < 24 * 60) return fmt::format(", last seen {}h ago", minutes / 60);
    return fmt::format(", last seen {}d ago", minutes / (24 * 60));
}

std::string display_name(const api::DaemonStatus& status, const api::PeerStatus& peer) {
    if (peer.dns_name.empty()) return fmt::format("(\"{}\")", shown(peer.host_name));
    std::string name = peer.dns_name;
    if (name.back() == '.') name.pop_back();
    const std::string suffix = "." + status.magic_dns_suffix;
    if (suffix.size() > 1 && name.size() > suffix.size() && name.ends_with(suffix))
        name.resize(name.size() - suffix.size());
    return shown(name);
}

std::vector<const api::PeerStatus*> sorted_peers(const api::DaemonStatus& status) {
    std::vector<const api::PeerStatus*> out;
    if (status.peers)
        for (const auto& [key, peer] : *status.peers) out.push_back(&peer);
    const auto first_ip = [](const api::PeerStatus* p) { return p->tailscale_ips.empty() ? Addr() : p->tailscale_ips[0]; };
    std::stable_sort(out.begin(), out.end(), [&](const api::PeerStatus* a, const api::PeerStatus* b) {
        if (a->dns_name != b->dns_name) return a->dns_name < b->dns_name;
        if (a->host_name != b->host_name) return a->host_name < b->host_name;
        return first_ip(a) < first_ip(b);  // the map is in order of keys already
    });
    return out;
}

std::optional<std::string> not_running_text(const api::DaemonStatus& status) {
    switch (status.backend_state) {
        case api::State::kRunning:
        case api::State::kStarting:
            return std::nullopt;
        case api::State::kStopped:
            return "Tailscale is stopped.";
        case api::State::kNeedsLogin: {
            std::string out = "Logged out.";
            if (!status.auth_url.empty()) out += "\nLog in at: " + log::printable(status.auth_url, 2000);
            return out;
        }
        case api::State::kNeedsMachineAuth:
            return "Machine is not yet approved by tailnet admin.";
        case api::State::kNoState:
        case api::State::kInUseOtherUser:
            break;
    }
    std::string out = health_text(status);
    return out + fmt::format("unexpected state: {}", api::state_name(status.backend_state));
}

std::string status_text(const api::DaemonStatus& status, const StatusOptions& options, WallTime now) {
    std::vector<std::vector<std::string>> rows;
    if (options.header) {
        rows.push_back({"IP", "Hostname", "Owner", "OS", "Status"});
        rows.push_back({"--", "--------", "-----", "--", "------"});
    }
    const auto add = [&](const api::PeerStatus& p) {
        rows.push_back({p.tailscale_ips.empty() ? "" : p.tailscale_ips[0].str(), display_name(status, p),
                        owner_text(status, p), shown(p.os), state_text(p, now)});
    };
    if (options.self) add(status.self);
    if (options.peers) {
        for (const api::PeerStatus* p : sorted_peers(status)) {
            if (p->sharee_node || (options.active && !p->active)) continue;
            add(*p);
        }
    }
    std::string out = table_text(rows, 2, LastColumn::kPadded);
    const std::string health = health_text(status);
    if (!health.empty()) out += "\n" + health;
    return out;
}

}  // namespace mesh::cli
