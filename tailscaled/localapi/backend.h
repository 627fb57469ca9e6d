// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the local API needs from the daemon. Everything runs on the control loop. Getters answer at once from values
/// at hand; what takes time gets a completion to call later. Completions may be called after the client or even the
/// server has gone (they then do nothing), and at most once; a second call is ignored.
///
/// Messages for the bus go the other way: the daemon calls Server::publish().

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/result.h"
#include "platform/net/byte_stream.h"
#include "tailscaled/api/node.h"
#include "tailscaled/api/notify.h"
#include "tailscaled/api/ping.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/status.h"

namespace mesh::localapi {

/// Who asks. Rights are checked by the server before the backend is called; kept for log lines.
struct Caller {
    uid_t uid = 0;
    pid_t pid = 0;
    std::string reason;  ///< X-Tailscale-Reason, decoded and made printable; ""
};

enum class WithPeers : uint8_t { kNo, kYes };

/// An answer that is more than text: used where the daemon alone knows what to say.
struct Reply {
    unsigned status = 200;
    std::string content_type = "application/json";
    std::string body;
};

class Backend {
   public:
    virtual ~Backend() = default;

    // ---- reading (every local user)
    virtual api::DaemonStatus status(WithPeers peers) = 0;
    virtual const api::Prefs& prefs() = 0;  ///< the server writes them redacted
    /// Exactly one of the two is given. nullopt → 404 "no match for IP:port". The own node answers too.
    virtual std::optional<api::WhoIsResult> whois(const Addr& ip, uint16_t port, std::string_view proto) = 0;
    virtual std::optional<api::WhoIsResult> whois(const NodePublic& key) = 0;
    /// Compact JSON of the DERP map, "" = null.
    virtual std::string derp_map_json() = 0;
    /// Compact JSON of the DNS part of the netmap; nullopt → 503 "no netmap".
    virtual std::optional<std::string> dns_config_json() = 0;
    /// Compact JSON of the resolver that the host uses, or would use without us.
    virtual std::string dns_os_config_json() = 0;
    /// Compact JSON with the answer and the servers asked; "" and an error in words otherwise.
    using DnsDone = std::function<void(Result<std::string>)>;
    virtual void dns_query(const std::string& name, uint16_t type, DnsDone done) = 0;
    /// Compact JSON of the whole netmap for `debug netmap`, "" = null.
    virtual std::string net_map_json() = 0;
    /// Prometheus text.
    virtual std::string user_metrics() = 0;
    /// A mark that also stands in the log: "BUG-…". With `diagnose` what the doctor finds is logged as well.
    virtual std::string bug_report(const std::string& note, bool diagnose) = 0;
    /// Compact JSON object name → count of the packet path's drops by reason.
    virtual std::string drops_json() = 0;
    /// Compact JSON object: the port that the router forwards to us, and what stands in the way.
    virtual std::string port_mapping_json() = 0;
    /// Who talks through this node's UDP relay: `{"UDPPort":40000,"Sessions":[…]}`.
    virtual std::string peer_relay_sessions_json() = 0;
    /// Tries every relay of the map; JSON, see daemon::RelayChecks. `done` may come at once.
    using RelaysDone = std::function<void(const std::string& json)>;
    virtual void check_relays(RelaysDone done) = 0;
    /// Compact JSON array, one object per peer: what `tailscale debug paths` prints. `peer`: only the one with this address.
    virtual std::string paths_json(const std::optional<Addr>& peer) = 0;
    /// Compact JSON object: why there is no direct path or no connection at all, for `tailscale doctor`. With `measure`
    /// the relays are asked anew first, which may take some seconds; `done` is called once in any case.
    using DoctorDone = std::function<void(std::string)>;
    virtual void doctor(const std::optional<Addr>& peer, bool measure, DoctorDone done) = 0;
    /// "" = fine; else the warning people read.
    virtual std::string ip_forwarding_warning() = 0;
    virtual std::string udp_gro_forwarding_warning() = 0;
    virtual bool uses_so_mark() = 0;
    virtual std::string state_dir() = 0;
    /// POST dial without a TUN: the connection of a client that waits for its other end. `client` hears "101" or "502 dial failure: …"
    /// and is the backend's from now on. Not called if the status says TUN.
    virtual void dial(const std::string& host, uint16_t port, platform::ByteStream client) = 0;
    /// Nodes that files can be sent to: compact JSON [{Node,PeerAPIURL}]; an error in words if that is off.
    virtual Result<std::string> file_targets_json() = 0;
    virtual std::vector<api::LoginProfile> profiles() = 0;
    virtual api::LoginProfile current_profile() = 0;
    /// Another login becomes the current one ("" = one to come, with fresh prefs); the node goes over to it. kNotFound: no such one.
    virtual Status switch_profile(const std::string& id) = 0;
    /// Forgets a login; the current one as if it had never been. The control server is not told.
    virtual Status remove_profile(const std::string& id) = 0;
    /// First message for a new watcher; the parts named by `mask` (api::WatchBit).
    virtual api::Notify initial_notify(uint64_t mask) = 0;

    // ---- writing (root, the daemon's own user, the operator)
    /// Applies the change and returns the new prefs. An error is answered as 400 {"Error":"…"}.
    virtual Result<api::Prefs> edit_prefs(const api::MaskedPrefs& change, const Caller& caller) = 0;
    virtual Status check_prefs(const api::Prefs& prefs) = 0;
    /// Takes over update_prefs, remembers the auth key, (re)starts the control connection. 204 on success. The state
    /// must then come on the bus even if it has not changed: clients wait for "Running" without having seen it before.
    /// After a new login SelfChange must come too: `up --force-reauth` waits for a new key.
    virtual Status start(const api::StartOptions& options, const Caller& caller) = 0;
    /// Begins or continues a login; a URL arrives on the bus. Must use an auth key given to start() before.
    virtual Status login_interactive(const Caller& caller) = 0;
    using Done = std::function<void(Status)>;
    /// `done` when the node is logged out here; the control server is told with best effort.
    virtual void logout(const Caller& caller, Done done) = 0;
    using PingDone = std::function<void(const api::PingResult&)>;
    /// `done` may never be called (no pong): the client gives up and closes.
    virtual void ping(const api::PingRequest& request, PingDone done) = 0;
    /// Files from peers: compact JSON [{Name,Size}], null if none. With `wait` (0 to a day): as soon as there is one, or none at the end.
    using FilesDone = std::function<void(Result<std::string>)>;
    virtual void waiting_files(Duration wait, FilesDone done) = 0;
    virtual void delete_file(const std::string& name, Done done) = 0;
    /// GET files/NAME: `client` hears the whole answer, and is the backend's from now on.
    virtual void read_file(const std::string& name, platform::ByteStream client) = 0;
    /// PUT file-put/ID/NAME: `client`'s request has not been read yet, for it may be endless. The backend reads, refuses and answers it.
    virtual void put_file(platform::ByteStream client) = 0;
    /// POST debug?action=…: "rebind", "restun", …; nullopt = unknown action → 400.
    virtual std::optional<Result<Reply>> debug_action(std::string_view action) = 0;
    virtual void reset_auth() = 0;
    /// `done` when the host is as the calls before want it, or after some seconds: whoever has the answer to `down` or `set`
    /// goes on to use names.
    virtual void when_host_ready(std::function<void()> done) = 0;
};

}  // namespace mesh::localapi
