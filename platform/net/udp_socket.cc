// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/udp_socket.h"

#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/log.h"
#include "platform/net/sockaddr.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace mesh::platform {
namespace {

constexpr int kBulkBufferBytes = 7 << 20;
constexpr size_t kBulkRxBytes = size_t{512} << 10;
constexpr size_t kSmallRxBytes = size_t{64} << 10;
constexpr size_t kGroSlot = size_t{64} << 10;  // the kernel merges up to 65,535 bytes
constexpr size_t kBulkSlot = 9728;             // jumbo frames
constexpr size_t kSmallSlot = 4096;
constexpr size_t kMaxRx = kBulkRxBytes / kBulkSlot;
constexpr int kRxRoundsPerTurn = 4;
constexpr size_t kMaxTx = 64;
constexpr size_t kMaxTxPieces = 256;
constexpr size_t kMaxSegments = 64;  // UDP_MAX_SEGMENTS of older kernels
constexpr size_t kMaxPayloadV4 = 65507;
constexpr size_t kMaxPayloadV6 = 65527;
constexpr int kWaitMs = 2;

bool env_set(const char* name) {
    const char* v = std::getenv(name);
    return v != nullptr && *v != '\0' && std::string_view(v) != "0" && std::string_view(v) != "false";
}

bool set_int(int fd, int level, int option, int value) {
    return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

void grow_buffer(int fd, int force_option, int option, int bytes) {
    if (set_int(fd, SOL_SOCKET, force_option, bytes) || set_int(fd, SOL_SOCKET, option, bytes)) return;
    log::debug(1, "udp: socket buffer of {} bytes: {}", bytes, std::strerror(errno));
}

union RxControl {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint32_t))];
};
union TxControl {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
};

/// One message on its way out: one or more datagrams to one endpoint.
struct TxMessage {
    Endpoint to;
    size_t first_piece = 0;
    size_t pieces = 0;
    size_t total = 0;
    size_t segment = 0;   // size of all datagrams but the last
    size_t segments = 0;  // how many datagrams
};

}  // namespace

struct UdpSocket::Buffers {
    size_t rx_slots = 0;
    size_t rx_slot_bytes = 0;
    std::unique_ptr<uint8_t[]> rx_memory;
    std::array<mmsghdr, kMaxRx> rx{};
    std::array<iovec, kMaxRx> rx_pieces{};
    std::array<sockaddr_storage, kMaxRx> rx_from;
    std::array<RxControl, kMaxRx> rx_control;
    std::array<UdpReceive, kMaxRx> rx_batch;

    std::array<mmsghdr, kMaxTx> tx{};
    std::array<iovec, kMaxTxPieces> tx_pieces{};
    std::array<sockaddr_storage, kMaxTx> tx_to;
    std::array<TxControl, kMaxTx> tx_control;
    std::array<TxMessage, kMaxTx> tx_message;
};

UdpSocket::UdpSocket() : buffers_(std::make_unique<Buffers>()) {}

UdpSocket::~UdpSocket() { detach(); }

