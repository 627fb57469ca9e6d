// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The disco protocol: small sealed messages by which two nodes find out which UDP paths work between them.
///
///     datagram   54 53 f0 9f 92 ac | sender disco key 32 | nonce 24 | NaCl box (tag 16 + payload)
///     payload    type u8 | version u8 (0) | body
///       0x01 Ping         txid 12 | node key 32 (a hint; absent from very old peers) | zero padding
///       0x02 Pong         txid 12 | source that the ping came from: address 16, port 2
///       0x03 CallMeMaybe  n × (address 16, port 2): "I may be reached here, ping me"; only by DERP
///       0x04 … 0x06       Bind, challenge, answer between a client and a UDP relay server (magicsock/relay):
///                         VNI u32 | generation u32 | disco key of the other client 32 | challenge 32
///       0x07 CallMeMaybeVia      relay endpoint; only by DERP
///       0x08 AllocateRequest     two client disco keys 64 | generation u32; only by DERP
///       0x09 AllocateResponse    generation u32 | relay endpoint; only by DERP
///     relay endpoint: server disco key 32 | two client disco keys 64 | lamport id u64 | VNI u32 |
///                     bind lifetime ns u64 | steady-state lifetime ns u64 | n × (address 16, port 2), n ≥ 1
///
/// Integers are big endian; IPv4 addresses travel in v4-mapped form. Unknown types and undecodable bodies are
/// ignored in silence, trailing bytes too. Source: tailscale/tailscale disco/disco.go, types/key/disco.go.

#include <array>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/crypto/crypto.h"
#include "base/ip.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/time.h"

namespace mesh::disco {

inline constexpr std::array<uint8_t, 6> kMagic{0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};
inline constexpr size_t kNonceLen = 24;
/// Magic, sender key, nonce: what stands before the box.
inline constexpr size_t kHeaderLen = 6 + 32 + kNonceLen;
/// Length of a datagram around a payload of n bytes is kOverhead + n.
inline constexpr size_t kOverhead = kHeaderLen + crypto::kTagLen;
/// Payload of an unpadded ping with node key; its datagram has 124 bytes.
inline constexpr size_t kPingPayloadLen = 2 + 12 + 32;
/// A CallMeMaybe with more endpoints is cut here when read. A datagram of 1280 bytes holds 66.
inline constexpr size_t kMaxEndpoints = 64;

enum class Type : uint8_t {
    kPing = 0x01,
    kPong = 0x02,
    kCallMeMaybe = 0x03,
    kRelayBind = 0x04,
    kRelayChallenge = 0x05,
    kRelayAnswer = 0x06,
    kCallMeMaybeVia = 0x07,
    kAllocateRequest = 0x08,
    kAllocateResponse = 0x09,
};

using TxId = std::array<uint8_t, 12>;

struct Ping {
    TxId tx{};
    NodePublic node;       ///< zero: not given
    size_t padding = 0;    ///< zero bytes after the body, ≤ 65000; only with a node key
    bool operator==(const Ping&) const = default;
};
struct Pong {
    TxId tx{};
    Endpoint source;       ///< where the ping came from, as its receiver saw it
    bool operator==(const Pong&) const = default;
};
struct CallMeMaybe {
    std::vector<Endpoint> endpoints;
    bool operator==(const CallMeMaybe&) const = default;
};
/// The three steps by which a client binds its leg of a relay endpoint to its address. All have the same length, so a
/// server cannot be made to send more than it got.
struct RelayBind {
    enum class Step : uint8_t { kBind = 4, kChallenge = 5, kAnswer = 6 };
    Step step = Step::kBind;
    uint32_t vni = 0;         ///< 1 … 2^24 − 1, as in the Geneve header around the message
    uint32_t generation = 0;  ///< of the client's handshake, not 0
    DiscoPublic remote;       ///< the other client
    std::array<uint8_t, 32> challenge{};  ///< the server's; means nothing in kBind
    bool operator==(const RelayBind&) const = default;
};
/// The clients of a relay endpoint, in byte order.
using DiscoPair = std::array<DiscoPublic, 2>;
[[nodiscard]] DiscoPair sorted_pair(const DiscoPublic& a, const DiscoPublic& b);
/// What a relay server has allocated for two clients.
struct RelayEndpoint {
    DiscoPublic server;    ///< of the relay server, which is not that of its node
    DiscoPair clients;
    uint64_t lamport = 0;  ///< of two endpoints of one server, the one with the greater number is newer
    uint32_t vni = 0;
    Duration bind_lifetime{}, steady_lifetime{};  ///< ≥ 0
    std::vector<Endpoint> addrs;                  ///< where it may be reached, kMaxEndpoints at most
    bool operator==(const RelayEndpoint&) const = default;
};
struct CallMeMaybeVia {
    RelayEndpoint relay;
    bool operator==(const CallMeMaybeVia&) const = default;
};
struct AllocateRequest {
    DiscoPair clients;
    uint32_t generation = 0;  ///< comes back in the response
    bool operator==(const AllocateRequest&) const = default;
};
struct AllocateResponse {
    uint32_t generation = 0;
    RelayEndpoint relay;
    bool operator==(const AllocateResponse&) const = default;
};
using Message = std::variant<Ping, Pong, CallMeMaybe, RelayBind, CallMeMaybeVia, AllocateRequest, AllocateResponse>;

/// True if the datagram starts like disco: magic and a whole sender key. Nothing is verified yet.
[[nodiscard]] inline bool looks_like_disco(ByteSpan datagram) {
    return datagram.size() >= 6 + 32 && std::memcmp(datagram.data(), kMagic.data(), kMagic.size()) == 0;
}
/// The disco key that the datagram names as its sender. Precondition: looks_like_disco().
[[nodiscard]] inline DiscoPublic sender_of(ByteSpan datagram) { return DiscoPublic::from(datagram.subspan(6, 32)); }

/// A decrypted payload → message; nullopt for unknown types and undecodable bodies.
[[nodiscard]] std::optional<Message> parse(ByteSpan payload);
/// The payload of a message.
[[nodiscard]] Bytes encode(const Message& message);

/// The key that two nodes share (X25519 of their disco keys); computed once per peer, because it costs some 50 µs.
class SharedKey {
   public:
    /// nullopt if their key is a weak point.
    [[nodiscard]] static std::optional<SharedKey> derive(const DiscoPrivate& mine, const DiscoPublic& theirs);
    /// The whole datagram: header and sealed payload, under a fresh random nonce.
    [[nodiscard]] Bytes seal(const DiscoPublic& sender, ByteSpan payload, Random& random) const;
    /// The payload of a datagram; nullopt if forged or too short.
    [[nodiscard]] std::optional<Bytes> open(ByteSpan datagram) const;

   private:
    SharedKey() = default;
    LockedKey key_;
};

}  // namespace mesh::disco
