// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/dialer.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "platform/net/sockaddr.h"

namespace mesh::platform {
namespace {

constexpr size_t kMaxAddresses = 16;

std::string words_for(int err) {
    switch (err) {
        case ECONNREFUSED:
            return "connection refused";
        case ENETUNREACH:
        case EHOSTUNREACH:
            return "no route";
        case ETIMEDOUT:
            return "no answer";
        case EPERM:
        case EACCES:
            return "forbidden by a firewall of this host";
        default:
            return std::strerror(err);
    }
}

class DialInProgress final : public Dial, ByteStream::Listener {
   public:
    DialInProgress(Loop& loop, Resolver& resolver, std::string host, uint16_t port, DialOptions options,
                   Dialer::Callback callback)
        : loop_(loop),
          host_(std::move(host)),
          port_(port),
          options_(std::move(options)),
          callback_(std::move(callback)),
          give_up_(loop, [this] { timed_out(); }),
          next_(loop, [this] { try_next(); }) {
        if (host_.starts_with('[') && host_.ends_with(']')) host_ = host_.substr(1, host_.size() - 2);
        give_up_.set_after(options_.timeout);
        if (!options_.addresses.empty()) {
            addresses_ = dial_order(options_.addresses, options_.family);
            next_.set(loop.now());
            return;
        }
        Resolver::Options look;
        look.timeout = options_.timeout * 9 / 10;  // its words say more than our own time-out
        if (options_.family == DialOptions::Family::kOnlyV4) look.want = Resolver::Want::kV4;
        if (options_.family == DialOptions::Family::kOnlyV6) look.want = Resolver::Want::kV6;
        lookup_ = resolver.resolve(host_, look, [this](Result<std::vector<Addr>> found) {
            if (!found) {
                finish(tl::unexpected(std::move(found.error())));
                return;
            }
            addresses_ = dial_order(std::move(*found), options_.family);
            try_next();
        });
    }

   private:
    struct Attempt {
        Addr addr;
        UniqueFd fd;
        std::unique_ptr<FdPoll> poll;
    };

    [[nodiscard]] std::string target() const {
        const bool v6_literal = host_.find(':') != std::string::npos;
        return (v6_literal ? "[" + host_ + "]" : log::printable(host_, 100)) + ":" + std::to_string(port_);
    }

    /// Starts the next attempts until one is under way. May finish the dial, so callers return after it.
    void try_next() {
        while (at_ < addresses_.size()) {
            const Addr addr = addresses_[at_++];
            if (const int err = start(addr); err != 0) {
                failed(addr, err);
                continue;
            }
            if (at_ < addresses_.size()) next_.set_after(options_.stagger);
            return;
        }
        if (attempts_.empty()) finish(tl::unexpected(all_failed()));
    }

