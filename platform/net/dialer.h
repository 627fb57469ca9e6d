// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// From "host:port" to an established ByteStream: look-up, happy eyeballs (RFC 8305) over the addresses, TLS handshake.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"
#include "platform/net/resolver.h"
#include "platform/net/socket_mark.h"

namespace mesh::platform {

struct DialOptions {
    std::optional<TlsClientOptions> tls;  ///< server_name "" with verify ≠ kPin: filled with the host
    Protect protect = Protect::kYes;
    Duration timeout = seconds(10);       ///< for everything together
    Duration stagger = milliseconds(250);  ///< until the next address is tried beside those under way
    enum class Family : uint8_t { kAny, kPreferV4, kOnlyV4, kOnlyV6 } family = Family::kAny;
    /// Use these instead of looking `host` up (DERP node with literal addresses).
    std::vector<Addr> addresses;
};

/// A dial under way. Destruction cancels: the callback will not run.
class Dial {
   public:
    virtual ~Dial() = default;
};

class Dialer {
   public:
    /// The stream is established (TLS included) and detached. Error: "host:port: cause".
    using Callback = std::function<void(Result<ByteStream>)>;
    /// Both must outlive the dialer.
    Dialer(Loop& loop, Resolver& resolver) : loop_(loop), resolver_(resolver) {}

    /// The callback always comes in a later turn and may destroy the Dial.
    [[nodiscard]] std::unique_ptr<Dial> dial(std::string_view host, uint16_t port, DialOptions options,
                                             Callback callback);
    [[nodiscard]] Loop& loop() { return loop_; }
    [[nodiscard]] Resolver& resolver() { return resolver_; }

   private:
    Loop& loop_;
    Resolver& resolver_;
};

/// The order addresses are tried in: families alternate, the preferred one first.
[[nodiscard]] std::vector<Addr> dial_order(std::vector<Addr> addresses, DialOptions::Family family);

/// Local API socket: connects at once. kNotFound if there is no socket file, kUnavailable if nobody listens, kDenied.
[[nodiscard]] Result<ByteStream> unix_connect(const std::string& path);

}  // namespace mesh::platform
