// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/listener.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "platform/file.h"
#include "platform/net/sockaddr.h"

namespace mesh::platform {
namespace {

constexpr int kAcceptsPerTurn = 16;
constexpr int kUnixBacklog = 64;
/// Out of descriptors or memory: the waiting connection keeps the socket readable, so pause instead of spinning.
constexpr Duration kPause = milliseconds(100);

/// Removes the socket file it made, unless somebody has put another in its place.
struct SocketFile {
    std::string path;
    dev_t device = 0;
    ino_t inode = 0;

    SocketFile() = default;
    SocketFile(const SocketFile&) = delete;
    SocketFile& operator=(const SocketFile&) = delete;
    ~SocketFile() {
        struct stat st{};
        if (!path.empty() && ::lstat(path.c_str(), &st) == 0 && st.st_dev == device && st.st_ino == inode)
            ::unlink(path.c_str());
    }
};

class SocketListener final : public Listener {
   public:
    SocketListener(Loop& loop, UniqueFd fd, uint16_t port, OnAccept on_accept)
        : port_(port),
          on_accept_(std::move(on_accept)),
          fd_(std::move(fd)),
          resume_(loop, [this] { poll_.set_interest(true, false); }),
          poll_(loop, fd_.get(), [this](FdPoll::Events) { accept_some(); }) {
        poll_.set_interest(true, false);
    }
    ~SocketListener() override {
        if (gone_ != nullptr) *gone_ = true;
    }
    SocketListener(const SocketListener&) = delete;
    SocketListener& operator=(const SocketListener&) = delete;

    [[nodiscard]] uint16_t port() const override { return port_; }
    SocketFile file;

   private:
    void accept_some() {
        bool gone = false;
        gone_ = &gone;
        for (int i = 0; i < kAcceptsPerTurn; ++i) {
            UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (!fd.valid()) {
                const int err = errno;
                if (err == EAGAIN || err == EWOULDBLOCK) break;
                if (err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM) {
                    poll_.set_interest(false, false);
                    resume_.set_after(kPause);
                    break;
                }
                continue;  // that connection died before we took it
            }
            if (port_ != 0) {
                const int on = 1;
                ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                ::setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
            }
            on_accept_(ByteStream(std::move(fd)));
            if (gone) return;
        }
        gone_ = nullptr;
    }

    uint16_t port_;
    OnAccept on_accept_;
    UniqueFd fd_;
    bool* gone_ = nullptr;
    Timer resume_;
    FdPoll poll_;
};

bool somebody_answers(const sockaddr_un& at) {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return true;
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0 || errno == EAGAIN ||
           errno == EACCES;
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::tcp(Loop& loop, const Endpoint& at, OnAccept on_accept,
                                                TcpOptions options) {
    if (!at.is_valid()) return fail(Code::kInvalid, "listen: no address");
    const std::string what = "listen on " + at.str();
    UniqueFd fd(::socket(at.addr.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fail_errno(what, errno);
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (at.addr.is_v6()) {
        const int only = options.v6_only ? 1 : 0;
        ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    }
    if (!options.device.empty() && ::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, options.device.c_str(),
                                                static_cast<socklen_t>(options.device.size())) != 0)
        return fail_errno(what + " of " + options.device, errno);
    sockaddr_storage storage{};
    const socklen_t len = to_sockaddr(at, Addr::Family::kNone, storage);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), len) != 0 ||
        ::listen(fd.get(), options.backlog) != 0)
        return fail_errno(what, errno);
    return adopt(loop, std::move(fd), std::move(on_accept));
}

Result<std::unique_ptr<Listener>> Listener::adopt(Loop& loop, UniqueFd fd, OnAccept on_accept) {
    sockaddr_storage at{};
    socklen_t len = sizeof at;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &len) != 0) return fail_errno("listen: getsockname", errno);
    return std::unique_ptr<Listener>(
        std::make_unique<SocketListener>(loop, std::move(fd), from_sockaddr(at).port, std::move(on_accept)));
}

Result<std::unique_ptr<Listener>> Listener::unix_socket(Loop& loop, const std::string& path, OnAccept on_accept,
                                                        unsigned mode) {
    const std::string what = "listen on " + path;
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof at.sun_path) return fail(Code::kInvalid, what + ": path too long");
    std::memcpy(at.sun_path, path.data(), path.size());
    const size_t slash = path.rfind('/');
    if (slash != std::string::npos && slash > 0) TRY(make_folders(path.substr(0, slash), 0755));
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fail_errno(what, errno);

    struct stat st{};
    if (::lstat(path.c_str(), &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) return fail(Code::kInvalid, what + ": a file that is not a socket is in the way");
        // A daemon that was killed while it started a child (iptables) lives on in that child's first instants, listening
        // socket included. Whoever is really there is still there a moment later.
        bool answers = somebody_answers(at);
        for (int i = 0; i < 8 && answers; ++i) {
            ::poll(nullptr, 0, 50);
            answers = somebody_answers(at);
        }
        if (answers)
            return fail(Code::kUnavailable, what + ": address already in use (another process answers there)");
        if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(what + ": remove the old socket", errno);
    }
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) return fail_errno(what, errno);
    SocketFile made;
    if (::lstat(path.c_str(), &st) == 0) {
        made.path = path;
        made.device = st.st_dev;
        made.inode = st.st_ino;
    }
    if (::chmod(path.c_str(), mode) != 0 || ::listen(fd.get(), kUnixBacklog) != 0) return fail_errno(what, errno);
    auto out = std::make_unique<SocketListener>(loop, std::move(fd), uint16_t{0}, std::move(on_accept));
    out->file.path.swap(made.path);
    out->file.device = made.device;
    out->file.inode = made.inode;
    return std::unique_ptr<Listener>(std::move(out));
}

}  // namespace mesh::platform
