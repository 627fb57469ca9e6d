// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the lab's control server knows: nodes, addresses, routes, pending logins; and the JSON it tells about them, first
/// maps and deltas in the way Headscale sends them. Pure: no socket, no clock; the server (control_server.h) moves bytes.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/json.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/time.h"

namespace mesh::lab {

using NodeId = int64_t;

struct RegistryOptions {
    Prefix v4 = *Prefix::parse("100.64.0.0/10");
    std::optional<Prefix> v6;
    std::string domain = "lab.test";
    Json derp_map = Json::object();  ///< tailcfg.DERPMap
    std::vector<std::string> auth_keys;
    std::vector<std::string> ephemeral_keys;
    bool require_login = false;   ///< without a key, a person must open the AuthURL
    bool approve_routes = false;  ///< every offered route at once
    bool magic_dns = true;
    Json dns = Json::object();    ///< tailcfg.DNSConfig; Domains and Proxied are added unless given
    Json rules = Json::array();   ///< tailcfg.FilterRules besides the one that allows everything; application grants, say
    std::string base_url;         ///< for AuthURLs
};

struct LabNode {
    NodeId id = 0;
    MachinePublic machine;
    NodePublic key;
    DiscoPublic disco;
    std::string name;  ///< DNS label
    Addr v4, v6;
    Json hostinfo = Json::object();
    std::vector<std::string> endpoints;
    int home_derp = 0;
    std::set<Prefix> approved;
    bool ephemeral = false;
    bool expired = false;
    bool online = false;
    bool made_up = false;  ///< of a crowd: nobody polls for it
    WallTime created, last_seen, key_expiry;
};

class Registry {
   public:
    Registry(RegistryOptions options, Random& random) : options_(std::move(options)), random_(random) {}

    void set_base_url(std::string url) { options_.base_url = std::move(url); }

    struct Answer {
        int status = 200;
        std::string body;
        std::string held_login;  ///< not empty: answer later, when this login is approved
    };
    [[nodiscard]] Answer on_register(const MachinePublic& machine, std::string_view body, WallTime now);
    /// Facts of a map request. The node, or 0 with the answer to give.
    struct Poll {
        NodeId node = 0;
        bool stream = false;
        bool zstd = false;
        Answer refusal;
    };
    [[nodiscard]] Poll on_map(const MachinePublic& machine, std::string_view body, WallTime now);
    [[nodiscard]] Json first_map(NodeId node, WallTime now) const;
    void set_online(NodeId node, bool online, WallTime now);

    /// Messages that arose since the last call, each for all polls of one node, in order.
    [[nodiscard]] std::vector<std::pair<NodeId, Json>> take_messages();
    /// Lines for the log.
    [[nodiscard]] std::vector<std::string> take_log();

    /// A person opened the AuthURL. False: no such login.
    bool approve_login(const std::string& id);
    [[nodiscard]] bool login_pending(const std::string& id) const;
    bool set_routes(NodeId node, const std::set<Prefix>& routes, WallTime now);
    void set_derp_map(Json map);
    /// `count` nodes that never existed, as peers for those that do: every second one is online. Before anybody joins.
    void add_crowd(int count, WallTime now);
    bool expire(NodeId node, WallTime now);
    bool remove(NodeId node, WallTime now);
    [[nodiscard]] Json nodes_json() const;
    [[nodiscard]] const std::map<NodeId, LabNode>& nodes() const { return nodes_; }

   private:
    struct Login {
        NodePublic key;
        MachinePublic machine;
        bool approved = false;
    };
    [[nodiscard]] LabNode* by_key(const NodePublic& key);
    [[nodiscard]] LabNode* by_machine(const MachinePublic& machine);
    [[nodiscard]] std::string success_body() const;
    LabNode& admit(const MachinePublic& machine, const NodePublic& key, const Json& request, bool ephemeral, WallTime now);
    [[nodiscard]] std::vector<Prefix> served_routes(const LabNode& n) const;
    [[nodiscard]] Json node_json(const LabNode& n, bool self) const;
    [[nodiscard]] Addr allocate(const Prefix& p) const;
    [[nodiscard]] std::string unique_name(const std::string& hostname, NodeId self) const;
    void tell_others(const LabNode& about, Json message, WallTime now);
    void tell_changed(const LabNode& n, WallTime now);
    void tell_self(const LabNode& n, WallTime now);
    /// After a change of who is online or may route: tells everybody about the routers whose share changed.
    void reassign_routes(WallTime now);
    void auto_approve(LabNode& n);
    [[nodiscard]] Json user_profiles() const;
    void log(std::string line) { log_.push_back(std::move(line)); }

    RegistryOptions options_;
    Random& random_;
    std::map<NodeId, LabNode> nodes_;
    NodeId next_id_ = 1;
    std::map<std::string, Login> logins_;
    std::map<Prefix, NodeId> primary_;  // route → router that serves it now
    std::vector<std::pair<NodeId, Json>> messages_;
    std::vector<std::string> log_;
};

}  // namespace mesh::lab
