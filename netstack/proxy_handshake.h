// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What a program says to a proxy before its bytes go through: SOCKS5 (RFC 1928, no authentication) and HTTP (CONNECT, and absolute
/// URIs), told apart by the first byte. Pure; one object per connection.

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/result.h"

namespace mesh::netstack {

class ProxyHandshake {
   public:
    static constexpr size_t kMaxHead = size_t{32} << 10;  ///< of an HTTP request
    enum class Step : uint8_t {
        kMore,       ///< give more bytes
        kConnect,    ///< to host() and port()
        kAssociate,  ///< SOCKS5 only: a way for datagrams; answer by socks_associated() or socks_failure()
        kRefused,    ///< close, once take_reply() has left
    };

    ProxyHandshake(bool socks, bool http) : socks_(socks), http_(http) {}

    /// Bytes of the client, until the answer is another than kMore. Send take_reply() after each call.
    [[nodiscard]] Step feed(ByteSpan bytes);
    [[nodiscard]] std::string take_reply();

    // After kConnect:
    [[nodiscard]] const std::string& host() const { return host_; }  ///< name or literal, without brackets; not empty
    [[nodiscard]] uint16_t port() const { return port_; }
    /// What goes to the target before anything else: a request in the form servers know, and bytes that came early.
    [[nodiscard]] std::string take_first();
    /// To the client when the target has answered.
    [[nodiscard]] std::string greeting() const;
    /// To the client if it cannot be reached; close then.
    [[nodiscard]] std::string refusal(const Error& why) const;

   private:
    Step socks();
    Step http();
    Step refuse(std::string reply);

    bool socks_, http_;
    bool greeted_ = false, tunnel_ = false;
    std::string in_, reply_, first_, host_;
    uint16_t port_ = 0;
};

// ---- SOCKS5 datagrams (section 7)

/// The reply to an association: where the program may send its datagrams.
[[nodiscard]] std::string socks_associated(const Endpoint& relay);
[[nodiscard]] std::string socks_failure();

struct SocksDatagram {
    std::string host;  ///< name or literal; not empty
    uint16_t port = 0;
    ByteSpan payload;
};
/// nullopt: malformed, or a fragment.
[[nodiscard]] std::optional<SocksDatagram> parse_socks_datagram(ByteSpan datagram);
[[nodiscard]] Bytes socks_datagram(const Endpoint& from, ByteSpan payload);

}  // namespace mesh::netstack
