// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Whole HTTP(S) requests by libcurl on the loop: /key, HTTPS latency, captive portals, UPnP SOAP. Names are resolved by
/// our Resolver, sockets are marked, certificates are judged by the rules of tls.h.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/http1.h"
#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/resolver.h"
#include "platform/net/socket_mark.h"
#include "platform/tls/tls.h"

namespace mesh::platform {

struct HttpRequest {
    enum class Method : uint8_t { kGet, kHead, kPost } method = Method::kGet;
    std::string url;  ///< http or https
    http1::Headers headers;
    std::string body;  ///< kPost
    size_t max_body_bytes = size_t{1} << 20;
    Duration timeout = seconds(10);
    int max_redirects = 0;  ///< GET and HEAD only; 0 = a 3xx is the answer
    Protect protect = Protect::kYes;
    /// https: server_name "" = the URL's host. Not given: kSystem.
    std::optional<TlsClientOptions> tls;
    /// Use these instead of looking the URL's host up.
    std::vector<Addr> addresses;
};

struct HttpResponse {
    unsigned status = 0;
    http1::Headers headers;
    std::string body;
    /// Since the request was sent to curl: connected, TLS done, first byte of the answer, all. HTTPS latency of a DERP
    /// region is first_byte − tls.
    Duration connected, tls, first_byte, total;
    Addr remote;
    [[nodiscard]] std::string_view header(std::string_view name) const;
};

class HttpClient {
   public:
    using Callback = std::function<void(Result<HttpResponse>)>;
    /// A request under way. Destruction cancels: the callback will not run.
    class Call {
       public:
        virtual ~Call() = default;
    };

    /// Both must outlive the client. libcurl is loaded by a request and leaves memory `rest` after the last one; each time
    /// the rest doubles, up to ten minutes.
    HttpClient(Loop& loop, Resolver& resolver, Duration rest = seconds(5));
    ~HttpClient();  ///< requests still under way never call back
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    /// The callback always comes in a later turn and may destroy the Call. Error: "GET https://host/key: cause".
    [[nodiscard]] std::unique_ptr<Call> send(HttpRequest request, Callback callback);

   private:
    friend class HttpCall;
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace mesh::platform
