// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Listening sockets, TCP and Unix. Accepted connections are plain detached ByteStreams; give them TLS with start_tls().

#include <functional>
#include <memory>
#include <string>

#include "base/ip.h"
#include "base/result.h"
#include "platform/fd.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"

namespace mesh::platform {

class Listener {
   public:
    /// May destroy the listener.
    using OnAccept = std::function<void(ByteStream)>;

    struct TcpOptions {
        bool v6_only = true;  ///< false with [::]: also IPv4
        int backlog = 128;
        std::string device = {};  ///< takes only what arrives by this interface; "" = any
    };
    /// Address unspecified = all of the family. Port 0 = any; see port().
    [[nodiscard]] static Result<std::unique_ptr<Listener>> tcp(Loop& loop, const Endpoint& at, OnAccept on_accept,
                                                               TcpOptions options);
    [[nodiscard]] static Result<std::unique_ptr<Listener>> tcp(Loop& loop, const Endpoint& at, OnAccept on_accept) {
        return tcp(loop, at, std::move(on_accept), TcpOptions{});
    }
    /// A socket that listens already (see inherited.h).
    [[nodiscard]] static Result<std::unique_ptr<Listener>> adopt(Loop& loop, UniqueFd fd, OnAccept on_accept);
    /// Makes the folder (0755) if missing. A socket file nobody answers on is replaced; one that answers is an error
    /// ("address already in use"). The file is removed when the listener dies.
    [[nodiscard]] static Result<std::unique_ptr<Listener>> unix_socket(Loop& loop, const std::string& path,
                                                                       OnAccept on_accept, unsigned mode = 0666);
    virtual ~Listener() = default;
    [[nodiscard]] virtual uint16_t port() const = 0;
};

}  // namespace mesh::platform
