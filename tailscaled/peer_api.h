// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// HTTP of this node for its peers ("PeerAPI"): files they send (/v0/put/, see Taildrop), and names for those who use us as exit node:
/// whoever sends all traffic through us asks us for names too, at /dns-query (RFC 8484). Original clients ask nobody else then, so
/// without it they would resolve nothing.
///
/// On the control loop. Takes what comes by the TUN and nothing else; the packet filter lets peers through to this port, so
/// who may do what is decided here.

#include <functional>
#include <memory>
#include <string>

#include "base/dns_message.h"
#include "base/http1.h"
#include "base/result.h"
#include "tailscaled/taildrop.h"
#include "tailscaled/tunnel_server.h"

namespace mesh::daemon {

class PeerApi {
   public:
    static constexpr size_t kMaxConnections = 256;
    static constexpr size_t kMaxPerPeer = 16;
    static constexpr Duration kIdle = seconds(60);

    /// May this address ask for names?
    using Allowed = std::function<bool(const Addr& peer)>;
    using Reply = std::function<void(Bytes)>;
    /// Must call `reply` once, maybe at once; with nothing if there is no answer.
    using Ask = std::function<void(ByteSpan query, Reply reply)>;

    /// The peer behind a connection that this host made to itself for somebody in the tunnel; invalid: nobody's.
    using Who = std::function<Addr(const Endpoint& seen)>;
    struct Services {
        Allowed may_ask;
        Ask ask;
        Taildrop* files = nullptr;  ///< none: no files. Outlives this
        /// What a curious peer is told at "/", one line; "": it is none of ours.
        std::function<std::string(const Addr& peer)> greeting;
        Who who = nullptr;
    };

    /// Listens on `port` or, if that is taken, any other. `device`: see platform::Listener; "" takes connections from anywhere (tests).
    /// With `who` (userspace networking): on 127.0.0.1 instead.
    [[nodiscard]] static Result<std::unique_ptr<PeerApi>> start(platform::Loop& loop, const std::string& device, uint16_t port, Services services);
    ~PeerApi();
    [[nodiscard]] uint16_t port() const { return listener_->port(); }

   private:
    class Connection;
    PeerApi(platform::Loop& loop, Services services) : loop_(loop), services_(std::move(services)) {}
    void accept(platform::ByteStream stream);

    platform::Loop& loop_;
    const Services services_;
    Connections<Connection> connections_{loop_};
    std::unique_ptr<platform::Listener> listener_;
};

/// The port to try first: the same after each restart, as peers go on with the one they know.
[[nodiscard]] uint16_t peer_api_port_for(const Addr& own);

/// A page in a browser must not use its user's place in the tailnet: no script of another page asks here, and none that came by a
/// name pointing to us.
[[nodiscard]] bool is_from_a_browser(const http1::Request& request);

/// "bytes=5-": 5. Without the header: 0. nullopt: any other range.
[[nodiscard]] std::optional<uint64_t> parse_offset(std::string_view range_header);

/// What a request for names asks, or the answer it gets instead.
struct PeerDnsRequest {
    Bytes query;
    http1::Response refusal;  ///< if `query` is empty
};
[[nodiscard]] PeerDnsRequest parse_peer_request(const http1::Request& request, bool allowed);

}  // namespace mesh::daemon
