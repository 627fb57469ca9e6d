// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/client_session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace mesh::derp {
namespace {

constexpr Duration kLoginTimeout = seconds(10);
constexpr Duration kReadTimeout = seconds(120);  // the server says something at least every 65 s
// Under traffic 120 s are too long to notice a dead relay: ask after 3 s of silence, give up 10 s later.
constexpr Duration kAskAfter = milliseconds(1500);
constexpr Duration kDoubtAfter = seconds(1);
constexpr Duration kAnswerWithin = seconds(10);
constexpr size_t kRecord = 16384;
constexpr size_t kMaxControl = 64U << 10;
constexpr size_t kMaxHttpBody = 4096;

}  // namespace

ClientSession::ClientSession(Random& random, ClientConfig config)
    : random_(random),
      config_(std::move(config)),
      disco_(config_.disco_queue_bytes),
      data_(config_.data_queue_bytes) {}

void ClientSession::start(const ClientStart& start, Time now) {
    if (phase_ != Phase::kIdle) return;
    started_ = last_rx_ = now;
    http1::Request r;
    r.method = "GET";
    r.target = "/derp";
    r.headers = {{"Host", start.host}, {"Upgrade", "DERP"}, {"Connection", "Upgrade"}};
    if (!start.ideal_node.empty()) r.headers.emplace_back("Ideal-Node", start.ideal_node);
    if (start.fast_start_key) r.headers.emplace_back("Derp-Fast-Start", "1");
    const std::string text = http1::serialize(r);
    WireWriter(control_).bytes(as_bytes(text));
    if (start.fast_start_key) {
        server_key_ = *start.fast_start_key;
        if (send_client_info()) phase_ = Phase::kOpen;
    } else {
        phase_ = Phase::kHttp;
        http_ = std::make_unique<http1::Parser>(http1::Role::kResponses, kMaxHttpBody);
    }
}

bool ClientSession::send_client_info() {
    ClientInfo info;
    info.version = static_cast<int64_t>(kProtocolVersion);
    info.can_ack_pings = config_.can_ack_pings;
    info.is_prober = config_.is_prober;
    info.mesh_key = config_.mesh_key;
    const auto sealed = seal_client_info(info, config_.node_key, server_key_, random_);
    if (!sealed) {
        die(sealed.error().code, sealed.error().context);
        return false;
    }
    append_frame(control_, FrameType::kClientInfo, *sealed);
    info_sent_ = true;
    return true;
}

void ClientSession::commit(size_t n, Time now) {
    if (n == 0) return;
    reader_.commit(n);
    last_rx_ = now;
    first_unanswered_tx_ = {};
    silent_ = false;
}

void ClientSession::feed(ByteSpan bytes, Time now) {
    if (phase_ == Phase::kDead || bytes.empty()) return;
    reader_.append(bytes);
    last_rx_ = now;
    first_unanswered_tx_ = {};
    silent_ = false;
}

void ClientSession::closed(std::string why) {
    closed_ = true;
    closed_why_ = why.empty() ? "relay closed the connection" : std::move(why);
}

const Event* ClientSession::die(Code code, std::string what) {
    phase_ = Phase::kDead;
    http_.reset();
    control_.clear();
    disco_.clear();
    data_.clear();
    out_.clear();
    out_sent_ = 0;
    event_ = {};
    event_.kind = Event::Kind::kError;
    event_.error = Error{code, 0, std::move(what)};
    return &event_;
}

const Event* ClientSession::read_http() {
    while (http_ && !reader_.raw().empty()) {
        const auto used = http_->feed(reader_.raw());
        if (!used) return die(used.error().code, "relay's HTTP answer: " + log::printable(used.error().context));
        reader_.drop_raw(*used);
        if (http_->done() || *used == 0) break;
    }
    if (http_ && closed_ && !http_->done()) (void)http_->feed_eof();
    if (!http_ || !http_->done()) return nullptr;
    const http1::Response r = http_->take_response();
    http_.reset();
    if (r.status != 101) {
        const std::string said = r.body.starts_with('<') ? "a web page" : log::printable(r.body);
        return die(Code::kUnavailable, "relay answered HTTP " + std::to_string(r.status) + ": " + said);
    }
    phase_ = info_sent_ ? Phase::kOpen : Phase::kServerKey;
    return nullptr;
}

