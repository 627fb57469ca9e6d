// SPDX-License-Identifier: BSD-3-Clause
#include "platform/http/http_client.h"

#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <set>

#include "base/check.h"
#include "base/log.h"
#include "platform/fd.h"
#include "platform/http/curl_library.h"
#include "platform/net/sockaddr.h"
#include "platform/tls/openssl.h"

namespace mesh::platform {
namespace {

constexpr size_t kMaxHeaderBytes = size_t{64} << 10;
constexpr long kMaxConnections = 64;
constexpr Duration kLongestRest = seconds(600);

bool same_text(std::string_view a, std::string_view b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](unsigned char x, unsigned char y) {
               return std::tolower(x) == std::tolower(y);
           });
}

std::string_view trim(std::string_view s) {
    while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front())) != 0) s.remove_prefix(1);
    while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back())) != 0) s.remove_suffix(1);
    return s;
}

using Easy = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using List = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

const char* method_name(HttpRequest::Method m) {
    return m == HttpRequest::Method::kHead ? "HEAD" : m == HttpRequest::Method::kPost ? "POST" : "GET";
}

}  // namespace

class HttpCall;

struct HttpClient::State {
    Loop& loop;
    Resolver& resolver;
    std::shared_ptr<const CurlLibrary> library;  // with multi: loaded by a request, given up some time after the last
    CURLM* multi = nullptr;
    Timer timer;
    Timer rest;
    Duration rest_length;  // twice as long each time, for loading costs milliseconds
    std::map<curl_socket_t, std::unique_ptr<FdPoll>> polls;
    std::set<HttpCall*> calls;

    State(Loop& l, Resolver& r, Duration first_rest)
        : loop(l), resolver(r), timer(l, [this] { act(CURL_SOCKET_TIMEOUT, 0); }), rest(l, [this] { unload(); }), rest_length(first_rest) {}
    ~State() { unload(); }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    Status load() {
        rest.cancel();
        if (multi != nullptr) return {};
        auto found = CurlLibrary::load();
        if (!found) return tl::unexpected(std::move(found.error()));
        library = std::move(*found);
        multi = library->multi_init();
        CHECK(multi != nullptr);
        library->multi_setopt(multi, CURLMOPT_SOCKETDATA, this);
        library->multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, &State::on_socket);
        library->multi_setopt(multi, CURLMOPT_TIMERDATA, this);
        library->multi_setopt(multi, CURLMOPT_TIMERFUNCTION, &State::on_timer);
        library->multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, kMaxConnections);
        return {};
    }
    void unload() {
        timer.cancel();
        polls.clear();
        if (multi != nullptr) library->multi_cleanup(multi);
        multi = nullptr;
        library.reset();
    }
    void remove(HttpCall* call) {
        calls.erase(call);
        if (!calls.empty() || multi == nullptr) return;
        rest.set_after(rest_length);
        rest_length = std::min(rest_length * 2, kLongestRest);
    }

    static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) {
        auto* s = static_cast<State*>(self);
        if (what == CURL_POLL_REMOVE) {
            s->polls.erase(fd);
            return 0;
        }
        auto& poll = s->polls[fd];
        if (!poll)
            poll = std::make_unique<FdPoll>(s->loop, fd, [s, fd](FdPoll::Events e) {
                s->act(fd, (e.readable ? CURL_CSELECT_IN : 0) | (e.writable ? CURL_CSELECT_OUT : 0) |
                               (e.error ? CURL_CSELECT_ERR : 0));
            });
        poll->set_interest(what != CURL_POLL_OUT, what != CURL_POLL_IN);
        return 0;
    }
    static int on_timer(CURLM*, long timeout_ms, void* self) {
        auto* s = static_cast<State*>(self);
        if (timeout_ms < 0)
            s->timer.cancel();
        else
            s->timer.set_after(milliseconds(timeout_ms));
        return 0;
    }
    void act(curl_socket_t fd, int events);
};

/// curl's callbacks only gather; the user's callback runs from this call's own timer, outside of curl.
class HttpCall final : public HttpClient::Call {
   public:
    HttpCall(HttpClient::State* state, HttpRequest request, HttpClient::Callback callback)
        : state_(state),
          request_(std::move(request)),
          callback_(std::move(callback)),
          redirects_left_(request_.max_redirects),
          deadline_(state->loop.now() + request_.timeout),
          timer_(state->loop, [this] { on_timer(); }) {
        state_->calls.insert(this);
        timer_.set(deadline_);
        start();
    }
    ~HttpCall() override { leave(); }
    HttpCall(const HttpCall&) = delete;
    HttpCall& operator=(const HttpCall&) = delete;

