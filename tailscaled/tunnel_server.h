// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the small TCP servers of this node have in common (DNS over TCP, the PeerAPI): a listener for what comes by the TUN,
/// and the connections it brought. On the control loop.

#include <algorithm>
#include <initializer_list>
#include <list>
#include <memory>
#include <string>

#include "platform/loop/loop.h"
#include "platform/net/listener.h"

namespace mesh::daemon {

/// Both families on one socket, or IPv4 alone on a kernel without IPv6. `device`: see platform::Listener; "" takes connections
/// from anywhere (tests). `ports` are tried in their order, 0 is any. Error: that of the last try.
[[nodiscard]] Result<std::unique_ptr<platform::Listener>> listen_by_tun(platform::Loop& loop, const std::string& device,
                                                                        std::initializer_list<uint16_t> ports,
                                                                        const platform::Listener::OnAccept& on_accept);

/// Connections, owned, in the order they came. `Connection` has begin() and close().
template <class Connection>
class Connections {
   public:
    explicit Connections(platform::Loop& loop) : loop_(loop) {}

    [[nodiscard]] size_t size() const { return list_.size(); }
    [[nodiscard]] auto begin() const { return list_.begin(); }
    [[nodiscard]] auto end() const { return list_.end(); }
    void add(std::shared_ptr<Connection> connection) {
        list_.push_back(std::move(connection));
        list_.back()->begin();
    }
    /// Closed now, gone in a later turn: it may be on the stack.
    void drop(Connection* connection) {
        const auto it = std::find_if(list_.begin(), list_.end(), [&](const auto& c) { return c.get() == connection; });
        if (it == list_.end()) return;
        connection->close();
        loop_.post([old = std::move(*it)] {});
        list_.erase(it);
    }

   private:
    platform::Loop& loop_;
    std::list<std::shared_ptr<Connection>> list_;
};

}  // namespace mesh::daemon