    int start(const Addr& addr) {
        Attempt a;
        a.addr = addr;
        a.fd = UniqueFd(::socket(addr.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (!a.fd.valid()) return errno;
        if (options_.protect == Protect::kYes)
            if (const Status s = protect_socket(a.fd.get(), addr); !s) return s.error().sys_errno;
        const int on = 1;
        ::setsockopt(a.fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        ::setsockopt(a.fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        sockaddr_storage to{};
        const socklen_t len = to_sockaddr({addr, port_}, Addr::Family::kNone, to);
        // Even a connection that stands at once is reported by the poll, in a later turn.
        if (::connect(a.fd.get(), reinterpret_cast<const sockaddr*>(&to), len) != 0 && errno != EINPROGRESS)
            return errno;
        a.poll = std::make_unique<FdPoll>(loop_, a.fd.get(),
                                          [this, fd = a.fd.get()](FdPoll::Events) { connect_done(fd); });
        a.poll->set_interest(false, true);
        attempts_.push_back(std::move(a));
        return 0;
    }

    void connect_done(int fd) {
        const auto it = std::find_if(attempts_.begin(), attempts_.end(),
                                     [fd](const Attempt& a) { return a.fd.get() == fd; });
        if (it == attempts_.end()) return;
        int err = 0;
        socklen_t len = sizeof err;
        if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0) err = errno;
        Attempt done = std::move(*it);
        attempts_.erase(it);
        done.poll.reset();
        if (err != 0) {
            failed(done.addr, err);
            try_next();
            return;
        }
        attempts_.clear();
        next_.cancel();
        connected_ = done.addr;
        if (!options_.tls) {
            finish(ByteStream(std::move(done.fd)));
            return;
        }
        TlsClientOptions tls = *options_.tls;
        if (tls.server_name.empty() && tls.verify != TlsVerify::kPin) tls.server_name = host_;
        auto session = TlsSession::client(std::move(tls));
        if (!session) {
            finish(tl::unexpected(std::move(session.error())));
            return;
        }
        stream_ = ByteStream(std::move(done.fd), std::move(*session));
        stream_.set_reading(false);  // the handshake reads anyway; what follows it is the new owner's
        stream_.attach(loop_, *this);
    }

    void on_ready() override {
        stream_.detach();
        stream_.set_reading(true);
        finish(std::move(stream_));
    }
    void on_bytes(MutByteSpan) override {}
    void on_closed(const Status& why) override {
        Error e = why ? Error{Code::kUnavailable, 0, "TLS: the other side closed during the handshake"} : why.error();
        finish(tl::unexpected(std::move(e)));
    }

    void failed(const Addr& addr, int err) { failures_.emplace_back(addr, err); }

    [[nodiscard]] Error all_failed() const {
        if (addresses_.empty()) return {Code::kNotFound, 0, "no address of the wanted family"};
        const int first = failures_.front().second;
        const bool same = std::all_of(failures_.begin(), failures_.end(), [&](const auto& f) { return f.second == first; });
        std::string text = same ? words_for(first) + " (" : "";
        for (size_t i = 0; i < failures_.size(); ++i) {
            if (i > 0) text += ", ";
            text += failures_[i].first.str();
            if (!same) text += ": " + words_for(failures_[i].second);
        }
        if (same) text += ")";
        return {first == ETIMEDOUT ? Code::kTimeout : Code::kUnavailable, 0, text};
    }

    void timed_out() {
        std::string text;
        if (connected_.is_valid()) {
            text = "TLS: handshake with " + connected_.str() + " timed out";
        } else if (addresses_.empty()) {
            text = "timed out looking up the name";
        } else {
            text = "timed out connecting to ";
            for (size_t i = 0; i < at_; ++i) text += (i > 0 ? ", " : "") + addresses_[i].str();
        }
        finish(tl::unexpected(Error{Code::kTimeout, 0, text}));
    }

    void finish(Result<ByteStream> result) {
        give_up_.cancel();
        next_.cancel();
        attempts_.clear();
        lookup_.reset();
        if (!result) {
            stream_.close();
            result = tl::unexpected(std::move(result.error()).with(target()));
        }
        const Dialer::Callback cb = std::move(callback_);
        cb(std::move(result));  // last
    }

    Loop& loop_;
    std::string host_;
    uint16_t port_;
    DialOptions options_;
    Dialer::Callback callback_;
    std::vector<Addr> addresses_;
    size_t at_ = 0;  // next of addresses_
    std::vector<std::pair<Addr, int>> failures_;
    Addr connected_;
    Timer give_up_;
    Timer next_;
    std::vector<Attempt> attempts_;
    std::unique_ptr<Resolver::Lookup> lookup_;
    ByteStream stream_;
};

}  // namespace

std::vector<Addr> dial_order(std::vector<Addr> addresses, DialOptions::Family family) {
    std::vector<Addr> first, second;
    const bool v4_first = family == DialOptions::Family::kPreferV4 || family == DialOptions::Family::kOnlyV4;
    for (const Addr& a : addresses) {
        if (!a.is_valid()) continue;
        if (family == DialOptions::Family::kOnlyV4 && !a.is_v4()) continue;
        if (family == DialOptions::Family::kOnlyV6 && !a.is_v6()) continue;
        (a.is_v4() == v4_first ? first : second).push_back(a);
    }
    std::vector<Addr> out;
    for (size_t i = 0; i < std::max(first.size(), second.size()); ++i) {
        if (i < first.size()) out.push_back(first[i]);
        if (i < second.size()) out.push_back(second[i]);
    }
    if (out.size() > kMaxAddresses) out.resize(kMaxAddresses);
    return out;
}

std::unique_ptr<Dial> Dialer::dial(std::string_view host, uint16_t port, DialOptions options, Callback callback) {
    return std::make_unique<DialInProgress>(loop_, resolver_, std::string(host), port, std::move(options),
                                            std::move(callback));
}

Result<ByteStream> unix_connect(const std::string& path) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof at.sun_path) return fail(Code::kInvalid, "socket path too long: " + path);
    std::memcpy(at.sun_path, path.data(), path.size());
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fail_errno("open socket", errno);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) {
        const int err = errno;
        const Code code = err == ENOENT                        ? Code::kNotFound
                          : err == ECONNREFUSED                ? Code::kUnavailable
                          : err == EACCES || err == EPERM      ? Code::kDenied
                          : err == EAGAIN                      ? Code::kLimit
                                                               : Code::kSystem;
        return fail(code, "connect to " + path, err);
    }
    return ByteStream(std::move(fd));
}

}  // namespace mesh::platform