Result<std::unique_ptr<UdpSocket>> UdpSocket::open(const Options& options) {
    std::unique_ptr<UdpSocket> s(new UdpSocket);
    const bool v4 = options.family == Addr::Family::kV4;
    const char* name = v4 ? "udp4" : "udp6";
    s->family_ = options.family;
    s->protect_ = options.protect;
    s->sendmmsg_ = options.sendmmsg != nullptr ? options.sendmmsg : ::sendmmsg;
    s->fd_ = UniqueFd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
    const int fd = s->fd_.get();
    if (fd < 0) return fail_errno(std::string(name) + ": open socket", errno);
    if (!v4 && !set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) return fail_errno(std::string(name) + ": IPV6_V6ONLY", errno);
    if (options.shared && !set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1)) return fail_errno(std::string(name) + ": SO_REUSEADDR", errno);
    if (options.protect == Protect::kYes) TRY(protect_socket(fd, options.bind_addr));

    const auto bind_to = [&](uint16_t port) {
        sockaddr_storage at;
        const socklen_t len = to_sockaddr({options.bind_addr, port}, options.family, at);
        return ::bind(fd, reinterpret_cast<const sockaddr*>(&at), len) == 0;
    };
    if (!bind_to(options.port)) {
        const int err = errno;
        if (options.exact_port || options.port == 0 || (err != EADDRINUSE && err != EACCES))
            return fail_errno(std::string(name) + ": bind to port " + std::to_string(options.port), err);
        log::info("{}: port {} is not to be had ({}), using another", name, options.port, std::strerror(err));
        if (!bind_to(0)) return fail_errno(std::string(name) + ": bind", errno);
    }
    sockaddr_storage at{};
    socklen_t len = sizeof at;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &len) != 0)
        return fail_errno(std::string(name) + ": getsockname", errno);
    s->local_port_ = from_sockaddr(at).port;

    Buffers& b = *s->buffers_;
    set_int(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
    if (options.bulk) {
        grow_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, kBulkBufferBytes);
        grow_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, kBulkBufferBytes);
        int probe = 0;
        socklen_t probe_len = sizeof probe;
        s->gso_ = !env_set("TS_DEBUG_DISABLE_UDP_GSO") &&
                  ::getsockopt(fd, SOL_UDP, UDP_SEGMENT, &probe, &probe_len) == 0;
        s->gro_ = !env_set("TS_DEBUG_DISABLE_UDP_GRO") && set_int(fd, SOL_UDP, UDP_GRO, 1);
    }
    const size_t bytes = options.bulk ? kBulkRxBytes : kSmallRxBytes;
    b.rx_slot_bytes = s->gro_ ? kGroSlot : options.bulk ? kBulkSlot : kSmallSlot;
    b.rx_slots = bytes / b.rx_slot_bytes;
    CHECK(b.rx_slots <= kMaxRx);
    b.rx_memory = std::make_unique_for_overwrite<uint8_t[]>(bytes);  // pages cost nothing until traffic touches them
    for (size_t i = 0; i < b.rx_slots; ++i) {
        b.rx_pieces[i] = {b.rx_memory.get() + i * b.rx_slot_bytes, b.rx_slot_bytes};
        msghdr& h = b.rx[i].msg_hdr;
        h.msg_iov = &b.rx_pieces[i];
        h.msg_iovlen = 1;
        h.msg_name = &b.rx_from[i];
        h.msg_control = b.rx_control[i].bytes;
    }
    return s;
}

Endpoint UdpSocket::local_endpoint() const {
    sockaddr_storage at{};
    socklen_t len = sizeof at;
    if (::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&at), &len) != 0) return {};
    return from_sockaddr(at);
}

void UdpSocket::protect_again() {
    if (protect_ == Protect::kNo || socket_mark_works()) return;
    if (const Status s = protect_socket(fd_.get(), Addr()); !s) log::info("udp: {}", s.error().message());
}

void UdpSocket::attach(Loop& loop, Listener& listener) {
    CHECK(listener_ == nullptr);
    listener_ = &listener;
    poll_ = std::make_unique<FdPoll>(loop, fd_.get(), [this](FdPoll::Events) { on_readable(); });
    poll_->set_interest(true, false);
}

void UdpSocket::detach() {
    if (gone_ != nullptr) *gone_ = true;
    gone_ = nullptr;
    poll_.reset();
    listener_ = nullptr;
}

// ---- receiving

void UdpSocket::on_readable() {
    bool gone = false;
    gone_ = &gone;
    for (int round = 0; round < kRxRoundsPerTurn; ++round) {
        const int n = receive_batch();
        if (n < 0) continue;  // an error of some earlier datagram; the next call goes on
        if (n == 0) break;
        size_t kept = 0;
        Buffers& b = *buffers_;
        for (size_t i = 0; i < static_cast<size_t>(n); ++i)
            if (b.rx_batch[i].from.is_valid() && !b.rx_batch[i].bytes.empty()) {
                counters_.rx_bytes += b.rx_batch[i].bytes.size();
                counters_.rx_datagrams += (b.rx_batch[i].bytes.size() + b.rx_batch[i].stride - 1) / b.rx_batch[i].stride;
                b.rx_batch[kept++] = b.rx_batch[i];
            }
        if (kept > 0) {
            listener_->on_datagrams(std::span(b.rx_batch.data(), kept));
            if (gone) return;
        }
        if (static_cast<size_t>(n) < b.rx_slots) break;
    }
    gone_ = nullptr;
    listener_->on_batch_end();  // last
}

