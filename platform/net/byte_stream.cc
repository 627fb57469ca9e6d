// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/byte_stream.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "base/crypto/crypto.h"
#include "platform/net/sockaddr.h"
#include "platform/spare_buffer.h"

namespace mesh::platform {
namespace {

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr int kReadsPerTurn = 4;

/// One per thread and use: a stream that does not read right now needs no buffer.
template <class Use>
MutByteSpan buffer_for() {
    thread_local const auto buffer = std::make_unique_for_overwrite<std::array<uint8_t, kReadBytes>>();
    return *buffer;
}
struct FromSocket;
struct FromTls;

Error lost(int err) {
    if (err == EPIPE) return {Code::kUnavailable, 0, "the other side closed the connection"};
    return {err == ETIMEDOUT ? Code::kTimeout : Code::kUnavailable, err, "connection lost"};
}

}  // namespace

struct ByteStream::State {
    UniqueFd fd;
    std::unique_ptr<TlsSession> tls;
    Bytes out;          // [out_at, end) waits for the kernel
    size_t out_at = 0;
    Bytes early_plain;  // written before the TLS handshake was done
    Bytes unread;
    size_t limit = kDefaultQueueLimit;
    bool reading = true;
    bool ready = false;         // TLS: on_ready was called
    bool ended = false;         // on_closed was called
    bool left_waiting = false;  // on_drained is owed
    bool finish = false;
    bool notified = false;      // close_notify is on its way
    bool finished = false;
    std::optional<Error> error;  // to be reported by the next turn

    Loop* loop = nullptr;
    Listener* listener = nullptr;
    bool* gone = nullptr;  // a caller up the stack wants to know when we leave it
    std::optional<FdPoll> poll;
    std::optional<Soon> kick;

    ~State() { leave(); }

    void leave() {
        if (gone != nullptr) *gone = true;
        gone = nullptr;
        if (tls) tls->settle();  // the buffer of this thread goes to others
        poll.reset();
        kick.reset();
        loop = nullptr;
        listener = nullptr;
    }

    [[nodiscard]] size_t queued() const {
        return out.size() - out_at + early_plain.size() + (tls ? tls->output_size() : 0);
    }

    void kick_soon() {
        if (kick) kick->want();
    }

    void set_error(Error e) {
        if (!error) error = std::move(e);
        kick_soon();
    }

    void update_interest() {
        if (!poll) return;
        const bool handshaking = tls && !ready;
        poll->set_interest(!ended && !error && (reading || handshaking), out_at < out.size() && !error);
    }

    // ---- writing

