// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// From the control URL to an upgraded connection: which ports to try, the request that asks for the upgrade, and reading
/// its answer. Pure, for both ends.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/http1.h"
#include "base/result.h"
#include "tailscaled/control/noise.h"

namespace mesh::control {

inline constexpr std::string_view kUpgradeProtocol = "tailscale-control-protocol";
inline constexpr std::string_view kHandshakeHeader = "X-Tailscale-Handshake";
inline constexpr std::string_view kUpgradePath = "/ts2021";

/// One way to reach /ts2021.
struct UpgradeTarget {
    bool tls = false;
    uint16_t port = 0;
    bool operator==(const UpgradeTarget&) const = default;
};
/// In the order of starting; the second starts half a second after the first, or when it fails. A plain-http server on a
/// private or loopback address is never tried with TLS. `recently_dialled`: TLS goes first, because some middleboxes
/// let the upgrade on port 80 through and break the connection afterwards.
[[nodiscard]] std::vector<UpgradeTarget> upgrade_targets(const http1::Url& url, bool recently_dialled);

/// Checks a control URL: scheme, host, no user part. The error is for the one who typed it.
[[nodiscard]] Result<http1::Url> parse_control_url(std::string_view text);

[[nodiscard]] std::string upgrade_request(const http1::Url& url, const UpgradeTarget& target, ByteSpan initiation,
                                          std::string_view user_agent);

/// Client: reads the answer and the Noise response behind it.
class UpgradeReader {
   public:
    explicit UpgradeReader(NoiseInitiator noise);
    /// Any split. Keys once the handshake is complete; what follows is then in rest().
    [[nodiscard]] Result<std::optional<NoiseKeys>> feed(ByteSpan bytes);
    /// The server accepted the upgrade but not (yet) the handshake: an end of the stream now means that it holds another
    /// key, or does not speak our version.
    [[nodiscard]] bool upgraded() const { return upgraded_; }
    [[nodiscard]] ByteSpan rest() const { return rest_; }

   private:
    NoiseInitiator noise_;
    http1::Parser parser_;
    ResponseReader response_;
    Bytes rest_;
    bool upgraded_ = false;
};

/// Server: the initiation in an upgrade request. kInvalid with the text for a 400 answer.
[[nodiscard]] Result<Bytes> upgrade_initiation(const http1::Request& request);
[[nodiscard]] std::string upgrade_response();

}  // namespace mesh::control
