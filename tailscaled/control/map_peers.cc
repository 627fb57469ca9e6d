// SPDX-License-Identifier: BSD-3-Clause
// The peer fields of a map message: full lists, whole nodes, patches. The rest is in map_session.cc.
#include <fmt/format.h>

#include <algorithm>

#include "tailscaled/control/map_fields.h"
#include "tailscaled/control/map_session.h"
#include "tailscaled/netmap/codec.h"

namespace mesh::control {
namespace {

using netmap::Node;
using netmap::NodeId;
using netmap::NodePtr;

Result<NodePtr> read_node(std::string_view text) {
    TRY_ASSIGN(const Json j, parse_piece(text));
    TRY_ASSIGN(Node n, netmap::parse_node(j));
    return std::make_shared<const Node>(std::move(n));
}

/// A present member holds a key of that kind.
template <class Key>
std::optional<Key> key_of(const Json& j, const char* name) {
    const Json* v = json::find(j, name);
    if (!v || !v->is_string()) return std::nullopt;
    return Key::parse(v->get_ref<const std::string&>());
}

std::optional<WallTime> time_of(const Json& j, const char* name) {
    const Json* v = json::find(j, name);
    if (!v || !v->is_string()) return std::nullopt;
    return json::parse_time(v->get_ref<const std::string&>());
}

}  // namespace

/// Remembers how a peer was before this message.
void MapSession::touch(NodeId id) { touched_.try_emplace(id, work_.peers.find(id)); }

void MapSession::upsert(NodePtr node) {
    const NodePtr before = work_.peers.find(node->id);
    if (before && *before == *node) return;
    if (work_.self && node->id == work_.self->id) return skip({Code::kInvalid, 0, "this node among its own peers"});
    if (!before && work_.peers.size() >= limits_.peers) return skip({Code::kLimit, 0, "too many peers"});
    routes_ -= before ? before->allowed_ips.size() : 0;
    if (routes_ + node->allowed_ips.size() > limits_.routes) {
        skip({Code::kLimit, 0, fmt::format("too many routes: node {} keeps only its own addresses", node->id)});
        auto cut = std::make_shared<Node>(*node);
        cut->allowed_ips = routes_ + node->addresses.size() > limits_.routes ? std::vector<Prefix>{} : node->addresses;
        node = std::move(cut);
    }
    routes_ += node->allowed_ips.size();
    touch(node->id);
    work_.peers.upsert(std::move(node));
}

void MapSession::erase(NodeId id) {
    const NodePtr before = work_.peers.find(id);
    if (!before) return;
    touch(id);
    routes_ -= before->allowed_ips.size();
    work_.peers.erase(id);
}

Status MapSession::apply_peers(const MapFields& f, WallTime wall) {
    // An empty list means "unchanged", as if it were absent.
    bool any = false;
    // Equal nodes keep their object, also those of the poll before: comparing stays cheap and nothing is held twice.
    static const netmap::PeerTable none;
    const netmap::PeerTable& old = published_ ? published_->peers : none;
    TRY(each_element(f.peers, [&](std::string_view text) -> Status {
        auto node = read_node(text);
        if (!any) {
            any = true;
            for (const NodePtr& n : work_.peers) touched_.try_emplace(n->id, n);
            work_.peers.clear();
            routes_ = 0;
        }
        if (!node) {
            skip(node.error());
            return {};
        }
        const NodePtr same = old.find((*node)->id);
        upsert(same && *same == **node ? same : std::move(*node));
        return {};
    }));
    return any ? Status{} : apply_deltas(f, wall);
}

Status MapSession::apply_deltas(const MapFields& f, WallTime wall) {
    TRY(each_element(f.peers_removed, [&](std::string_view text) -> Status {
        if (const auto id = node_id(text)) erase(*id);
        return {};
    }));
    TRY(each_element(f.peers_changed, [&](std::string_view text) -> Status {
        auto node = read_node(text);
        if (node)
            upsert(std::move(*node));
        else
            skip(node.error());
        return {};
    }));
    const auto change = [this](std::string_view key, const std::function<void(Node&)>& edit) {
        const auto id = node_id(key);
        const NodePtr before = id ? work_.peers.find(*id) : nullptr;
        if (!before) return;
        auto node = std::make_shared<Node>(*before);
        edit(*node);
        upsert(std::move(node));
    };
    TRY(each_member(f.seen_change, [&](std::string_view key, std::string_view value) -> Status {
        change(key, [&](Node& n) { n.last_seen = value == "true" ? std::optional(wall) : std::nullopt; });
        return {};
    }));
    TRY(each_member(f.online_change, [&](std::string_view key, std::string_view value) -> Status {
        change(key, [&](Node& n) { n.online = value == "true"; });
        return {};
    }));
    return each_element(f.patches, [&](std::string_view text) -> Status {
        apply_patch(text);
        return {};
    });
}

void MapSession::apply_patch(std::string_view text) {
    const auto j = parse_piece(text);
    if (!j) return skip(j.error());
    const NodePtr before = work_.peers.find(json::integer(*j, "NodeID"));
    if (!before) return;
    auto n = std::make_shared<Node>(*before);
    const int64_t derp = json::integer(*j, "DERPRegion");
    if (derp > 0 && derp <= INT32_MAX) n->home_derp = static_cast<int>(derp);
    const int64_t cap = json::integer(*j, "Cap");
    if (cap > 0 && cap <= INT32_MAX) n->cap = static_cast<int>(cap);
    if (const Json* c = json::find(*j, "CapMap"); c && c->is_object()) n->cap_map = netmap::parse_cap_map(*c);
    if (const Json* e = json::find(*j, "Endpoints"); e && e->is_array()) n->endpoints = netmap::parse_endpoints(*e);
    if (const auto k = key_of<NodePublic>(*j, "Key")) n->key = *k;
    if (const Json* s = json::find(*j, "KeySignature"); s && s->is_string())
        n->key_signature = base64_decode(s->get_ref<const std::string&>()).value_or(Bytes{});
    const auto online = json::opt_bool(*j, "Online");
    const auto seen = time_of(*j, "LastSeen");
    if (const auto k = key_of<DiscoPublic>(*j, "DiscoKey")) {
        // A stale notice that the peer went away must not undo a newer key learned another way.
        const bool stale = online == false && seen && n->last_seen && *seen <= *n->last_seen;
        if (!stale) n->disco_key = *k;
    }
    if (online) n->online = online;
    if (seen) n->last_seen = seen;
    if (const auto t = time_of(*j, "KeyExpiry")) n->key_expiry = *t;
    upsert(std::move(n));
}

}  // namespace mesh::control