const Event* ClientSession::next_event(Time now) {
    if (phase_ == Phase::kDead) {
        if (std::exchange(error_reported_, true)) return nullptr;
        return &event_;
    }
    if (phase_ == Phase::kIdle) return nullptr;
    // A server that refuses a fast start answers with HTTP text where a frame is expected.
    if (phase_ == Phase::kOpen && !first_frame_seen_ && as_text(reader_.raw()).starts_with("HTTP/")) {
        phase_ = Phase::kHttp;
        http_ = std::make_unique<http1::Parser>(http1::Role::kResponses, kMaxHttpBody);
    }
    const Event* e = nullptr;
    if (phase_ == Phase::kHttp) {
        e = read_http();
        if (e || phase_ == Phase::kHttp) {
            if (!e && closed_) e = die(Code::kUnavailable, closed_why_);
            error_reported_ = e != nullptr;
            return e;
        }
    }
    Frame f;
    for (;;) {
        const FrameReader::Next n = reader_.next(f);
        if (n == FrameReader::Next::kNeedMore) break;
        if (n == FrameReader::Next::kTooLarge) {
            die(Code::kInvalid, "relay sent a frame that is too large");
        } else {
            first_frame_seen_ = true;
            event_ = {};
            const bool has_event = phase_ == Phase::kServerKey ? handle_login(f, now) : handle_frame(f, now);
            if (has_event && phase_ != Phase::kDead) return &event_;
        }
        if (phase_ == Phase::kDead) {
            error_reported_ = true;
            return &event_;
        }
    }
    if (!closed_) return nullptr;
    error_reported_ = true;
    return die(Code::kUnavailable, closed_why_);
}

bool ClientSession::handle_login(const Frame& f, Time) {
    if (f.type != FrameType::kServerKey) {
        die(Code::kInvalid, "relay did not begin with its key");
        return false;
    }
    const auto key = parse_server_key(f.payload);
    if (!key) {
        die(Code::kInvalid, "relay's key frame is malformed");
        return false;
    }
    server_key_ = *key;
    if (send_client_info()) phase_ = Phase::kOpen;
    return false;
}

bool ClientSession::handle_frame(const Frame& f, Time now) {
    WireReader r(f.payload);
    switch (f.type) {
        case FrameType::kServerInfo: {
            const auto info = open_server_info(f.payload, config_.node_key, server_key_);
            if (!info) {
                die(info.error().code, "relay's login answer: " + info.error().context);
                return false;
            }
            token_rate_ = static_cast<double>(std::max<int64_t>(info->token_bucket_bytes_per_second, 0));
            token_burst_ = static_cast<double>(std::max<int64_t>(info->token_bucket_bytes_burst, 0));
            if (!(token_burst_ > 0)) token_rate_ = 0;
            tokens_ = token_burst_;
            tokens_at_ = now;
            if (std::exchange(got_server_info_, true)) return false;
            event_.kind = Event::Kind::kConnected;
            event_.server_info = *info;
            return true;
        }
        case FrameType::kRecvPacket:
            if (f.payload.size() < kKeyLen) break;
            event_.kind = Event::Kind::kPacket;
            event_.key = NodePublic::from(f.payload.first(kKeyLen));
            event_.packet = f.payload.subspan(kKeyLen);
            ++stats_.rx_packets;
            stats_.rx_bytes += event_.packet.size();
            return true;
        case FrameType::kPeerGone:
            if (f.payload.size() < kKeyLen) break;
            event_.kind = Event::Kind::kPeerGone;
            event_.key = NodePublic::from(r.take(kKeyLen));
            event_.reason = static_cast<GoneReason>(r.remaining() > 0 ? r.u8() : uint8_t{0});
            return true;
        case FrameType::kPeerPresent:
            if (f.payload.size() < kKeyLen) break;
            event_.kind = Event::Kind::kPeerPresent;
            event_.key = NodePublic::from(r.take(kKeyLen));
            return true;
        case FrameType::kPing:
            if (f.payload.size() < 8) break;
            if (config_.can_ack_pings && control_.size() < kMaxControl)
                append_frame(control_, FrameType::kPong, f.payload.first(8));
            return false;
        case FrameType::kPong:
            if (f.payload.size() < 8) break;
            if (ping_sent_.is_zero() || load_be64(f.payload.data()) != ping_id_) return false;
            event_.kind = Event::Kind::kPong;
            event_.ping_id = ping_id_;
            event_.round_trip = now - ping_sent_;
            ping_sent_ = {};
            return true;
        case FrameType::kHealth:
            event_.kind = Event::Kind::kHealth;
            event_.text = std::string(as_text(f.payload));
            return true;
        case FrameType::kRestarting:
            if (f.payload.size() < 8) break;
            event_.kind = Event::Kind::kRestarting;
            event_.reconnect_in = milliseconds(r.be32());
            event_.try_for = milliseconds(r.be32());
            return true;
        default: return false;  // KeepAlive; ServerKey after a fast start; anything a later server may send
    }
    ++stats_.bad_frames;
    return false;
}

bool ClientSession::take_tokens(size_t bytes, Time now) {
    if (!(token_rate_ > 0)) return true;
    tokens_ = std::min(token_burst_, tokens_ + (now - tokens_at_).seconds() * token_rate_);
    tokens_at_ = now;
    const auto need = static_cast<double>(bytes);
    if (tokens_ < need) return false;
    tokens_ -= need;
    return true;
}