    /// Out of curl's and the client's hands; no callback comes any more.
    void leave() {
        stop_curl();
        lookup_.reset();
        timer_.cancel();
        headers_.reset();
        places_.reset();
        library_.reset();
        if (state_ != nullptr) state_->remove(this);
        state_ = nullptr;
    }

    void completed(CURLcode code) {
        if (code == CURLE_OK) {
            take_response();
            if (redirect()) return;
            settle({});
            return;
        }
        settle(explain(code));
    }

   private:
    void start() {
        const auto url = http1::parse_url(request_.url);
        if (!url) {
            settle(Error{Code::kInvalid, 0, "not an http or https URL"});
            return;
        }
        url_ = *url;
        if (!request_.addresses.empty()) {
            begin(request_.addresses);
            return;
        }
        Resolver::Options look;
        look.timeout = (deadline_ - state_->loop.now()) * 9 / 10;  // its words say more than our own time-out
        lookup_ = state_->resolver.resolve(url_.host, look, [this](Result<std::vector<Addr>> found) {
            if (found)
                begin(*found);
            else
                settle(std::move(found.error()));
        });
    }

    void begin(const std::vector<Addr>& addresses) {
        stop_curl();
        if (Status s = state_->load(); !s) {
            settle(std::move(s.error()));
            return;
        }
        library_ = state_->library;
        easy_ = Easy(library_->easy_init(), library_->easy_cleanup);
        CHECK(easy_ != nullptr);
        CURL* c = easy_.get();
        response_ = {};
        header_bytes_ = 0;
        too_large_ = false;
        error_text_[0] = '\0';
        verifier_ = {};
        verifier_.options = request_.tls ? *request_.tls : TlsClientOptions{};
        if (verifier_.options.server_name.empty() && verifier_.options.verify != TlsVerify::kPin)
            verifier_.options.server_name = url_.host;

        library_->easy_setopt(c, CURLOPT_PRIVATE, this);
        library_->easy_setopt(c, CURLOPT_URL, request_.url.c_str());
        library_->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
        library_->easy_setopt(c, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
        library_->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
        library_->easy_setopt(c, CURLOPT_PROXY, "");
        library_->easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
        library_->easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L);
        library_->easy_setopt(c, CURLOPT_ERRORBUFFER, error_text_);
        library_->easy_setopt(c, CURLOPT_TIMEOUT_MS,
                         std::max(1L, static_cast<long>((deadline_ - state_->loop.now()).millis())));
        library_->easy_setopt(c, CURLOPT_WRITEDATA, this);
        library_->easy_setopt(c, CURLOPT_WRITEFUNCTION, &HttpCall::on_body);
        library_->easy_setopt(c, CURLOPT_HEADERDATA, this);
        library_->easy_setopt(c, CURLOPT_HEADERFUNCTION, &HttpCall::on_header);
        library_->easy_setopt(c, CURLOPT_OPENSOCKETDATA, this);
        library_->easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, &HttpCall::on_open_socket);
        // All judging of certificates is ours (tls/verify.cc): curl loads no roots and compares no names.
        library_->easy_setopt(c, CURLOPT_CAINFO, nullptr);
        library_->easy_setopt(c, CURLOPT_CAPATH, nullptr);
        library_->easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
        library_->easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
        library_->easy_setopt(c, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
        library_->easy_setopt(c, CURLOPT_SSL_SESSIONID_CACHE, 0L);
        library_->easy_setopt(c, CURLOPT_SSL_CTX_DATA, this);
        library_->easy_setopt(c, CURLOPT_SSL_CTX_FUNCTION, &HttpCall::on_ssl_ctx);
        switch (request_.method) {
            case HttpRequest::Method::kGet:
                library_->easy_setopt(c, CURLOPT_HTTPGET, 1L);
                break;
            case HttpRequest::Method::kHead:
                library_->easy_setopt(c, CURLOPT_NOBODY, 1L);
                break;
            case HttpRequest::Method::kPost:
                library_->easy_setopt(c, CURLOPT_POST, 1L);
                library_->easy_setopt(c, CURLOPT_POSTFIELDS, request_.body.data());
                library_->easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
                break;
        }
        headers_.reset();
        if (request_.method == HttpRequest::Method::kPost) append(headers_, "Expect:");
        for (const auto& [name, value] : request_.headers) {
            if ((name + value).find_first_of("\r\n") != std::string::npos) continue;
            append(headers_, value.empty() ? name + ";" : name + ": " + value);
        }
        library_->easy_setopt(c, CURLOPT_HTTPHEADER, headers_.get());
        place(addresses);
        if (library_->multi_add_handle(state_->multi, c) != CURLM_OK) {
            settle(Error{Code::kInternal, 0, "curl does not take the request"});
            return;
        }
        running_ = true;
    }

