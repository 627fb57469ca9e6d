// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// UDP from the tunnel to programs of this host and to hosts behind it, with userspace networking: a socket for each pair of
/// endpoints, which is given up when nothing has gone through for a while. On the packet loop.

#include <functional>
#include <list>
#include <memory>
#include <unordered_map>

#include "platform/net/datagram_socket.h"

namespace mesh::daemon {

class UserDatagrams {
   public:
    static constexpr size_t kMaxFlows = 1024;  ///< the one longest unused goes
    static constexpr Duration kIdle = seconds(120);
    static constexpr Duration kIdleDns = seconds(30);  ///< port 53
    /// One whole IP packet for the tunnel.
    using Emit = std::function<void(ByteSpan packet)>;

    /// `mtu`: longer answers are dropped.
    UserDatagrams(platform::Loop& loop, size_t mtu, Emit emit);

    /// From `remote` in the tunnel to `local`, which is `target` for this host. Answers go back the same way.
    void send(const Endpoint& remote, const Endpoint& local, const Endpoint& target, ByteSpan payload);
    void clear();
    [[nodiscard]] size_t flows() const { return flows_.size(); }
    /// As UserNet::client_of().
    [[nodiscard]] const Endpoint* client_of(const Endpoint& backend) const;

   private:
    struct Flow {
        Endpoint remote, local;
        Time used;
        std::unique_ptr<platform::DatagramSocket> socket;
    };
    using Flows = std::list<Flow>;  // used last comes first
    struct Key {
        Endpoint remote, local;
        bool operator==(const Key&) const = default;
    };
    struct Hash {
        size_t operator()(const Key& k) const { return std::hash<Endpoint>()(k.remote) * 31 + std::hash<Endpoint>()(k.local); }
    };
    void answer(Flows::iterator flow, ByteSpan payload);
    void use(Flows::iterator flow);
    void sweep();
    void drop(Flows::iterator flow);

    platform::Loop& loop_;
    const size_t mtu_;
    const Emit emit_;
    Flows flows_;
    std::unordered_map<Key, Flows::iterator, Hash> by_key_;
    platform::Timer sweep_;
};

}  // namespace mesh::daemon
