// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// IP addresses, endpoints and prefixes as values.

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace mesh {

/// An IPv4 or IPv6 address, or none. IPv4 sits in the first four bytes; the rest is zero.
class Addr {
   public:
    enum class Family : uint8_t { kNone = 0, kV4 = 4, kV6 = 6 };

    constexpr Addr() = default;
    static Addr v4(uint32_t host_order);
    static Addr v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
    static Addr v4_bytes(const uint8_t* four);
    /// 16 bytes; a v4-mapped address (::ffff:a.b.c.d) becomes IPv4 when `unmap`.
    static Addr v6_bytes(const uint8_t* sixteen, bool unmap = true);
    /// Literal without zone. nullopt for names and malformed text.
    static std::optional<Addr> parse(std::string_view text);

    [[nodiscard]] bool is_valid() const { return family_ != Family::kNone; }
    [[nodiscard]] bool is_v4() const { return family_ == Family::kV4; }
    [[nodiscard]] bool is_v6() const { return family_ == Family::kV6; }
    [[nodiscard]] unsigned bits() const { return is_v4() ? 32 : is_v6() ? 128 : 0; }
    /// 4 or 16 bytes in network order.
    [[nodiscard]] ByteSpan bytes() const { return {bytes_.data(), is_v4() ? 4U : is_v6() ? 16U : 0U}; }
    [[nodiscard]] uint32_t v4_host_order() const { return load_be32(bytes_.data()); }
    /// As 16 bytes, IPv4 in v4-mapped form (disco, DERP mesh).
    [[nodiscard]] std::array<uint8_t, 16> mapped16() const;
    [[nodiscard]] bool is_loopback() const;
    [[nodiscard]] bool is_multicast() const;
    [[nodiscard]] bool is_unspecified() const;
    [[nodiscard]] bool is_link_local() const;  ///< 169.254/16, fe80::/10
    [[nodiscard]] bool is_private() const;     ///< RFC 1918, fc00::/7
    [[nodiscard]] std::string str() const;     ///< RFC 5952

    auto operator<=>(const Addr&) const = default;

   private:
    Family family_ = Family::kNone;  // first: sorts IPv4 before IPv6
    std::array<uint8_t, 16> bytes_{};
};

/// Address and UDP or TCP port.
struct Endpoint {
    Addr addr;
    uint16_t port = 0;

    /// "1.2.3.4:5" or "[::1]:5".
    static std::optional<Endpoint> parse(std::string_view text);
    [[nodiscard]] bool is_valid() const { return addr.is_valid(); }
    [[nodiscard]] std::string str() const;
    auto operator<=>(const Endpoint&) const = default;
};

/// Address and prefix length. Host bits may be set until masked().
struct Prefix {
    Addr addr;
    uint8_t len = 0;

    /// "10.0.0.0/8"; without a slash a single address.
    static std::optional<Prefix> parse(std::string_view text);
    static Prefix single(const Addr& a) { return {a, static_cast<uint8_t>(a.bits())}; }
    [[nodiscard]] bool is_valid() const { return addr.is_valid(); }
    [[nodiscard]] bool is_single() const { return is_valid() && len == addr.bits(); }
    [[nodiscard]] bool is_default() const { return is_valid() && len == 0; }
    [[nodiscard]] bool contains(const Addr& a) const;
    [[nodiscard]] bool overlaps(const Prefix& o) const { return contains(o.addr) || o.contains(addr); }
    [[nodiscard]] Prefix masked() const;
    [[nodiscard]] std::string str() const;
    auto operator<=>(const Prefix&) const = default;
};

/// 100.64.0.0/10 and fd7a:115c:a1e0::/48. Says nothing about membership: tailnets may use other prefixes.
[[nodiscard]] bool is_tailscale_range(const Addr& a);
/// 100.100.100.100 and fd7a:115c:a1e0::53.
[[nodiscard]] Addr service_addr_v4();
[[nodiscard]] Addr service_addr_v6();

}  // namespace mesh

template <>
struct std::hash<mesh::Addr> {
    size_t operator()(const mesh::Addr& a) const noexcept {
        size_t h = 14695981039346656037ULL;
        for (uint8_t b : a.bytes()) h = (h ^ b) * 1099511628211ULL;
        return h ^ (h >> 32);
    }
};
template <>
struct std::hash<mesh::Endpoint> {
    size_t operator()(const mesh::Endpoint& e) const noexcept {
        return std::hash<mesh::Addr>()(e.addr) * 31 + e.port;
    }
};
