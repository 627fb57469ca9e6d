// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The server's side of WebSocket (RFC 6455) as DERP uses it: binary messages that carry one byte stream, whose boundaries
/// mean nothing; subprotocol "derp", no extensions. Pure.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/http1.h"

namespace mesh::derper {

/// The 101 head for that request; "" if it is no valid WebSocket handshake of version 13.
[[nodiscard]] std::string websocket_accept(const http1::Request& request);

/// Header of an unmasked binary frame with `payload_len` bytes to follow. Appends to `out`.
void put_websocket_header(Bytes& out, size_t payload_len);

/// A close frame: the server goes away (1001).
[[nodiscard]] Bytes websocket_goodbye();

/// Takes a client's frames apart, whatever the split. Payload is handed on as it comes, so a frame may have any length.
class WebSocketReader {
   public:
    enum class Event : uint8_t {
        kNeedMore,  ///< everything was used
        kData,      ///< data(): payload bytes, unmasked in place
        kReply,     ///< reply(): a frame to send (pong)
        kClose,     ///< the client says good-bye; reply() is the answer, after which the stream ends
        kError,     ///< protocol violation; reply() is a close frame that says so
    };
    /// Looks at `bytes`, advances it past what was used. Call until kNeedMore, kClose or kError.
    [[nodiscard]] Event next(MutByteSpan& bytes);
    [[nodiscard]] MutByteSpan data() const { return data_; }
    [[nodiscard]] ByteSpan reply() const { return reply_; }

   private:
    Event violation(uint16_t code);
    Event control();

    uint8_t head_[14] = {};  // 2 + 8 + 4 at most
    size_t head_len_ = 0;
    bool in_payload_ = false;
    bool in_message_ = false;  // a fragmented message has begun
    bool ended_ = false;
    uint8_t opcode_ = 0;
    uint8_t mask_[4] = {};
    uint64_t left_ = 0;
    size_t mask_at_ = 0;
    Bytes control_;  // at most 125 bytes
    MutByteSpan data_;
    Bytes reply_;
};

}  // namespace mesh::derper