    /// Tells curl where the host lives, so that it never asks a name server itself.
    void place(const std::vector<Addr>& addresses) {
        const auto bracketed = [](const Addr& a) { return a.is_v6() ? "[" + a.str() + "]" : a.str(); };
        const std::string port = std::to_string(url_.port);
        places_.reset();
        if (const auto literal = Addr::parse(url_.host)) {
            append(places_, bracketed(*literal) + ":" + port + ":" + bracketed(addresses.front()) + ":" + port);
            library_->easy_setopt(easy_.get(), CURLOPT_CONNECT_TO, places_.get());
            return;
        }
        std::string line = url_.host + ":" + port + ":";
        for (size_t i = 0; i < addresses.size(); ++i) line += (i > 0 ? "," : "") + bracketed(addresses[i]);
        append(places_, line);
        library_->easy_setopt(easy_.get(), CURLOPT_RESOLVE, places_.get());
    }

    void append(List& list, const std::string& line) {
        curl_slist* longer = library_->slist_append(list.get(), line.c_str());
        if (longer == nullptr) return;
        [[maybe_unused]] curl_slist* same = list.release();
        list = List(longer, library_->slist_free_all);
    }

    [[nodiscard]] Duration micros(CURLINFO what) const {
        curl_off_t us = 0;
        library_->easy_getinfo(easy_.get(), what, &us);
        return microseconds(us);
    }

    void stop_curl() {
        if (running_ && state_ != nullptr) library_->multi_remove_handle(state_->multi, easy_.get());
        running_ = false;
        easy_.reset();
    }

    void take_response() {
        CURL* c = easy_.get();
        long status = 0;
        library_->easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
        response_.status = static_cast<unsigned>(status);
        response_.connected = micros(CURLINFO_CONNECT_TIME_T);
        response_.tls = micros(CURLINFO_APPCONNECT_TIME_T);
        response_.first_byte = micros(CURLINFO_STARTTRANSFER_TIME_T);
        response_.total = micros(CURLINFO_TOTAL_TIME_T);
        const char* ip = nullptr;
        library_->easy_getinfo(c, CURLINFO_PRIMARY_IP, &ip);
        if (ip != nullptr)
            if (const auto a = Addr::parse(ip)) response_.remote = *a;
    }

    bool redirect() {
        const unsigned s = response_.status;
        if (redirects_left_ <= 0 || request_.method == HttpRequest::Method::kPost ||
            (s != 301 && s != 302 && s != 303 && s != 307 && s != 308))
            return false;
        const char* to = nullptr;
        library_->easy_getinfo(easy_.get(), CURLINFO_REDIRECT_URL, &to);
        if (to == nullptr) return false;
        --redirects_left_;
        const std::string old_host = url_.host;
        request_.url = to;
        const auto url = http1::parse_url(request_.url);
        if (!url || url->host != old_host) {  // what was said about one host does not hold for another
            request_.tls.reset();
            request_.addresses.clear();
        }
        again_ = true;
        timer_.set(state_->loop.now());
        return true;
    }

    [[nodiscard]] Error explain(CURLcode code) const {
        switch (code) {
            case CURLE_OPERATION_TIMEDOUT:
                return {Code::kTimeout, 0, "timed out after " + std::to_string(request_.timeout.millis()) + " ms"};
            case CURLE_COULDNT_CONNECT: {
                long os_errno = 0;
                library_->easy_getinfo(easy_.get(), CURLINFO_OS_ERRNO, &os_errno);
                return {Code::kUnavailable, static_cast<int>(os_errno), "cannot connect"};
            }
            case CURLE_WRITE_ERROR:
                if (too_large_)
                    return {Code::kLimit, 0, "the answer is larger than " + std::to_string(request_.max_body_bytes) + " bytes"};
                break;
            case CURLE_PEER_FAILED_VERIFICATION:
            case CURLE_SSL_CONNECT_ERROR:
                if (!verifier_.problem.empty()) return {Code::kDenied, 0, "TLS: " + verifier_.problem};
                // The words of OpenSSL for bytes that are no TLS, and for a program that hangs up on a TLS hello.
                for (const char* sign : {"wrong version number", "http request", "packet length too long", "SSL_ERROR_SYSCALL",
                                         "unexpected eof", "record layer failure"})
                    if (std::strstr(error_text_, sign) != nullptr)
                        return {Code::kUnsupported, 0, "nothing on this port speaks TLS"};
                break;
            case CURLE_GOT_NOTHING:
            case CURLE_UNSUPPORTED_PROTOCOL:  // an answer without a status line
            case CURLE_WEIRD_SERVER_REPLY:
                return {Code::kUnsupported, 0, "nothing on this port speaks HTTP"};
            default:
                break;
        }
        const std::string text = error_text_[0] != '\0' ? error_text_ : library_->easy_strerror(code);
        return {Code::kUnavailable, 0, log::printable(text)};
    }

