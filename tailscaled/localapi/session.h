// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One client connection of the local API, without a socket: bytes in, bytes out. Requests are handled one after the
/// other; the next one waits until the answer to the last has left, so a client costs at most one answer and
/// kMaxPipelined bytes. Server (server.h) is the shell around it.

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/http1.h"
#include "base/random.h"
#include "base/time.h"
#include "tailscaled/api/notify.h"
#include "tailscaled/localapi/backend.h"

namespace mesh::localapi {

/// Bytes a client may send ahead while its request is being handled.
inline constexpr size_t kMaxPipelined = 64U << 10;
inline constexpr size_t kMaxBody = 1U << 20;
/// What a reader of the bus may fall behind before it is cut.
inline constexpr size_t kMaxBusBacklog = 2U << 20;

/// What all connections share. Outlives them.
struct Context {
    Backend& backend;
    /// Value of the Tailscale-Version header. "" = no header: clients of another version then print no warning.
    std::string version_header;
    std::function<WallTime()> wall;
    /// May this user change things? (peer_auth.h)
    std::function<bool(uid_t)> may_write;
    Random& random;  ///< for session ids
};

/// Where a session's bytes go.
class Wire {
   public:
    virtual ~Wire() = default;
    /// Takes everything or, if more than `limit` bytes would then wait, nothing (false).
    virtual bool write(std::string_view bytes, size_t limit) = 0;
    [[nodiscard]] virtual size_t queued_bytes() const = 0;
    /// The connection as a value, with nothing waiting in it: the session is over for its client, and so is this object.
    [[nodiscard]] virtual platform::ByteStream release() = 0;
    /// finished() has become true outside of handle_…(): close soon, but not from inside this call.
    virtual void session_finished() = 0;
};

/// A bus message in its two forms, made once for all watchers.
struct BusMessage {
    std::string plain;       ///< one chunk; "" = nothing to say
    std::string with_peers;  ///< the same with peer changes
    explicit BusMessage(api::Notify notify);
};

class Session {
   public:
    Session(Context& context, Wire& wire, uid_t uid, pid_t pid);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    void handle_bytes(ByteSpan bytes);
    /// The client finished sending: an answer under way still leaves.
    void handle_eof();
    /// Everything written has left.
    void handle_drained();
    /// For watchers of the bus; others ignore it.
    void publish(const BusMessage& message);

    /// From now on finished().
    void cut() { cut_ = true; }
    /// The shell must close the connection now.
    [[nodiscard]] bool finished() const;
    /// No complete request under way: may be closed to make room.
    [[nodiscard]] bool idle() const { return !busy_ && !watching_; }
    [[nodiscard]] bool watching() const { return watching_; }
    [[nodiscard]] uid_t uid() const { return uid_; }

   private:
    struct Token;  // lets a late completion find out that the session is gone
    void pump();
    void handle(http1::Request request);
    void finish(http1::Response response);
    void refuse(const Error& error);
    /// True: the connection has gone to the backend.
    bool hand_over(const http1::Request& request);
    bool hand_over_file(const http1::Target& target);
    /// A PUT of a file begins: it goes on unread.
    void hand_over_put();
    void watch_bus(const http1::Target& target);

    Context& context_;
    Wire& wire_;
    const uid_t uid_;
    const pid_t pid_;
    http1::Parser parser_;
    std::string pending_;
    uint64_t sequence_ = 0;
    bool at_start_ = true;  ///< nothing of the next request was parsed
    bool busy_ = false;
    bool pumping_ = false;
    bool keep_alive_ = true;
    bool head_ = false;
    bool watching_ = false;
    bool want_peers_ = false;
    bool close_when_drained_ = false;
    bool cut_ = false;
    size_t bus_limit_ = kMaxBusBacklog;
    std::shared_ptr<Token> token_;
};

}  // namespace mesh::localapi
