// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The map of relays that control hands out (tailcfg.DERPMap), as plain values. Ordered containers, so that outputs
/// and probe plans do not depend on hashing.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"

namespace mesh::derp {

/// How one address family of a node is reached.
enum class Reach : uint8_t {
    kByName,   ///< field empty: resolve HostName
    kLiteral,  ///< use the literal
    kNever,    ///< any other text (convention "none"): this family is switched off
};

struct DerpNode {
    std::string name{};  ///< unique in the map
    int region_id = 0;
    std::string host_name{};  ///< DNS name or IP literal
    std::string cert_name{};  ///< "" = host_name; a DNS name; or "sha256-raw:" + 64 hex digits of the certificate's hash
    std::string ipv4{};
    std::string ipv6{};
    int stun_port = 0;  ///< 0 = 3478, −1 = no STUN here
    bool stun_only = false;
    int derp_port = 0;  ///< 0 = 443
    bool insecure_for_tests = false;  ///< no certificate verification
    std::string stun_test_ip{};         ///< overrides the address for STUN (tests)
    bool can_port_80 = false;         ///< answers /generate_204 on port 80

    [[nodiscard]] uint16_t effective_derp_port() const;
    /// nullopt: no STUN on this node (−1 or out of range).
    [[nodiscard]] std::optional<uint16_t> effective_stun_port() const;
    [[nodiscard]] Reach reach_v4() const;
    [[nodiscard]] Reach reach_v6() const;
    /// The literal of that family: from its field, or from an IP literal in host_name when the field is empty. An
    /// invalid Addr: none, either resolve (see needs_name) or never.
    [[nodiscard]] Addr literal_v4() const;
    [[nodiscard]] Addr literal_v6() const;
    /// Some family can only be had by resolving host_name.
    [[nodiscard]] bool needs_name() const;
    /// Value of the HTTP Host header: host_name plus port when derp_port is set and not 443.
    [[nodiscard]] std::string http_host() const;
    /// The hash of a "sha256-raw:" pin. nullopt if cert_name is no pin or the pin is malformed.
    [[nodiscard]] std::optional<std::array<uint8_t, 32>> cert_pin() const;
    bool operator==(const DerpNode&) const = default;
};

struct DerpRegion {
    int id = 0;
    std::string code{};
    std::string name{};
    double latitude = 0;
    double longitude = 0;
    bool avoid = false;               ///< deprecated; kept off in fall-backs only
    bool no_measure_no_home = false;  ///< never measured, never home; reaches peers all the same
    std::vector<DerpNode> nodes{};      ///< in order of preference

    bool operator==(const DerpRegion&) const = default;
};

struct DerpMap {
    std::map<int, DerpRegion> regions{};
    bool omit_default_regions = false;
    std::map<int, double> region_score{};  ///< HomeParams: latency × score; values ≤ 0 are ignored

    [[nodiscard]] const DerpRegion* region(int id) const;
    [[nodiscard]] double score(int id) const;  ///< 1.0 when none is given
    bool operator==(const DerpMap&) const = default;
};

/// Prefix of CertName for a pinned certificate.
inline constexpr std::string_view kCertPinPrefix = "sha256-raw:";

/// The server key that a derper announces in the extra certificate at the end of its chain: common name
/// "derpkey" + 64 hex digits, serial number = protocol version. nullopt if the certificate is something else.
[[nodiscard]] std::optional<NodePublic> parse_meta_cert(std::string_view common_name, uint64_t serial);
[[nodiscard]] std::string meta_cert_name(const NodePublic& server_key);

}  // namespace mesh::derp
