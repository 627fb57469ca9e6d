// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The local API on a Unix socket: the shell around Session. Runs on the control loop. See README.md for the rules.

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/random.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"
#include "platform/net/listener.h"
#include "tailscaled/localapi/backend.h"
#include "tailscaled/localapi/session.h"

namespace mesh::localapi {

struct ServerOptions {
    std::string version_header;  ///< see Context
    uid_t daemon_uid = 0;        ///< may write as root may
};

class Server {
   public:
    /// Connections at a time. Above it the longest idle one is closed; if none is idle the new one is.
    static constexpr size_t kMaxConnections = 512;
    /// Of all users other than root and the daemon's own, so that those always get in.
    static constexpr size_t kMaxUnprivileged = 384;
    /// Of one user other than root and the daemon's own.
    static constexpr size_t kMaxPerUser = 128;
    /// Answers waiting for slow readers, all together; above it the slowest reader is cut.
    static constexpr size_t kMaxQueued = 64U << 20;

    /// `loop`, `backend` and `random` must outlive the server.
    Server(platform::Loop& loop, Backend& backend, Random& random, ServerOptions options);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Error "address already in use" if another daemon answers on that path.
    [[nodiscard]] Status listen(const std::string& path);
    /// Takes over a connected Unix socket.
    void adopt(platform::ByteStream stream);
    /// To every watcher of the bus, as its mask asks for. `version` of the message is sent as given.
    void publish(const api::Notify& notify);
    [[nodiscard]] size_t connections() const { return connections_.size(); }

   private:
    class Connection;
    [[nodiscard]] bool privileged(uid_t uid) const { return uid == 0 || uid == options_.daemon_uid; }
    /// False if all places are taken by connections that are busy.
    [[nodiscard]] bool make_room(uid_t uid);
    void trim_queues();
    void sweep_soon();
    void sweep();
    void remove(uint64_t id);

    platform::Loop& loop_;
    Context context_;
    const ServerOptions options_;
    uint64_t next_id_ = 1;
    bool sweep_posted_ = false;
    std::shared_ptr<Server*> self_;                              // cut before a posted sweep can find us gone
    std::map<uint64_t, std::unique_ptr<Connection>> connections_;  // by age
    std::unique_ptr<platform::Listener> listener_;
};

}  // namespace mesh::localapi
