// SPDX-License-Identifier: BSD-3-Clause
// LocalBackend, the part that sends and takes files, and speaks to peers by the PeerAPI.

#include <algorithm>

#include "base/log.h"
#include "tailscaled/local_backend.h"

namespace mesh::daemon {

void LocalBackend::start_files() {
    Taildrop::Hooks hooks;
    hooks.sender = [this](const Addr& peer) -> Result<std::string> {
        if (!map_) return fail(Code::kDenied, "not connected");
        return file_sender(*map_, peer);
    };
    hooks.arrived = [this] {
        api::Notify n;
        n.files_waiting = true;
        publish_(n);
    };
    taildrop_ = std::make_unique<Taildrop>(loop_, std::move(hooks));
    reads_ = std::make_unique<FileReads>(loop_, *taildrop_);
    FileSends::Hooks sends;
    sends.target = [this](const std::string& stable_id) -> Result<Endpoint> {
        if (!map_ || state_ != api::State::kRunning) return fail(Code::kUnavailable, "not connected to the tailnet");
        const FileTargets targets(*map_);
        if (!targets.enabled()) return fail(Code::kDenied, "file sharing not enabled by Tailscale admin");
        for (const auto& node : map_->peers)
            if (node->stable_id == stable_id && targets.takes(*node) && peer_api(*node).is_valid()) return peer_api(*node);
        return fail(Code::kNotFound, "node not found");
    };
    sends.dial = [this](const Endpoint& to, Outgoing what) {
        what.to = to;
        outgoing_->dial(to.addr.str(), std::move(what));
    };
    sends.progress = [this] {
        if (!sends_) return;  // they end with the daemon
        api::Notify n;
        n.outgoing_files = sends_->files();
        publish_(n);
    };
    sends_ = std::make_unique<FileSends>(loop_, std::move(sends));
    apply_files();
}

/// Each account has its own folder.
void LocalBackend::apply_files() {
    if (!taildrop_) return;
    const api::UserProfile& user = profiles_.current().user_profile;
    taildrop_->set_folder(profiles_.has_node_key() ? taildrop_folder(options_.state_dir, user.login_name, user.id) : "");
}

/// Files from peers; and an exit node answers names for those who use it.
void LocalBackend::serve_peers() {
    const Addr own = map_->self->addresses.empty() ? Addr{} : map_->self->addresses.front().addr;
    apply_files();
    if (peer_api_ || !own.is_valid() || !dns_) return;
    PeerApi::Services services;
    services.may_ask = [this](const Addr& peer) {
        return profiles_.prefs().advertises_exit_node() && map_ && tables_ && may_use_internet(*map_, *tables_, peer);
    };
    services.ask = [this](ByteSpan query, PeerApi::Reply reply) { dns_->answer_peer(query, std::move(reply)); };
    services.files = taildrop_.get();
    services.greeting = [this](const Addr& peer) {
        const auto node = map_ ? map_->node_by_addr(peer) : nullptr;
        return node ? "Hello, " + std::string(node->host_label()) + ". This is " + std::string(map_->self->host_label()) + "." : std::string();
    };
    if (userspace())
        services.who = [this](const Endpoint& seen) {
            const auto client = engine_->client_of(seen);
            return client ? client->addr : Addr{};
        };
    auto api = PeerApi::start(loop_, tun_name_, peer_api_port_for(own), std::move(services));
    if (!api) return log::info("peerapi: peers can send no files and ask for no names: {}", api.error().message());
    peer_api_ = std::move(*api);
    send_update();
}

void LocalBackend::ping_peer_api(uint64_t id, const netmap::Node& target) {
    const Endpoint to = peer_api(target);
    const auto dial = [this, to](Outgoing what) { outgoing_->dial(to.addr.str(), std::move(what)); };
    pings_.at(id).probe = std::make_shared<PeerApiProbe>(loop_, to, dial, [this, id, to, name = target.name](const Result<Duration>& took) {
        const auto it = pings_.find(id);
        if (it == pings_.end()) return;
        PendingPing p = std::move(it->second);
        pings_.erase(it);
        loop_.post([old = p.probe] {});  // it calls
        if (took) {
            p.result.latency_seconds = took->seconds();
            p.result.node_name = name;
            p.result.peer_api_url = "http://" + to.str();
        } else {
            p.result.err = took.error().message();
        }
        p.done(p.result);
    });
}

// ---- for the local API

Result<std::string> LocalBackend::file_targets_json() {
    if (!map_ || state_ != api::State::kRunning) return fail(Code::kUnavailable, "not connected to the tailnet");
    const FileTargets targets(*map_);
    if (!targets.enabled()) return fail(Code::kDenied, "file sharing not enabled by Tailscale admin");
    std::vector<netmap::NodePtr> nodes;
    for (const auto& node : map_->peers)
        if (targets.takes(*node) && peer_api(*node).is_valid()) nodes.push_back(node);
    std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a->name < b->name; });
    api::JsonText out;
    out.open_array();
    for (const auto& node : nodes)
        out.open_object().raw_field("Node", api::node_json(api_node(*node))).field("PeerAPIURL", "http://" + peer_api(*node).str()).close_object();
    out.close_array();
    return out.take();
}

void LocalBackend::waiting_files(Duration wait, FilesDone done) {
    if (!taildrop_) return done(fail(Code::kUnavailable, "the daemon is not ready"));
    taildrop_->list(wait, [done = std::move(done)](const Result<Taildrop::Files>& files) {
        if (!files) return done(tl::unexpected(files.error()));
        if (files->empty()) return done(std::string("null"));
        api::JsonText out;
        out.open_array();
        for (const auto& f : *files) out.open_object().field("Name", f.name).field("Size", static_cast<int64_t>(f.size)).close_object();
        out.close_array();
        done(out.take());
    });
}

void LocalBackend::delete_file(const std::string& name, Done done) {
    if (!taildrop_) return done(fail(Code::kUnavailable, "the daemon is not ready"));
    taildrop_->remove(name, std::move(done));
}

void LocalBackend::read_file(const std::string& name, platform::ByteStream client) {
    if (reads_) reads_->take(name, std::move(client));
}

void LocalBackend::put_file(platform::ByteStream client) {
    if (sends_) sends_->take(std::move(client));
}

}  // namespace mesh::daemon
