// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// NATs and stateful firewalls as data: mapping × filtering × expiry (RFC 4787 sections 4 and 5).

#include <map>
#include <optional>
#include <set>

#include "base/ip.h"
#include "base/random.h"
#include "base/time.h"

namespace mesh::sim {

/// On what a mapping, or the permission to answer, depends besides the inside endpoint.
enum class Depends : uint8_t { kNothing, kAddress, kAddressAndPort };

struct NatType {
    const char* name = "open";
    bool translates = false;         ///< false: only filters (firewall), addresses stay
    bool udp_blocked = false;
    Depends mapping = Depends::kNothing;
    Depends filtering = Depends::kNothing;
    bool preserves_port = false;     ///< tries to keep the inside port
    Duration expiry = seconds(30);   ///< of a mapping and of a permission, after the last datagram outwards
};

/// Public address, everything comes in.
inline constexpr NatType kOpen{};
/// Public address, only answers come in.
inline constexpr NatType kFirewall{.name = "firewall", .filtering = Depends::kAddressAndPort};
inline constexpr NatType kFullCone{.name = "full cone", .translates = true, .preserves_port = true};
/// Linux masquerade, most home routers.
inline constexpr NatType kEasy{.name = "easy", .translates = true, .filtering = Depends::kAddressAndPort, .preserves_port = true};
/// The same with a random, but stable, port.
inline constexpr NatType kEasyRandomPort{.name = "easy, other port", .translates = true, .filtering = Depends::kAddressAndPort};
inline constexpr NatType kEasyAddress{.name = "easy, address filter", .translates = true, .filtering = Depends::kAddress};
inline constexpr NatType kHard{.name = "hard", .translates = true, .mapping = Depends::kAddressAndPort, .filtering = Depends::kAddressAndPort};
inline constexpr NatType kHardAddress{.name = "hard, per address", .translates = true, .mapping = Depends::kAddress, .filtering = Depends::kAddressAndPort};
inline constexpr NatType kBlocked{.name = "no UDP", .udp_blocked = true};

/// One box between a site and the internet, for one address family. With `translates` it has one outside address.
class Nat {
   public:
    Nat(NatType type, Addr wan, uint64_t seed) : type_(type), wan_(wan), random_(seed) {}

    [[nodiscard]] const NatType& type() const { return type_; }
    [[nodiscard]] const Addr& wan() const { return wan_; }
    /// A datagram leaves: what the outside sees as its source; nullopt: dropped.
    std::optional<Endpoint> outbound(const Endpoint& inside, const Endpoint& to, Time now);
    /// A datagram arrives at `at`: the inside endpoint it is for; nullopt: dropped.
    [[nodiscard]] std::optional<Endpoint> inbound(const Endpoint& from, const Endpoint& at, Time now) const;
    /// Power cycle: all state is lost.
    void reboot() { mappings_.clear(); }
    /// The provider gives another address (and all state is lost).
    void renumber(const Addr& wan) {
        wan_ = wan;
        reboot();
    }

   private:
    struct Key {
        Endpoint inside;
        Endpoint to;  // as far as the mapping depends on it
        auto operator<=>(const Key&) const = default;
    };
    struct Mapping {
        Endpoint outside;
        Time last;
        std::map<Endpoint, Time> allowed;  // key: as far as the filter depends on it
    };
    [[nodiscard]] static Endpoint part(const Endpoint& e, Depends d);
    uint16_t free_port(uint16_t wanted);

    NatType type_;
    Addr wan_;
    SeededRandom random_;
    std::map<Key, Mapping> mappings_;
};

}  // namespace mesh::sim
