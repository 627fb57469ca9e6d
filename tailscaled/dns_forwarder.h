// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Passes DNS queries on to other servers: all servers of a route at once by UDP, again after a second, by TCP after two;
/// the first good answer wins, SERVFAIL and REFUSED wait for a better one. Whoever asks gets an answer, in 4.5 s at most:
/// a resolver that hears SERVFAIL turns to its next server, one that hears nothing waits (glibc: 5 s).
///
/// On the control loop. Sockets are marked, so they leave beside the tunnel, but for servers that are reached through it.

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "platform/http/http_client.h"
#include "platform/loop/loop.h"
#include "platform/net/dialer.h"
#include "tailscaled/dns/routes.h"

namespace mesh::daemon {

class DnsForwarder {
   public:
    static constexpr size_t kMaxOutstanding = 256;
    static constexpr size_t kMaxSame = 16;  ///< of one question: more is a circle of servers that ask each other
    static constexpr Duration kPatience = milliseconds(4500);

    /// Called exactly once, maybe at once, unless the forwarder dies first.
    using Done = std::function<void(Bytes reply)>;
    /// Is this server reached through the tunnel?
    using InTunnel = std::function<bool(const Addr&)>;

    DnsForwarder(platform::Loop& loop, platform::Dialer& dialer, platform::HttpClient& http, Random& random);
    ~DnsForwarder();
    DnsForwarder(const DnsForwarder&) = delete;
    DnsForwarder& operator=(const DnsForwarder&) = delete;

    /// Queries under way go on with the old ones.
    void set_routes(dns::Routes routes, InTunnel in_tunnel);
    [[nodiscard]] const dns::Routes& routes() const { return routes_; }

    enum class Client : uint8_t { kUdp, kTcp };
    /// `query` must be one that dns::answer() said kForward to. Over kUdp the reply is one the client can take.
    void ask(ByteSpan query, Client client, Done done);

    [[nodiscard]] size_t outstanding() const { return exchanges_.size(); }
    /// No server has answered anything for some time although asked.
    [[nodiscard]] bool failing() const;

   private:
    class Exchange;
    void finish(Exchange* exchange, Bytes reply, bool answered);

    platform::Loop& loop_;
    platform::Dialer& dialer_;
    platform::HttpClient& http_;
    Random& random_;
    dns::Routes routes_;
    InTunnel in_tunnel_;
    Time failing_since_;  ///< zero: the last query was answered
    std::list<std::unique_ptr<Exchange>> exchanges_;
};

}  // namespace mesh::daemon
