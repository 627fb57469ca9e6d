// SPDX-License-Identifier: BSD-3-Clause
#include "derper/websocket.h"

#include <openssl/sha.h>

#include <algorithm>
#include <utility>

namespace mesh::derper {
namespace {

constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
enum Opcode : uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kCloseFrame = 8, kPing = 9, kPong = 10 };
constexpr uint8_t kFin = 0x80;
constexpr uint8_t kMasked = 0x80;
constexpr size_t kMaxControl = 125;
constexpr uint16_t kGoingAway = 1001;
constexpr uint16_t kProtocolError = 1002;
constexpr uint16_t kUnsupportedData = 1003;

Bytes small_frame(uint8_t opcode, ByteSpan payload) {
    Bytes out(2 + payload.size());
    out[0] = static_cast<uint8_t>(kFin | opcode);
    out[1] = static_cast<uint8_t>(payload.size());
    std::copy(payload.begin(), payload.end(), out.begin() + 2);
    return out;
}

}  // namespace

std::string websocket_accept(const http1::Request& request) {
    const std::string key(request.header("Sec-WebSocket-Key"));
    const auto nonce = base64_decode(key);
    if (request.header("Sec-WebSocket-Version") != "13" || !nonce || nonce->size() != 16) return "";
    const std::string text = key + std::string(kGuid);
    uint8_t hash[SHA_DIGEST_LENGTH];
    SHA1(as_bytes(text).data(), text.size(), hash);
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
           base64_encode(hash) + "\r\nSec-WebSocket-Protocol: derp\r\n\r\n";
}

void put_websocket_header(Bytes& out, size_t payload_len) {
    WireWriter w(out);
    w.u8(kFin | kBinary);
    if (payload_len <= kMaxControl) {
        w.u8(static_cast<uint8_t>(payload_len));
    } else if (payload_len <= 0xffff) {
        w.u8(126);
        w.be16(static_cast<uint16_t>(payload_len));
    } else {
        w.u8(127);
        w.be64(payload_len);
    }
}

Bytes websocket_goodbye() {
    uint8_t body[2];
    store_be16(body, kGoingAway);
    return small_frame(kCloseFrame, body);
}

WebSocketReader::Event WebSocketReader::violation(uint16_t code) {
    ended_ = true;
    uint8_t body[2];
    store_be16(body, code);
    reply_ = small_frame(kCloseFrame, body);
    return Event::kError;
}

WebSocketReader::Event WebSocketReader::control() {
    in_payload_ = false;
    const Bytes body = std::exchange(control_, {});
    if (opcode_ == kPing) {
        reply_ = small_frame(kPong, body);
        return Event::kReply;
    }
    if (opcode_ == kCloseFrame) {
        if (body.size() == 1) return violation(kProtocolError);
        ended_ = true;
        reply_ = small_frame(kCloseFrame, ByteSpan(body).first(std::min<size_t>(body.size(), 2)));
        return Event::kClose;
    }
    return Event::kNeedMore;  // a pong nobody asked for
}

WebSocketReader::Event WebSocketReader::next(MutByteSpan& bytes) {
    for (;;) {
        if (ended_) {
            bytes = {};
            return Event::kNeedMore;
        }
        if (!in_payload_) {
            size_t need = 2;
            if (head_len_ >= 2) {
                const uint8_t len = head_[1] & 0x7f;
                need = size_t{2} + (len == 126 ? 2U : len == 127 ? 8U : 0U) + sizeof mask_;
            }
            const size_t n = std::min(need - head_len_, bytes.size());
            std::copy_n(bytes.begin(), n, head_ + head_len_);
            head_len_ += n;
            bytes = bytes.subspan(n);
            if (head_len_ < need) return Event::kNeedMore;
            if (need == 2) {
                opcode_ = head_[0] & 0x0f;
                const bool fin = (head_[0] & kFin) != 0;
                const bool is_control = (opcode_ & 8) != 0;
                if ((head_[0] & 0x70) != 0 || (head_[1] & kMasked) == 0) return violation(kProtocolError);
                if (is_control && (!fin || (head_[1] & 0x7f) > kMaxControl || opcode_ > kPong)) return violation(kProtocolError);
                if (opcode_ == kText) return violation(kUnsupportedData);
                if (!is_control && (opcode_ > kBinary || (opcode_ == kContinuation) != in_message_)) return violation(kProtocolError);
                if (!is_control) in_message_ = !fin;
                continue;
            }
            const uint8_t len = head_[1] & 0x7f;
            left_ = len == 126 ? load_be16(head_ + 2) : len == 127 ? load_be64(head_ + 2) : len;
            if (left_ >> 63 != 0) return violation(kProtocolError);
            std::copy_n(head_ + need - sizeof mask_, sizeof mask_, mask_);
            head_len_ = 0;
            mask_at_ = 0;
            in_payload_ = true;
        }
        const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
        const MutByteSpan part = bytes.first(n);
        for (uint8_t& b : part) b ^= mask_[mask_at_++ % sizeof mask_];
        bytes = bytes.subspan(n);
        left_ -= n;
        if ((opcode_ & 8) != 0) {
            control_.insert(control_.end(), part.begin(), part.end());
            if (left_ > 0) return Event::kNeedMore;
            const Event e = control();
            if (e != Event::kNeedMore) return e;
            continue;
        }
        if (left_ == 0) in_payload_ = false;
        if (n > 0) {
            data_ = part;
            return Event::kData;
        }
        if (bytes.empty()) return Event::kNeedMore;
    }
}

}  // namespace mesh::derper