bool ClientSession::queue_packet(FrameType type, ByteSpan keys, ByteSpan packet, Time now) {
    if (phase_ == Phase::kDead) return false;
    if (packet.size() > kMaxPacket) {
        ++stats_.dropped_oversize;
        return false;
    }
    if (!take_tokens(kFrameHeader + keys.size() + packet.size(), now)) {
        ++stats_.dropped_rate;
        return false;
    }
    uint8_t head[kFrameHeader + 2 * kKeyLen];
    put_frame_header(head, type, keys.size() + packet.size());
    std::memcpy(head + kFrameHeader, keys.data(), keys.size());
    SendQueue& queue = looks_like_disco(packet) ? disco_ : data_;
    stats_.dropped_full += queue.push(ByteSpan(head, kFrameHeader + keys.size()), packet).frames;
    ++stats_.tx_packets;
    stats_.tx_bytes += packet.size();
    if (first_unanswered_tx_.is_zero()) first_unanswered_tx_ = now;
    return true;
}

bool ClientSession::send(const NodePublic& to, ByteSpan packet, Time now) {
    return queue_packet(FrameType::kSendPacket, to.bytes(), packet, now);
}

bool ClientSession::forward(const NodePublic& from, const NodePublic& to, ByteSpan packet, Time now) {
    uint8_t keys[2 * kKeyLen];
    std::memcpy(keys, from.raw.data(), kKeyLen);
    std::memcpy(keys + kKeyLen, to.raw.data(), kKeyLen);
    return queue_packet(FrameType::kForwardPacket, keys, packet, now);
}

void ClientSession::watch_connections() { watch_wanted_ = true; }

void ClientSession::note_preferred(bool preferred) { preferred_wanted_ = preferred; }

void ClientSession::queue_ping(Time now) {
    ping_id_ = random_.u64();
    uint8_t id[8];
    store_be64(id, ping_id_);
    append_frame(control_, FrameType::kPing, id);
    ping_sent_ = now;
}

uint64_t ClientSession::ping(Time now) {
    if (ping_sent_.is_zero() && can_send()) queue_ping(now);
    return ping_id_;
}

ByteSpan ClientSession::writable(Time now) {
    if (out_sent_ >= out_.size()) fill(now);
    return ByteSpan(out_).subspan(out_sent_);
}

void ClientSession::fill(Time) {
    out_.clear();
    out_sent_ = 0;
    if (phase_ == Phase::kDead) return;
    if (can_send() && preferred_wanted_ && *preferred_wanted_ != preferred_sent_) {
        preferred_sent_ = *preferred_wanted_;
        const uint8_t flag = preferred_sent_ ? 1 : 0;
        append_frame(control_, FrameType::kNotePreferred, ByteSpan(&flag, 1));
    }
    if (can_send() && std::exchange(watch_wanted_, false)) append_frame(control_, FrameType::kWatchConns, {});
    out_.swap(control_);
    if (!can_send()) return;
    for (SendQueue* queue : {&disco_, &data_})
        while (!queue->empty() && (out_.empty() || out_.size() + queue->front_len() <= kRecord)) queue->pop_into(out_);
}

void ClientSession::wrote(size_t n, Time) { out_sent_ = std::min(out_sent_ + n, out_.size()); }

size_t ClientSession::queued_bytes() const {
    return out_.size() - out_sent_ + control_.size() + disco_.bytes() + data_.bytes();
}

Time ClientSession::next_timeout() const {
    if (phase_ == Phase::kIdle || phase_ == Phase::kDead) return Time::never();
    if (!got_server_info_) return started_ + kLoginTimeout;
    Time t = last_rx_ + kReadTimeout;
    if (!ping_sent_.is_zero())
        t = min(t, ping_sent_ + (silent_ || last_rx_ >= ping_sent_ ? kAnswerWithin : kDoubtAfter));
    else if (!first_unanswered_tx_.is_zero())
        t = min(t, first_unanswered_tx_ + kAskAfter);
    return t;
}

void ClientSession::handle_timeout(Time now) {
    if (phase_ == Phase::kIdle || phase_ == Phase::kDead || now < next_timeout()) return;
    if (!got_server_info_) {
        die(Code::kTimeout, "relay did not complete the login in 10 s");
        return;
    }
    if (now >= last_rx_ + kReadTimeout) {
        die(Code::kTimeout, "nothing heard from the relay for 120 s");
        return;
    }
    if (ping_sent_.is_zero()) {
        queue_ping(now);
    } else if (last_rx_ < ping_sent_ && now < ping_sent_ + kAnswerWithin) {
        silent_ = true;
    } else if (last_rx_ < ping_sent_) {
        die(Code::kTimeout, "relay does not answer");
        return;
    } else {
        ping_sent_ = {};  // alive, but it did not care to answer this one
    }
    reader_.release_idle();
    disco_.release_idle();
    data_.release_idle();
}

}  // namespace mesh::derp
