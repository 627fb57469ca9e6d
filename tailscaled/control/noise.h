// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The encrypted byte stream of TS2021: Noise_IK_25519_ChaChaPoly_BLAKE2s, both ends. Pure: bytes in, bytes out.
///
///   initiation  2 version BE | 01 | 0060 | 32 ephemeral | 48 machine key, sealed | 16 tag      (101 bytes)
///   response    02 | 0030 | 32 ephemeral | 16 tag                                              (51 bytes)
///   error       03 | length BE | clear text (unauthenticated, instead of the response)
///   record      04 | length BE | ciphertext with tag; whole frame ≤ 4096 bytes
///
/// Nonces of records count up per direction, BIG endian. There is no rekey and no close frame: the first forged,
/// oversized or unexpected frame ends the connection for good.

#include <array>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/crypto/crypto.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "base/secret.h"

namespace mesh::control {

inline constexpr size_t kInitiationLen = 101;
inline constexpr size_t kResponseLen = 51;
inline constexpr size_t kMaxRecordFrame = 4096;
inline constexpr size_t kMaxRecordPlain = kMaxRecordFrame - 3 - crypto::kTagLen;

/// The keys that a finished handshake leaves behind.
struct NoiseKeys {
    LockedKey send, receive;
    crypto::Hash32 handshake_hash{};  ///< channel binding; nothing on the wire uses it
};

/// Client side: start() once, then finish() with the response.
class NoiseInitiator {
   public:
    NoiseInitiator(const MachinePrivate& machine, const MachinePublic& server, int version);
    /// The initiation; an error only if the server key is a weak point.
    [[nodiscard]] Result<std::array<uint8_t, kInitiationLen>> start(Random& random);
    [[nodiscard]] Result<NoiseKeys> finish(ByteSpan response);

   private:
    MachinePrivate machine_;
    MachinePublic server_;
    int version_;
    MachinePrivate ephemeral_;
    crypto::Hash32 h_{};
    LockedKey ck_;
};

/// What a server reads from an initiation before it answers.
struct NoiseAccepted {
    int version = 0;
    MachinePublic machine;
    std::array<uint8_t, kResponseLen> response{};
    NoiseKeys keys;
};
/// Server side, whole handshake at once.
[[nodiscard]] Result<NoiseAccepted> noise_accept(ByteSpan initiation, const MachinePrivate& server, Random& random);

/// The record layer after the handshake. Sticky: after an error every call fails.
class NoiseStream {
   public:
    explicit NoiseStream(const NoiseKeys& keys) : keys_(keys) {}
    NoiseStream(const NoiseStream&) = delete;
    NoiseStream& operator=(const NoiseStream&) = delete;

    /// Appends records to `wire`.
    [[nodiscard]] Status seal(ByteSpan plain, Bytes& wire);
    /// Takes wire bytes in any split and appends the plaintext found. Holds at most one frame.
    [[nodiscard]] Status open(ByteSpan wire, Bytes& plain);

   private:
    [[nodiscard]] Status open_frame(ByteSpan frame, Bytes& plain);
    NoiseKeys keys_;
    uint64_t send_nonce_ = 0;
    uint64_t receive_nonce_ = 0;
    Bytes partial_;
    bool dead_ = false;
};

/// Finds the server's first frame in a byte stream: response or error, in any split.
class ResponseReader {
   public:
    /// Number of bytes used. done() tells whether `frame()` is complete; a type-3 frame is an error with its text.
    [[nodiscard]] Result<size_t> feed(ByteSpan wire);
    [[nodiscard]] bool done() const { return done_; }
    [[nodiscard]] ByteSpan frame() const { return frame_; }

   private:
    Bytes frame_;
    bool done_ = false;
};

/// Splits the optional early payload ("…TS" + length BE + JSON) off the start of the server's plaintext.
class EarlyPayload {
   public:
    static constexpr size_t kMaxBytes = 1U << 20;
    /// Feeds plaintext, appends to `rest` what belongs to HTTP/2. Error: the payload is too long.
    [[nodiscard]] Status feed(ByteSpan plain, Bytes& rest);
    [[nodiscard]] bool seen() const { return state_ == State::kDone && !json_.empty(); }
    [[nodiscard]] std::string_view json() const { return as_text(json_); }
    /// Server side: header and JSON, ready to be sent as the first plaintext.
    [[nodiscard]] static Bytes encode(std::string_view json);

   private:
    enum class State : uint8_t { kHeader, kBody, kDone };
    State state_ = State::kHeader;
    Bytes head_;
    Bytes json_;
    size_t left_ = 0;
};

}  // namespace mesh::control
