// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/server_session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/crypto/crypto.h"

namespace mesh::derp {
namespace {

constexpr Duration kLoginTimeout = seconds(10);
constexpr Duration kKeepAlive = seconds(60);
constexpr uint32_t kKeepAliveJitterMs = 5000;
constexpr size_t kRecord = 16384;  // what TLS protects at once
constexpr size_t kIdleOut = 1024;
constexpr size_t kControlBytes = 256U << 10;
constexpr size_t kMeshControlBytes = 8U << 20;  // a mesh watcher gets one PeerPresent per client at once
constexpr size_t kMinClientInfo = 56;

/// Bytes that the packets of these RecvPacket frames carry.
size_t payload(const SendQueue::Dropped& frames) { return frames.bytes - frames.frames * (kFrameHeader + kKeyLen); }

}  // namespace

ServerSession::ServerSession(Random& random, ServerSessionConfig config, Time now)
    : random_(random),
      config_(std::move(config)),
      control_(config_.mesh_key.is_zero() ? kControlBytes : kMeshControlBytes),
      disco_(config_.disco_queue_bytes, config_.queue_packets),
      data_(config_.data_queue_bytes, config_.queue_packets),
      deadline_(now + kLoginTimeout) {
    append_frame(login_out_, FrameType::kServerKey, kMagic, config_.server_key.public_key().bytes());
    note_pending(now);
}

const ServerEvent* ServerSession::die(Code code, std::string what) {
    phase_ = Phase::kDead;
    event_ = {};
    event_.kind = ServerEvent::Kind::kError;
    event_.error = std::make_unique<const Error>(Error{code, 0, std::move(what)});
    return &event_;
}

const ServerEvent* ServerSession::next_event(Time) {
    Frame f;
    while (phase_ == Phase::kLogin || phase_ == Phase::kOpen) {
        const FrameReader::Next n = reader_.next(f);
        if (n == FrameReader::Next::kNeedMore) return nullptr;
        if (n == FrameReader::Next::kTooLarge) {
            die(Code::kInvalid, "frame is too large");
            break;
        }
        event_ = {};
        if (phase_ == Phase::kLogin ? handle_login(f) : handle_frame(f)) return &event_;
    }
    if (phase_ != Phase::kDead || std::exchange(error_reported_, true)) return nullptr;
    return &event_;
}

bool ServerSession::handle_login(const Frame& f) {
    if (f.type != FrameType::kClientInfo || f.payload.size() < kMinClientInfo) {
        die(Code::kInvalid, "client did not begin with a ClientInfo");
        return false;
    }
    auto opened = open_client_info(f.payload, config_.server_key);
    if (!opened) {
        die(opened.error().code, opened.error().context);
        return false;
    }
    key_ = opened->key;
    info_ = std::move(opened->info);
    mesh_peer_ = !config_.mesh_key.is_zero() && config_.mesh_key == info_.mesh_key;
    info_.mesh_key.wipe();
    phase_ = Phase::kChecking;
    event_.kind = ServerEvent::Kind::kLogin;
    event_.key = key_;
    return true;
}

void ServerSession::accept(Time now) {
    if (phase_ != Phase::kChecking) return;
    const auto sealed = seal_server_info({.version = static_cast<int64_t>(kProtocolVersion)}, config_.server_key, key_,
                                         random_);
    if (!sealed) {
        die(sealed.error().code, sealed.error().context);
        return;
    }
    append_frame(login_out_, FrameType::kServerInfo, *sealed);
    // Not one copy of the keys per client.
    config_.server_key = {};
    config_.mesh_key.wipe();
    phase_ = Phase::kOpen;
    deadline_ = {};
    next_keepalive_ = now + kKeepAlive + milliseconds(random_.below(kKeepAliveJitterMs));
    note_pending(now);
}

bool ServerSession::handle_frame(const Frame& f) {
    using Kind = ServerEvent::Kind;
    event_.kind = Kind::kAlive;
    WireReader r(f.payload);
    switch (f.type) {
        case FrameType::kSendPacket:
            if (f.payload.size() < kKeyLen) break;
            event_.kind = Kind::kPacket;
            event_.key = NodePublic::from(r.take(kKeyLen));
            event_.packet = r.rest();
            ++stats_.rx_packets;
            stats_.rx_bytes += event_.packet.size();
            return true;
        case FrameType::kNotePreferred:
            if (f.payload.size() != 1) break;
            event_.kind = Kind::kNotePreferred;
            event_.preferred = f.payload[0] == 1;
            return true;
        case FrameType::kPing:
            if (f.payload.size() < 8 || f.payload.size() > 1000) break;
            ++stats_.pings;
            if (!pong_) pong_ = load_be64(f.payload.data());
            return true;
        case FrameType::kPong: return true;
        case FrameType::kForwardPacket:
        case FrameType::kWatchConns:
        case FrameType::kClosePeer:
            if (!mesh_peer_) {
                die(Code::kDenied, "insufficient permissions");
                return false;
            }
            if (f.type == FrameType::kWatchConns) {
                event_.kind = Kind::kWatchConns;
                return true;
            }
            if (f.payload.size() < (f.type == FrameType::kClosePeer ? kKeyLen : 2 * kKeyLen)) break;
            if (f.type == FrameType::kForwardPacket) event_.source = NodePublic::from(r.take(kKeyLen));
            event_.key = NodePublic::from(r.take(kKeyLen));
            event_.packet = r.rest();
            event_.kind = f.type == FrameType::kClosePeer ? Kind::kClosePeer : Kind::kForward;
            return true;
        default: return true;
    }
    die(Code::kInvalid, "malformed frame of type " + std::to_string(static_cast<int>(f.type)));
    return false;
}

void ServerSession::note_pending(Time now) {
    if (stalled_since_.is_zero()) stalled_since_ = now;
}

void ServerSession::control(FrameType type, ByteSpan a, ByteSpan b, Time now) {
    if (phase_ != Phase::kOpen) return;
    uint8_t head[kFrameHeader];
    put_frame_header(head, type, a.size() + b.size());
    const SendQueue::Dropped dropped = control_.push(head, a, b);
    stats_.dropped_full.add(false, dropped.frames, dropped.bytes);
    note_pending(now);
}

bool ServerSession::deliver(const NodePublic& from, ByteSpan packet, Time now) {
    if (phase_ != Phase::kOpen || packet.size() > kMaxPacket) return false;
    uint8_t head[kFrameHeader + kKeyLen];
    put_frame_header(head, FrameType::kRecvPacket, kKeyLen + packet.size());
    std::memcpy(head + kFrameHeader, from.raw.data(), kKeyLen);
    ++stats_.tx_packets;
    stats_.tx_bytes += packet.size();
    note_pending(now);
    // Straight into the record that is being gathered, while nothing waits that would have to go before.
    if (!handed_out_ && control_.empty() && disco_.empty() && data_.empty() &&
        out_.size() + sizeof head + packet.size() <= kRecord) {
        const size_t at = out_.size();
        out_.resize(at + sizeof head + packet.size());
        std::memcpy(out_.data() + at, head, sizeof head);
        if (!packet.empty()) std::memcpy(out_.data() + at + sizeof head, packet.data(), packet.size());
        return false;
    }
    const bool disco = looks_like_disco(packet);
    const SendQueue::Dropped dropped = (disco ? disco_ : data_).push(head, packet);
    stats_.dropped_full.add(disco, dropped.frames, payload(dropped));
    return !handed_out_;
}

ByKind ServerSession::waiting() const {
    ByKind out;
    out.add(true, disco_.frames(), payload(disco_.waiting()));
    out.add(false, data_.frames(), payload(data_.waiting()));
    return out;
}

void ServerSession::peer_gone(const NodePublic& key, GoneReason reason, Time now) {
    const auto code = static_cast<uint8_t>(reason);
    control(FrameType::kPeerGone, key.bytes(), ByteSpan(&code, 1), now);
}

void ServerSession::peer_present(const NodePublic& key, const Endpoint& where, uint8_t flags, Time now) {
    uint8_t rest[16 + 2 + 1];
    const auto ip = where.addr.mapped16();
    std::memcpy(rest, ip.data(), ip.size());
    store_be16(rest + 16, where.port);
    rest[18] = flags;
    control(FrameType::kPeerPresent, key.bytes(), rest, now);
}

void ServerSession::health(std::string_view text, Time now) { control(FrameType::kHealth, as_bytes(text), {}, now); }

void ServerSession::restarting(Duration reconnect_in, Duration try_for, Time now) {
    uint8_t ms[8];
    store_be32(ms, static_cast<uint32_t>(reconnect_in.millis()));
    store_be32(ms + 4, static_cast<uint32_t>(try_for.millis()));
    control(FrameType::kRestarting, ms, {}, now);
}

ByteSpan ServerSession::writable(Time) {
    if (handed_out_) return ByteSpan(out_).subspan(out_sent_);
    if (phase_ == Phase::kDead) return {};
    if (!login_out_.empty()) {
        login_out_.insert(login_out_.end(), out_.begin(), out_.end());
        out_.swap(login_out_);
        Bytes().swap(login_out_);
    }
    if (phase_ == Phase::kOpen) {
        if (pong_) {
            uint8_t id[8];
            store_be64(id, *std::exchange(pong_, std::nullopt));
            append_frame(out_, FrameType::kPong, id);
            ++stats_.pongs;
        }
        if (std::exchange(keepalive_due_, false)) append_frame(out_, FrameType::kKeepAlive, {});
        for (SendQueue* queue : {&control_, &disco_, &data_})
            while (!queue->empty() && (out_.empty() || out_.size() + queue->front_len() <= kRecord))
                queue->pop_into(out_);
    }
    handed_out_ = !out_.empty();
    if (!handed_out_) stalled_since_ = {};
    return out_;
}

void ServerSession::wrote(size_t n, Time now) {
    if (n == 0) return;
    out_sent_ = std::min(out_sent_ + n, out_.size());
    if (out_sent_ == out_.size()) {
        out_.clear();
        if (stats_.tx_packets == 0) Bytes().swap(out_);  // most clients get nothing but the login for a long time
        out_sent_ = 0;
        handed_out_ = false;
    }
    const bool more = handed_out_ || !control_.empty() || !disco_.empty() || !data_.empty();
    stalled_since_ = more ? now : Time{};
}

void ServerSession::release_idle() {
    reader_.release_idle();
    control_.release_idle();
    disco_.release_idle();
    data_.release_idle();
    if (out_.empty() && out_.capacity() > kIdleOut) Bytes().swap(out_);
}

Time ServerSession::next_timeout() const {
    if (phase_ == Phase::kDead) return Time::never();
    Time t = next_keepalive_;
    if (!deadline_.is_zero()) t = min(t, deadline_);
    if (!stalled_since_.is_zero() && config_.write_timeout.ns > 0) t = min(t, stalled_since_ + config_.write_timeout);
    return t;
}

void ServerSession::handle_timeout(Time now) {
    if (phase_ == Phase::kDead) return;
    if (!deadline_.is_zero() && now >= deadline_) {
        die(Code::kTimeout, "login took longer than 10 s");
        return;
    }
    if (!stalled_since_.is_zero() && config_.write_timeout.ns > 0 && now >= stalled_since_ + config_.write_timeout) {
        ++stats_.write_timeouts;
        die(Code::kTimeout, "client does not read");
        return;
    }
    if (now >= next_keepalive_) {
        keepalive_due_ = true;
        next_keepalive_ = now + kKeepAlive + milliseconds(random_.below(kKeepAliveJitterMs));
        note_pending(now);
        release_idle();
    }
}

}  // namespace mesh::derp