/// Messages read into rx_batch (bytes empty = to be skipped); 0 = nothing there; −1 = a pending error was fetched.
int UdpSocket::receive_batch() {
    Buffers& b = *buffers_;
    for (size_t i = 0; i < b.rx_slots; ++i) {
        msghdr& h = b.rx[i].msg_hdr;
        h.msg_namelen = sizeof b.rx_from[i];
        h.msg_controllen = sizeof b.rx_control[i].bytes;
        h.msg_flags = 0;
    }
    int n = 0;
    do {
        n = ::recvmmsg(fd_.get(), b.rx.data(), static_cast<unsigned>(b.rx_slots), MSG_DONTWAIT, nullptr);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        msghdr& h = b.rx[i].msg_hdr;
        size_t len = b.rx[i].msg_len;
        size_t stride = len;
        if ((h.msg_flags & MSG_TRUNC) != 0) {
            ++counters_.rx_truncated;
            len = 0;
        }
        for (cmsghdr* c = CMSG_FIRSTHDR(&h); c != nullptr; c = CMSG_NXTHDR(&h, c)) {
            if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
                uint16_t size = 0;  // the kernel writes an int; its low half comes first on every machine that matters
                if (c->cmsg_len >= CMSG_LEN(sizeof(int))) {
                    int wide = 0;
                    std::memcpy(&wide, CMSG_DATA(c), sizeof wide);
                    size = static_cast<uint16_t>(wide);
                } else if (c->cmsg_len >= CMSG_LEN(sizeof size)) {
                    std::memcpy(&size, CMSG_DATA(c), sizeof size);
                }
                if (size > 0 && size < len) stride = size;
            } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL &&
                       c->cmsg_len >= CMSG_LEN(sizeof(uint32_t))) {
                uint32_t drops = 0;
                std::memcpy(&drops, CMSG_DATA(c), sizeof drops);
                counters_.rx_kernel_drops = drops;
            }
        }
        UdpReceive& r = b.rx_batch[i];
        r.from = from_sockaddr(b.rx_from[i]);
        r.bytes = MutByteSpan(static_cast<uint8_t*>(b.rx_pieces[i].iov_base), len);
        r.stride = static_cast<uint32_t>(stride);
    }
    return n;
}

// ---- sending

void UdpSocket::send(const Endpoint& to, ByteSpan datagram) {
    const UdpSend one{to, datagram, 0};
    send(std::span(&one, 1));
}

void UdpSocket::send(std::span<const UdpSend> batch, SendErrors* errors) {
    Buffers& b = *buffers_;
    errors_ = errors;
    const size_t max_payload = family_ == Addr::Family::kV4 ? kMaxPayloadV4 : kMaxPayloadV6;
    waited_ = false;
    size_t messages = 0;
    size_t pieces = 0;
    for (const UdpSend& u : batch) {
        if (u.bytes.empty()) continue;
        if (u.to.addr.is_v4() != (family_ == Addr::Family::kV4) || !u.to.is_valid()) {
            note_error(u.to, EAFNOSUPPORT);
            continue;
        }
        const size_t segment = u.segment == 0 ? u.bytes.size() : std::min<size_t>(u.segment, u.bytes.size());
        const size_t count = (u.bytes.size() + segment - 1) / segment;
        if (gso_ && messages > 0 && pieces < kMaxTxPieces) {
            TxMessage& last = b.tx_message[messages - 1];
            // Joins when only full datagrams lie before it: a shorter one ends a message.
            if (last.to == u.to && last.total == last.segments * last.segment &&
                (count == 1 ? segment <= last.segment : segment == last.segment) &&
                last.segments + count <= kMaxSegments && last.total + u.bytes.size() <= max_payload) {
                b.tx_pieces[pieces++] = {const_cast<uint8_t*>(u.bytes.data()), u.bytes.size()};
                ++last.pieces;
                last.total += u.bytes.size();
                last.segments += count;
                continue;
            }
        }
        const size_t per_message =
            gso_ ? std::max<size_t>(1, std::min(kMaxSegments, max_payload / segment)) * segment : segment;
        for (size_t at = 0; at < u.bytes.size(); at += per_message) {
            if (messages == kMaxTx || pieces == kMaxTxPieces) {
                flush_messages(messages);
                messages = pieces = 0;
            }
            const size_t n = std::min(per_message, u.bytes.size() - at);
            b.tx_pieces[pieces] = {const_cast<uint8_t*>(u.bytes.data() + at), n};
            b.tx_message[messages++] = {u.to, pieces++, 1, n, segment, (n + segment - 1) / segment};
        }
    }
    if (messages > 0) flush_messages(messages);
}

