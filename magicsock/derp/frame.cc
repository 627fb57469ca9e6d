// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/frame.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mesh::derp {
namespace {

constexpr size_t kMegabyte = 1U << 20;
constexpr uint8_t kDiscoMagic[6] = {'T', 'S', 0xf0, 0x9f, 0x92, 0xac};
constexpr size_t kMinDisco = sizeof kDiscoMagic + 32 + 24;
constexpr size_t kIdleCapacity = 1U << 10;

/// Largest payload that is buffered; nullopt = a type this side does not read, skipped at any length.
std::optional<size_t> payload_limit(FrameType type, FrameReader::Side side) {
    const bool client = side == FrameReader::Side::kClient;
    switch (type) {
        case FrameType::kServerKey: return client ? std::optional<size_t>(1024) : std::nullopt;
        case FrameType::kServerInfo: return client ? std::optional(kNonceLen + kMegabyte) : std::nullopt;
        case FrameType::kRecvPacket: return client ? std::optional(kKeyLen + kMaxPacket) : std::nullopt;
        case FrameType::kKeepAlive: return client ? std::optional<size_t>(1024) : std::nullopt;
        case FrameType::kPeerGone:
        case FrameType::kPeerPresent:
        case FrameType::kRestarting: return client ? std::optional<size_t>(1024) : std::nullopt;
        case FrameType::kHealth: return client ? std::optional<size_t>(16384) : std::nullopt;
        case FrameType::kClientInfo: return client ? std::nullopt : std::optional<size_t>(256U << 10);
        case FrameType::kSendPacket: return client ? std::nullopt : std::optional(kKeyLen + kMaxPacket);
        case FrameType::kForwardPacket: return client ? std::nullopt : std::optional(2 * kKeyLen + kMaxPacket);
        case FrameType::kNotePreferred:
        case FrameType::kWatchConns:
        case FrameType::kClosePeer: return client ? std::nullopt : std::optional<size_t>(1024);
        case FrameType::kPing:
        case FrameType::kPong: return 1024;
    }
    return std::nullopt;
}

}  // namespace

MutByteSpan FrameReader::reserve(size_t min) {
    if (begin_ == end_) begin_ = end_ = 0;
    if (buf_.size() - end_ < min) {
        if (begin_ > 0) {
            std::memmove(buf_.data(), buf_.data() + begin_, end_ - begin_);
            end_ -= begin_;
            begin_ = 0;
        }
        // Twice the need, so that moving is paid for by many reads.
        if (buf_.size() - end_ < min) buf_.resize(std::max(end_ + min, 2 * min));
    }
    return MutByteSpan(buf_).subspan(end_);
}

void FrameReader::commit(size_t n) {
    end_ += std::min(n, buf_.size() - end_);
    skip_some();
}

void FrameReader::append(ByteSpan bytes) {
    if (bytes.empty()) return;
    const MutByteSpan room = reserve(bytes.size());
    std::memcpy(room.data(), bytes.data(), bytes.size());
    commit(bytes.size());
}

void FrameReader::lend(MutByteSpan bytes) {
    settle();
    lent_ = bytes;
}

void FrameReader::settle() { append(std::exchange(lent_, {})); }

bool FrameReader::gather(size_t n) {
    const size_t have = end_ - begin_;
    if (have >= n) return true;
    if (have + lent_.size() < n) return false;
    append(lent_.first(n - have));
    lent_ = lent_.subspan(n - have);
    return true;
}

void FrameReader::skip_some() {
    const size_t buffered = std::min(skip_, end_ - begin_);
    drop_raw(buffered);
    const size_t lent = std::min(skip_ - buffered, lent_.size());
    lent_ = lent_.subspan(lent);
    skip_ -= buffered + lent;
}

FrameReader::Next FrameReader::next(Frame& out) {
    for (;;) {
        skip_some();
        if (skip_ > 0) return Next::kNeedMore;
        // A frame that began in the buffer is completed there; all others stay where they lie.
        const bool buffered = begin_ != end_;
        if (buffered ? !gather(kFrameHeader) : lent_.size() < kFrameHeader) return Next::kNeedMore;
        const uint8_t* head = buffered ? buf_.data() + begin_ : lent_.data();
        const auto type = static_cast<FrameType>(head[0]);
        const size_t len = load_be32(head + 1);
        const auto limit = payload_limit(type, side_);
        if (!limit) {
            if (side_ == Side::kClient && len > kMegabyte) return Next::kTooLarge;
            ++skipped_frames_;
            skip_ = kFrameHeader + len;
            continue;
        }
        if (len > *limit) return Next::kTooLarge;
        const size_t all = kFrameHeader + len;
        if (buffered ? !gather(all) : lent_.size() < all) return Next::kNeedMore;
        out.type = type;
        if (buffered) {
            out.payload = {buf_.data() + begin_ + kFrameHeader, len};
            begin_ += all;
        } else {
            out.payload = lent_.subspan(kFrameHeader, len);
            lent_ = lent_.subspan(all);
        }
        return Next::kFrame;
    }
}

void FrameReader::drop_raw(size_t n) {
    begin_ += std::min(n, end_ - begin_);
    if (begin_ == end_) begin_ = end_ = 0;
}

void FrameReader::release_idle() {
    if (begin_ != end_ || buf_.size() <= kIdleCapacity) return;
    begin_ = end_ = 0;
    Bytes().swap(buf_);
}

void put_frame_header(uint8_t* out, FrameType type, size_t payload_len) {
    out[0] = static_cast<uint8_t>(type);
    store_be32(out + 1, static_cast<uint32_t>(payload_len));
}

void append_frame(Bytes& out, FrameType type, ByteSpan a, ByteSpan b, ByteSpan c) {
    uint8_t head[kFrameHeader];
    put_frame_header(head, type, a.size() + b.size() + c.size());
    WireWriter w(out);
    w.bytes(head);
    w.bytes(a);
    w.bytes(b);
    w.bytes(c);
}

bool looks_like_disco(ByteSpan packet) {
    return packet.size() >= kMinDisco && std::memcmp(packet.data(), kDiscoMagic, sizeof kDiscoMagic) == 0;
}

}  // namespace mesh::derp
