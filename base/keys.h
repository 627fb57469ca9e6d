// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One type per kind of key, so that a disco key cannot be passed for a node key. Text forms: prefix + 64 lower-case
/// hex digits. Private keys live in locked memory, wipe themselves and are never printed; text() of a private key exists for the state file.

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/random.h"
#include "base/secret.h"

namespace mesh {

namespace detail {
std::optional<std::array<uint8_t, 32>> parse_key(std::string_view prefix, std::string_view text);
std::string key_text(std::string_view prefix, ByteSpan raw);
std::array<uint8_t, 32> public_of(const std::array<uint8_t, 32>& private_key);
void generate_clamped(std::array<uint8_t, 32>& out, Random& random);
/// Reads straight into `out`: no copy of a secret stays on the stack.
bool parse_key_into(std::array<uint8_t, 32>& out, std::string_view prefix, std::string_view text);
}  // namespace detail

/// A 32-byte public key. The zero value means "none".
template <class Tag>
struct PublicKey {
    std::array<uint8_t, 32> raw{};

    static PublicKey from(ByteSpan b) {
        PublicKey k;
        if (b.size() == 32) std::memcpy(k.raw.data(), b.data(), 32);
        return k;
    }
    static std::optional<PublicKey> parse(std::string_view text) {
        const auto r = detail::parse_key(Tag::kPublicPrefix, text);
        if (!r) return std::nullopt;
        return PublicKey{*r};
    }
    [[nodiscard]] std::string text() const { return detail::key_text(Tag::kPublicPrefix, raw); }
    [[nodiscard]] bool is_zero() const { return raw == std::array<uint8_t, 32>{}; }
    [[nodiscard]] ByteSpan bytes() const { return raw; }
    auto operator<=>(const PublicKey&) const = default;
};

/// A clamped X25519 private key.
template <class Tag>
class PrivateKey {
   public:
    static PrivateKey generate(Random& random) {
        PrivateKey key;
        detail::generate_clamped(key.raw_.bytes(), random);
        return key;
    }
    static PrivateKey from(const std::array<uint8_t, 32>& raw) {
        PrivateKey key;
        key.raw_.bytes() = raw;
        return key;
    }
    /// "privkey:" + hex.
    static std::optional<PrivateKey> parse(std::string_view text) {
        PrivateKey key;
        if (!detail::parse_key_into(key.raw_.bytes(), "privkey:", text)) return std::nullopt;
        return key;
    }
    [[nodiscard]] PublicKey<Tag> public_key() const { return {detail::public_of(secret())}; }
    [[nodiscard]] std::string secret_text() const { return detail::key_text("privkey:", secret()); }
    /// Moves with the object; gone when it is.
    [[nodiscard]] const std::array<uint8_t, 32>& secret() const { return raw_.bytes(); }
    [[nodiscard]] bool is_zero() const { return raw_.is_zero(); }
    bool operator==(const PrivateKey&) const = default;

   private:
    LockedKey raw_;
};

struct MachineTag { static constexpr std::string_view kPublicPrefix = "mkey:"; };
struct NodeTag { static constexpr std::string_view kPublicPrefix = "nodekey:"; };
struct DiscoTag { static constexpr std::string_view kPublicPrefix = "discokey:"; };
struct ChallengeTag { static constexpr std::string_view kPublicPrefix = "chalpub:"; };

using MachinePublic = PublicKey<MachineTag>;
using MachinePrivate = PrivateKey<MachineTag>;
using NodePublic = PublicKey<NodeTag>;
using NodePrivate = PrivateKey<NodeTag>;
using DiscoPublic = PublicKey<DiscoTag>;
using DiscoPrivate = PrivateKey<DiscoTag>;
using ChallengePublic = PublicKey<ChallengeTag>;

/// Handle of a peer, dense and small; chosen on the control side, unique while the peer is known, shared by wg,
/// magicsock and the tables of the data plane.
using PeerId = uint32_t;
inline constexpr PeerId kNoPeer = UINT32_MAX;

/// "[AbCdE]": the short form of a node key in logs (first five characters of base64).
[[nodiscard]] std::string short_key(const NodePublic& key);

}  // namespace mesh

template <class Tag>
struct std::hash<mesh::PublicKey<Tag>> {
    size_t operator()(const mesh::PublicKey<Tag>& k) const noexcept {
        return static_cast<size_t>(mesh::load_le64(k.raw.data()));
    }
};