void UdpSocket::flush_messages(size_t count) {
    Buffers& b = *buffers_;
    for (size_t i = 0; i < count; ++i) {
        const TxMessage& m = b.tx_message[i];
        msghdr& h = b.tx[i].msg_hdr;
        h = {};
        h.msg_name = &b.tx_to[i];
        h.msg_namelen = to_sockaddr(m.to, family_, b.tx_to[i]);
        h.msg_iov = &b.tx_pieces[m.first_piece];
        h.msg_iovlen = m.pieces;
        if (m.segments > 1) {
            h.msg_control = b.tx_control[i].bytes;
            h.msg_controllen = sizeof b.tx_control[i].bytes;
            std::memset(b.tx_control[i].bytes, 0, sizeof b.tx_control[i].bytes);
            cmsghdr* c = CMSG_FIRSTHDR(&h);
            c->cmsg_level = SOL_UDP;
            c->cmsg_type = UDP_SEGMENT;
            c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            const auto size = static_cast<uint16_t>(m.segment);
            std::memcpy(CMSG_DATA(c), &size, sizeof size);
        }
    }
    size_t sent = 0;
    while (sent < count) {
        const int n = sendmmsg_(fd_.get(), b.tx.data() + sent, static_cast<unsigned>(count - sent), MSG_DONTWAIT);
        if (n > 0) {
            for (size_t i = sent; i < sent + static_cast<size_t>(n); ++i) {
                counters_.tx_datagrams += b.tx_message[i].segments;
                counters_.tx_bytes += b.tx_message[i].total;
            }
            sent += static_cast<size_t>(n);
            continue;
        }
        const int err = n == 0 ? EAGAIN : errno;
        const TxMessage& m = b.tx_message[sent];
        if (err == EINTR) continue;
        if (err == EAGAIN || err == EWOULDBLOCK) {
            if (wait_writable()) continue;
            counters_.tx_full += count - sent;
            return;
        }
        if (err == ENOBUFS) {
            ++counters_.tx_full;
        } else if (m.segments > 1 && (err == EIO || err == EINVAL || err == EMSGSIZE || err == EOPNOTSUPP)) {
            // EIO: the interface cannot compute checksums, so it never can. The others: these datagrams are larger
            // than the path's MTU, which the kernel fragments only one by one.
            if (err == EIO && gso_) {
                gso_ = false;
                counters_.gso_turned_off = 1;
                log::info("udp: segmentation offload does not work on this interface, going on without it");
            }
            send_uncoalesced(sent);
        } else {
            note_error(m.to, err);
        }
        ++sent;
    }
}

void UdpSocket::send_uncoalesced(size_t message) {
    Buffers& b = *buffers_;
    const TxMessage& m = b.tx_message[message];
    for (size_t p = m.first_piece; p < m.first_piece + m.pieces; ++p) {
        const auto* data = static_cast<const uint8_t*>(b.tx_pieces[p].iov_base);
        const size_t len = b.tx_pieces[p].iov_len;
        for (size_t at = 0; at < len;) {
            const size_t size = std::min(m.segment, len - at);
            const ssize_t n = ::sendto(fd_.get(), data + at, size, MSG_DONTWAIT,
                                       reinterpret_cast<const sockaddr*>(&b.tx_to[message]),
                                       b.tx[message].msg_hdr.msg_namelen);
            const int err = n < 0 ? errno : 0;
            if (err == EINTR || ((err == EAGAIN || err == EWOULDBLOCK) && wait_writable())) continue;
            at += size;
            if (err == 0) {
                ++counters_.tx_datagrams;
                counters_.tx_bytes += size;
            } else if (err == EAGAIN || err == EWOULDBLOCK || err == ENOBUFS) {
                ++counters_.tx_full;
            } else {
                note_error(m.to, err);
            }
        }
    }
}

/// Once per send(): a short pause is back-pressure towards TUN; a longer one would stall the loop.
bool UdpSocket::wait_writable() {
    if (waited_) return false;
    waited_ = true;
    pollfd p{fd_.get(), POLLOUT, 0};
    return ::poll(&p, 1, kWaitMs) > 0;
}

void UdpSocket::note_error(const Endpoint& to, int err) {
    ++counters_.tx_errors;
    if (errors_ != nullptr) errors_->on_send_error(to, err);
}

}  // namespace mesh::platform
