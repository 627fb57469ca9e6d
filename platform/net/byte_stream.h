// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A connected TCP or Unix socket, with or without TLS: bytes in, bytes out, on whichever loop it is attached to.
///
/// An established stream can move between loops (threads): detach() on the old loop's thread, hand the object over
/// (Channel<ByteStream>), attach() on the new one. Bytes already read but not used go back with unread() and are
/// delivered first.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/result.h"
#include "platform/fd.h"
#include "platform/loop/loop.h"
#include "platform/tls/tls.h"

namespace mesh::platform {

/// Who is at the other end of a Unix socket (SO_PEERCRED), as of connect time.
struct PeerCredentials {
    uint32_t uid = 0;
    uint32_t gid = 0;
    int32_t pid = 0;
};

/// Move-only value; may be moved while attached. Destruction closes the socket without waiting for queued bytes.
class ByteStream {
   public:
    /// Must outlive the attachment. Every call is the last thing the stream does: the stream may be destroyed, moved,
    /// detached or closed inside.
    class Listener {
       public:
        virtual ~Listener() = default;
        /// TLS handshake finished (never called for plain streams). write() before that is queued.
        virtual void on_ready() {}
        virtual void on_bytes(MutByteSpan bytes) = 0;
        /// Value: the peer finished sending; writing is still possible until close(). Error: the stream is dead, in words
        /// fit for a user. Called once, and nothing after it but on_drained() in the first case.
        virtual void on_closed(const Status& why) = 0;
        /// queued_bytes() fell to 0 after write() had left bytes waiting.
        virtual void on_drained() {}
    };
    static constexpr size_t kDefaultQueueLimit = size_t{4} << 20;

    ByteStream();  ///< closed
    /// A connected socket; `tls` makes it the client or server side of a TLS session whose handshake runs when attached.
    explicit ByteStream(UniqueFd fd, std::unique_ptr<TlsSession> tls = nullptr);
    ~ByteStream();
    ByteStream(ByteStream&&) noexcept;
    ByteStream& operator=(ByteStream&&) noexcept;

    [[nodiscard]] bool is_open() const;
    [[nodiscard]] bool attached() const;

    void attach(Loop& loop, Listener& listener);
    /// Back to a value without loop. Queued bytes stay queued. After this no callback comes.
    void detach();
    /// Gives bytes back: they come again, before any others, at the next turn (or after the next attach).
    void unread(ByteSpan bytes);
    /// Stops or resumes on_bytes. Reading is on at first.
    void set_reading(bool on);

    /// Sends now what the socket takes and queues the rest. False (and nothing taken) if the queue would exceed its limit
    /// or the stream is closed. Never calls the listener from inside.
    bool write(ByteSpan bytes);
    bool write(std::string_view text) { return write(as_bytes(text)); }
    /// Only queues; flush() (or the loop's next turn) sends. For many small pieces.
    bool write_later(ByteSpan bytes);
    void flush();
    /// Bytes accepted and not yet given to the kernel (with TLS: as ciphertext).
    [[nodiscard]] size_t queued_bytes() const;
    void set_queue_limit(size_t bytes);
    /// After the queue: TLS close_notify and shutdown(SHUT_WR). Reading goes on.
    void finish_writing();
    /// Closes at once; no callback comes after it.
    void close();

    /// Adds TLS to a plain detached stream (after CONNECT, for instance).
    void start_tls(std::unique_ptr<TlsSession> tls);
    /// nullptr for plain streams. Peer chain, version, certificate problem.
    [[nodiscard]] const TlsSession* tls() const;

    [[nodiscard]] Endpoint local_endpoint() const;   ///< invalid for Unix sockets
    [[nodiscard]] Endpoint remote_endpoint() const;  ///< invalid for Unix sockets
    [[nodiscard]] Result<PeerCredentials> peer_credentials() const;
    [[nodiscard]] int fd() const;  ///< for socket options; -1 if closed

   private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace mesh::platform