    /// Delivered in a later turn: the callback may destroy this call, the client or the resolver.
    void settle(std::optional<Error> error) {
        error_ = std::move(error);
        settled_ = true;
        timer_.set(state_->loop.now());
    }

    void on_timer() {
        if (again_) {
            again_ = false;
            timer_.set(deadline_);
            stop_curl();
            start();
            return;
        }
        if (!settled_) error_ = Error{Code::kTimeout, 0, "timed out after " + std::to_string(request_.timeout.millis()) + " ms"};
        Result<HttpResponse> result = std::move(response_);
        if (error_)
            result = tl::unexpected(
                std::move(*error_).with(std::string(method_name(request_.method)) + " " + log::printable(request_.url)));
        leave();
        const HttpClient::Callback cb = std::move(callback_);
        cb(std::move(result));  // last
    }

    static size_t on_body(char* data, size_t size, size_t count, void* self) {
        auto* c = static_cast<HttpCall*>(self);
        const size_t n = size * count;
        if (c->response_.body.size() + n > c->request_.max_body_bytes) {
            c->too_large_ = true;
            return 0;
        }
        c->response_.body.append(data, n);
        return n;
    }
    static size_t on_header(char* data, size_t size, size_t count, void* self) {
        auto* c = static_cast<HttpCall*>(self);
        const size_t n = size * count;
        c->header_bytes_ += n;
        if (c->header_bytes_ > kMaxHeaderBytes) {
            c->too_large_ = true;
            return 0;
        }
        const std::string_view line = trim({data, n});
        if (line.starts_with("HTTP/")) {
            c->response_.headers.clear();  // a 1xx came before
        } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
            c->response_.headers.emplace_back(line.substr(0, colon), trim(line.substr(colon + 1)));
        }
        return n;
    }
    static curl_socket_t on_open_socket(void* self, curlsocktype, curl_sockaddr* to) {
        auto* c = static_cast<HttpCall*>(self);
        UniqueFd fd(::socket(to->family, to->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, to->protocol));
        if (!fd.valid()) return CURL_SOCKET_BAD;
        if (c->request_.protect == Protect::kYes) {
            sockaddr_storage at{};
            std::memcpy(&at, &to->addr, std::min<size_t>(to->addrlen, sizeof at));
            if (const Status s = protect_socket(fd.get(), from_sockaddr(at).addr); !s) {
                log::info("http: {}", s.error().message());
                return CURL_SOCKET_BAD;
            }
        }
        return fd.release();
    }
    static CURLcode on_ssl_ctx(CURL*, void* ctx, void* self) {
        static_cast<HttpCall*>(self)->verifier_.install(static_cast<SSL_CTX*>(ctx));
        return CURLE_OK;
    }

    HttpClient::State* state_;
    HttpRequest request_;
    HttpClient::Callback callback_;
    int redirects_left_;
    Time deadline_;
    http1::Url url_;
    HttpResponse response_;
    size_t header_bytes_ = 0;
    bool too_large_ = false;
    bool running_ = false;
    bool again_ = false;
    bool settled_ = false;
    std::optional<Error> error_;
    char error_text_[CURL_ERROR_SIZE] = "";
    openssl::Verifier verifier_;
    std::shared_ptr<const CurlLibrary> library_;  // outlives what follows
    List headers_{nullptr, nullptr};
    List places_{nullptr, nullptr};
    Easy easy_{nullptr, nullptr};
    std::unique_ptr<Resolver::Lookup> lookup_;
    Timer timer_;
};

void HttpClient::State::act(curl_socket_t fd, int events) {
    int running = 0;
    library->multi_socket_action(multi, fd, events, &running);
    int left = 0;
    while (const CURLMsg* m = library->multi_info_read(multi, &left)) {
        if (m->msg != CURLMSG_DONE) continue;
        const CURLcode code = m->data.result;
        char* call = nullptr;
        library->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &call);
        reinterpret_cast<HttpCall*>(call)->completed(code);
    }
}

std::string_view HttpResponse::header(std::string_view name) const {
    for (const auto& [n, v] : headers)
        if (same_text(n, name)) return v;
    return "";
}

HttpClient::HttpClient(Loop& loop, Resolver& resolver, Duration rest) : state_(std::make_unique<State>(loop, resolver, rest)) {}

HttpClient::~HttpClient() {
    while (!state_->calls.empty()) (*state_->calls.begin())->leave();
}

std::unique_ptr<HttpClient::Call> HttpClient::send(HttpRequest request, Callback callback) {
    return std::make_unique<HttpCall>(state_.get(), std::move(request), std::move(callback));
}

}  // namespace mesh::platform