    /// As far as the kernel takes it. Calls nobody.
    void flush() {
        if (!fd.valid() || error) return;
        if (finish && !notified && tls && ready) {
            notified = true;
            tls->close_notify();
        }
        if (tls) tls->take_output(out);
        while (out_at < out.size()) {
            const ssize_t n = ::send(fd.get(), out.data() + out_at, out.size() - out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
            if (n < 0) {
                set_error(lost(errno));
                break;
            }
            out_at += static_cast<size_t>(n);
        }
        if (out_at == out.size()) {
            out_at = 0;
            return_memory(out);
            if (finish && !finished && (!tls || notified)) {
                finished = true;
                ::shutdown(fd.get(), SHUT_WR);
            }
        } else {
            left_waiting = true;
            if (out_at > out.size() / 2) {
                out.erase(out.begin(), out.begin() + static_cast<ptrdiff_t>(out_at));
                out_at = 0;
            }
        }
        update_interest();
    }

    bool accept(ByteSpan bytes) {
        if (!fd.valid() || error || finish) return false;
        if (queued() + bytes.size() > limit) return false;
        if (tls && !tls->established()) {
            early_plain.insert(early_plain.end(), bytes.begin(), bytes.end());
        } else if (tls) {
            if (const Status s = tls->write(bytes); !s) {
                set_error(s.error());
                return false;
            }
        } else {
            borrow_memory(out);
            out.insert(out.end(), bytes.begin(), bytes.end());
        }
        return true;
    }

    // ---- reading. Every step returns false when the caller must return at once and touch nothing.

    template <class F>
    bool call_out(F&& f) {
        bool away = false;
        gone = &away;
        f();
        if (away) return false;
        gone = nullptr;
        return true;
    }

    bool report_end() {
        ended = true;
        update_interest();
        listener->on_closed(Status{});
        return false;
    }

    bool report_error() {
        const Error e = std::move(*error);
        Listener* l = listener;
        const bool told = ended;
        leave();
        fd.reset();
        if (!told) l->on_closed(tl::unexpected(e));
        return false;
    }

    bool step_handshake() {
        const Result<bool> done = tls->handshake();
        flush();
        if (!done) set_error(done.error());
        if (!done || !*done) return true;
        ready = true;
        if (!early_plain.empty()) {
            const Status s = tls->write(early_plain);
            Bytes().swap(early_plain);
            if (!s) set_error(s.error());
        }
        flush();
        return call_out([this] { listener->on_ready(); });
    }

    /// All plaintext that has arrived.
    bool pump_tls() {
        if (!ready && !error && !step_handshake()) return false;
        while (ready && reading && !ended && !error) {
            const MutByteSpan buffer = buffer_for<FromTls>();
            const Result<size_t> n = tls->read(buffer);
            if (!n) {
                set_error(n.error());
                break;
            }
            if (*n == 0 && tls->ended()) return report_end();
            if (*n == 0) break;
            const bool here = call_out([&] { listener->on_bytes(buffer.first(*n)); });
            crypto::wipe(buffer.first(*n));  // the buffer stays for the life of the thread; a key may have been in it
            if (!here) return false;
        }
        if (tls->output_size() > 0) flush();  // answers to key updates
        return true;
    }

    bool deliver_unread() {
        if (unread.empty() || !reading || ended || (tls && !ready)) return true;
        Bytes bytes;
        bytes.swap(unread);
        return call_out([&] { listener->on_bytes(bytes); });
    }

    bool read_socket() {
        for (int i = 0; i < kReadsPerTurn; ++i) {
            if (ended || error || !(reading || (tls && !ready))) return true;
            const MutByteSpan buffer = buffer_for<FromSocket>();
            const ssize_t n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
            if (n < 0) {
                set_error(lost(errno));
                return true;
            }
            const MutByteSpan bytes = buffer.first(static_cast<size_t>(n));
            if (tls) {
                if (n > 0)
                    tls->lend(bytes);
                else
                    tls->feed_eof();
                if (!pump_tls()) return false;
                tls->settle();
            } else if (n == 0) {
                return report_end();
            } else {
                const bool here = call_out([&] { listener->on_bytes(bytes); });
                crypto::wipe(bytes);
                if (!here) return false;
            }
            if (bytes.size() < buffer.size()) return true;
        }
        return true;
    }

    // ---- events of the loop

    void settle() {
        if (error) {
            report_error();
            return;
        }
        update_interest();
        if (left_waiting && queued() == 0) {
            left_waiting = false;
            listener->on_drained();  // last
        }
    }

    void on_kick() {
        flush();
        if (!error) {
            if (!deliver_unread()) return;
            if (tls && !pump_tls()) return;
        }
        settle();
    }

    void on_events(FdPoll::Events e) {
        if (e.writable) flush();
        if (e.readable && !error) {
            if (!deliver_unread()) return;
            if (!read_socket()) return;
        }
        settle();
    }
};

ByteStream::ByteStream() : state_(std::make_unique<State>()) {}

ByteStream::ByteStream(UniqueFd fd, std::unique_ptr<TlsSession> tls) : state_(std::make_unique<State>()) {
    state_->fd = std::move(fd);
    state_->tls = std::move(tls);
    if (!state_->fd.valid()) return;
    const int flags = ::fcntl(state_->fd.get(), F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK) == 0) ::fcntl(state_->fd.get(), F_SETFL, flags | O_NONBLOCK);
}

ByteStream::~ByteStream() = default;
ByteStream::ByteStream(ByteStream&& o) noexcept : state_(std::move(o.state_)) {}
ByteStream& ByteStream::operator=(ByteStream&& o) noexcept {
    state_ = std::move(o.state_);
    return *this;
}

bool ByteStream::is_open() const { return state_ && state_->fd.valid(); }
bool ByteStream::attached() const { return state_ && state_->loop != nullptr; }

void ByteStream::attach(Loop& loop, Listener& listener) {
    CHECK(is_open());
    CHECK(!attached());
    State* s = state_.get();
    s->loop = &loop;
    s->listener = &listener;
    s->poll.emplace(loop, s->fd.get(), [s](FdPoll::Events e) { s->on_events(e); });
    s->kick.emplace(loop, [](void* self) { static_cast<State*>(self)->on_kick(); }, s);
    if (s->tls || s->error || !s->unread.empty() || s->left_waiting) s->kick_soon();
    s->update_interest();
}

void ByteStream::detach() {
    if (state_) state_->leave();
}

void ByteStream::unread(ByteSpan bytes) {
    if (!is_open() || bytes.empty()) return;
    state_->unread.insert(state_->unread.begin(), bytes.begin(), bytes.end());
    state_->kick_soon();
}

void ByteStream::set_reading(bool on) {
    if (!is_open() || state_->reading == on) return;
    state_->reading = on;
    if (on) state_->kick_soon();  // plaintext that TLS already has makes no event on the socket
    state_->update_interest();
}

bool ByteStream::write(ByteSpan bytes) {
    if (!is_open() || !state_->accept(bytes)) return false;
    // While the kernel's buffer is full, the poll will say when to go on.
    if (!state_->poll || !state_->poll->wants_write()) state_->flush();
    return true;
}

bool ByteStream::write_later(ByteSpan bytes) {
    if (!is_open() || !state_->accept(bytes)) return false;
    state_->kick_soon();
    return true;
}

void ByteStream::flush() {
    if (is_open()) state_->flush();
}

size_t ByteStream::queued_bytes() const { return is_open() ? state_->queued() : 0; }
void ByteStream::set_queue_limit(size_t bytes) {
    if (state_) state_->limit = bytes;
}

void ByteStream::finish_writing() {
    if (!is_open() || state_->finish) return;
    state_->finish = true;
    state_->flush();
}

void ByteStream::close() {
    if (!state_) return;
    state_->leave();
    state_->fd.reset();
}

void ByteStream::start_tls(std::unique_ptr<TlsSession> tls) {
    CHECK(!attached());
    CHECK(!state_->tls);
    state_->tls = std::move(tls);
    state_->tls->feed(state_->unread);
    state_->unread.clear();
}

const TlsSession* ByteStream::tls() const { return state_ ? state_->tls.get() : nullptr; }
int ByteStream::fd() const { return is_open() ? state_->fd.get() : -1; }

Endpoint ByteStream::local_endpoint() const {
    sockaddr_storage at{};
    socklen_t len = sizeof at;
    if (!is_open() || ::getsockname(fd(), reinterpret_cast<sockaddr*>(&at), &len) != 0) return {};
    return from_sockaddr(at);
}

Endpoint ByteStream::remote_endpoint() const {
    sockaddr_storage at{};
    socklen_t len = sizeof at;
    if (!is_open() || ::getpeername(fd(), reinterpret_cast<sockaddr*>(&at), &len) != 0) return {};
    return from_sockaddr(at);
}

Result<PeerCredentials> ByteStream::peer_credentials() const {
    struct ucred c {};
    socklen_t len = sizeof c;
    if (!is_open() || ::getsockopt(fd(), SOL_SOCKET, SO_PEERCRED, &c, &len) != 0)
        return fail_errno("read peer credentials", is_open() ? errno : EBADF);
    return PeerCredentials{c.uid, c.gid, c.pid};
}

}  // namespace mesh::platform
