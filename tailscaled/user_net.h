// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The host's side of userspace networking: joins connections of the tunnel (netstack/user) to sockets of this host, both ways.
/// Stands where the TUN stands otherwise. Everything here runs on the packet loop.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/packet.h"
#include "base/random.h"
#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"

namespace mesh::daemon {

/// A program's connection that waits for its other end.
struct Outgoing {
    platform::ByteStream client;  ///< detached; what it sent beyond `first` is still in it
    Endpoint to;
    std::string first;     ///< to the other end, before what the client sends
    std::string greeting;  ///< to the client when the other end stands
    std::function<std::string(const Error&)> refusal;  ///< ... or if it does not
};

class UserNet {
   public:
    struct Hooks {
        std::function<void()> output;  ///< take() has something; called from inside any function here
        /// An answer for an association.
        std::function<void(uint64_t association, const Endpoint& from, ByteSpan payload)> datagram;
    };
    /// kUnsupported: built without it.
    [[nodiscard]] static Result<std::unique_ptr<UserNet>> open(platform::Loop& loop, Random& random, size_t mtu, Hooks hooks);
    /// Was this program built with it?
    [[nodiscard]] static Status available();

    virtual ~UserNet() = default;
    virtual void set_self(std::vector<Addr> self) = 0;
    /// Packets from peers that the filter let through, no super-packets among them.
    virtual void input(std::span<const TunWrite> packets) = 0;
    /// Packets for peers; valid until the next call.
    [[nodiscard]] virtual std::span<TunRead> take() = 0;
    virtual void dial(Outgoing what) = 0;
    /// From a port of ours that belongs to this association until its end.
    virtual void send_datagram(uint64_t association, const Endpoint& to, ByteSpan payload) = 0;
    virtual void end_association(uint64_t association) = 0;
    /// Whose connection this is: `local` is our end of one that we made to a program here for somebody in the tunnel.
    [[nodiscard]] virtual std::optional<Endpoint> client_of(const Endpoint& local) const = 0;
    /// Ends all connections.
    virtual void clear() = 0;
    /// Counters for `tailscale debug drops`.
    [[nodiscard]] virtual std::vector<std::pair<std::string, uint64_t>> drops() const = 0;
};

}  // namespace mesh::daemon
