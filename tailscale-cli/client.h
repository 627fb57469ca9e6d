// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Blocking client of the daemon's local API: one connection per question, so that nothing has to be kept. Starting fast
/// matters more here than anything else.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/http1.h"
#include "base/result.h"
#include "base/time.h"
#include "platform/fd.h"
#include "tailscaled/api/notify.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/status.h"

namespace mesh::cli {

struct ApiError {
    enum class Kind : uint8_t { kNoDaemon, kDenied, kHttp, kTimeout, kOther };
    Kind kind = Kind::kOther;
    unsigned status = 0;  ///< of kDenied and kHttp
    std::string text;     ///< for people, as the original words it
    std::string body;     ///< of kHttp, trimmed
};
template <class T>
using ApiResult = tl::expected<T, ApiError>;

/// From now on SIGINT and SIGTERM do not end the program: a call that waits fails with "context canceled" instead.
void catch_interrupts();

/// Steady clock; zero deadline = none.
[[nodiscard]] Time steady_now();

/// A stream of bus messages.
class Bus {
   public:
    explicit Bus(platform::UniqueFd fd);
    /// Waits for the response headers.
    [[nodiscard]] ApiResult<void> begin(Time deadline);
    /// The next message as JSON text; kTimeout at the deadline.
    [[nodiscard]] ApiResult<std::string> next(Time deadline);

   private:
    [[nodiscard]] ApiResult<void> read_more(Time deadline);
    platform::UniqueFd fd_;
    http1::Parser parser_;
    std::string lines_;
};

class Client {
   public:
    explicit Client(std::string socket_path) : path_(std::move(socket_path)) {}

    /// Body of the answer, if its status is `want` (or any 2xx when 0).
    [[nodiscard]] ApiResult<std::string> call(const std::string& method, const std::string& endpoint,
                                              const std::string& body = "", unsigned want = 200, Time deadline = {});
    /// As call(), whatever the status; `target` is a whole path. For `debug localapi`.
    [[nodiscard]] ApiResult<http1::Response> raw(const std::string& method, const std::string& target,
                                                 const std::string& body, Time deadline = {});
    [[nodiscard]] ApiResult<api::DaemonStatus> status(bool peers = true);
    [[nodiscard]] ApiResult<api::Prefs> prefs();
    [[nodiscard]] ApiResult<api::Prefs> edit_prefs(const api::MaskedPrefs& edit);
    /// {"Error":…} of check-prefs becomes an error.
    [[nodiscard]] ApiResult<void> check_prefs(const api::Prefs& prefs);
    /// A connection that the daemon makes for us.
    struct Dialled {
        platform::UniqueFd fd;  ///< none: the daemon leaves it to us to dial `elsewhere`
        std::string early;      ///< what the other end has said already
        std::string elsewhere;  ///< host:port
    };
    [[nodiscard]] ApiResult<Dialled> dial(const std::string& host, uint16_t port);
    /// Sends a file to the node of that stable id. `next` fills what it is given, 0 at the end; `size` -1: not known. `tick` is told
    /// each quarter of a second how many bytes the daemon has taken.
    using Source = std::function<ApiResult<size_t>(MutByteSpan)>;
    [[nodiscard]] ApiResult<void> put_file(const std::string& stable_id, const std::string& name, int64_t size, const Source& next,
                                           const std::function<void(int64_t taken)>& tick);
    /// Gives a waiting file to `sink` in pieces; its size in the end.
    [[nodiscard]] ApiResult<uint64_t> get_file(const std::string& name, const std::function<ApiResult<void>(std::string_view)>& sink);
    [[nodiscard]] ApiResult<Bus> watch(uint64_t mask, Time deadline = {});
    /// X-Tailscale-Reason of later calls.
    void set_reason(std::string reason) { reason_ = std::move(reason); }

   private:
    [[nodiscard]] ApiResult<platform::UniqueFd> connect(const std::string& target);
    [[nodiscard]] http1::Request request(const std::string& method, const std::string& target,
                                         const std::string& body) const;
    std::string path_;
    std::string reason_;
};

/// {"Error":"…"} or {"error":"…"}: the text; else nullopt.
[[nodiscard]] std::optional<std::string> json_error_text(std::string_view body);
[[nodiscard]] std::string trimmed(std::string_view text);
/// strerror() with a small first letter, as tools of this family print it.
[[nodiscard]] std::string errno_text(int err);

}  // namespace mesh::cli
