// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// DERP framing, protocol version 2. On the stream, after the HTTP upgrade:
///
///     +--------+----------------+---------...
///     | type 1 | length 4 (BE)  | payload
///     +--------+----------------+---------...
///
/// Keys are 32 raw bytes. Source: tailscale/tailscale derp/derp.go.

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/keys.h"

namespace mesh::derp {

enum class FrameType : uint8_t {
    kServerKey = 0x01,      ///< S→C: magic 8, key 32, ignored rest
    kClientInfo = 0x02,     ///< C→S: key 32, nonce 24, box
    kServerInfo = 0x03,     ///< S→C: nonce 24, box
    kSendPacket = 0x04,     ///< C→S: destination 32, packet
    kRecvPacket = 0x05,     ///< S→C: source 32, packet
    kKeepAlive = 0x06,      ///< S→C: empty
    kNotePreferred = 0x07,  ///< C→S: 1 byte
    kPeerGone = 0x08,       ///< S→C: key 32, reason 1 (absent = 0)
    kPeerPresent = 0x09,    ///< S→mesh: key 32, [IP 16, port 2, [flags 1]]
    kForwardPacket = 0x0a,  ///< mesh: source 32, destination 32, packet
    kWatchConns = 0x10,     ///< mesh C→S: empty
    kClosePeer = 0x11,      ///< mesh C→S: key 32
    kPing = 0x12,           ///< both: 8 bytes
    kPong = 0x13,           ///< both: the 8 bytes of the ping
    kHealth = 0x14,         ///< S→C: text, empty clears
    kRestarting = 0x15,     ///< S→C: reconnect-in ms 4, try-for ms 4
};

inline constexpr size_t kFrameHeader = 5;
inline constexpr size_t kKeyLen = 32;
inline constexpr size_t kMaxPacket = 65536;  ///< payload of a packet frame without its keys
inline constexpr size_t kNonceLen = 24;
inline constexpr uint64_t kProtocolVersion = 2;
inline constexpr uint8_t kMagic[8] = {0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91};

enum class GoneReason : uint8_t { kDisconnected = 0, kNotHere = 1, kMeshLinkLost = 0xf0 };

/// PeerPresent flags.
inline constexpr uint8_t kPresentRegular = 1;
inline constexpr uint8_t kPresentMeshPeer = 2;
inline constexpr uint8_t kPresentProber = 4;
inline constexpr uint8_t kPresentNotIdeal = 8;

/// One complete frame. The payload lies in the reader's buffer and may be changed in place; it is valid until the
/// next call on the reader.
struct Frame {
    FrameType type{};
    MutByteSpan payload;
};

/// Cuts a byte stream into frames, whatever the split. Frames of unknown type are skipped without being buffered.
/// Memory: grows to the largest frame that is allowed and seen, shrinks back when empty.
class FrameReader {
   public:
    /// Largest payload for a type; 0 = skip frames of this type; kFatal = a frame of that length ends the stream.
    enum class Side : uint8_t { kClient, kServer };
    explicit FrameReader(Side side) : side_(side) {}

    /// At least `min` bytes of room to read into; then commit() what was read. Invalidates earlier payloads.
    [[nodiscard]] MutByteSpan reserve(size_t min = 16384);
    void commit(size_t n);
    /// reserve + copy + commit.
    void append(ByteSpan bytes);
    /// As append(), but frames that lie in `bytes` as a whole are handed out from there. Call next() until kNeedMore, then
    /// settle(), which copies what is left; until then the bytes must stay.
    void lend(MutByteSpan bytes);
    void settle();

    enum class Next : uint8_t { kFrame, kNeedMore, kTooLarge };
    [[nodiscard]] Next next(Frame& out);

    /// Raw bytes not yet taken: for the HTTP head in front of the frames.
    [[nodiscard]] ByteSpan raw() const { return {buf_.data() + begin_, end_ - begin_}; }
    void drop_raw(size_t n);
    /// Frees the buffer if nothing is in it.
    void release_idle();
    [[nodiscard]] uint64_t skipped_frames() const { return skipped_frames_; }

   private:
    /// Takes from the lent bytes until `n` are in the buffer. False: there are not that many.
    bool gather(size_t n);
    /// Takes off what is being skipped.
    void skip_some();

    Side side_;
    Bytes buf_;
    MutByteSpan lent_;
    size_t begin_ = 0;
    size_t end_ = 0;
    size_t skip_ = 0;  // bytes of an unwanted frame still to come
    uint64_t skipped_frames_ = 0;
};

/// Writes the 5 header bytes.
void put_frame_header(uint8_t* out, FrameType type, size_t payload_len);
/// Appends a frame whose payload consists of up to three parts.
void append_frame(Bytes& out, FrameType type, ByteSpan a, ByteSpan b = {}, ByteSpan c = {});

/// Starts with the disco magic and is long enough to be a disco message (6 + 32 + 24): such packets are sent first
/// and are the only ones answered with "peer not here".
[[nodiscard]] bool looks_like_disco(ByteSpan packet);

}  // namespace mesh::derp
