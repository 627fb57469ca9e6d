// SPDX-License-Identifier: BSD-3-Clause
// nc: standard input and output joined to a port of a node, by way of the daemon where there is no tunnel interface. Made for
// ssh -o ProxyCommand="tailscale nc %h %p".

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>

#include "platform/loop/loop.h"
#include "platform/net/dialer.h"
#include "tailscale-cli/commands.h"

namespace mesh::cli {
namespace {

/// One direction: what is read and not yet written.
struct Flow {
    int from, to;
    std::array<uint8_t, 65536> bytes;
    size_t have = 0, done = 0;
    bool ended = false;

    /// False: an end is gone.
    bool step(short can_read, short can_write) {
        if (have == done && can_read != 0) {
            const ssize_t n = ::read(from, bytes.data(), bytes.size());
            if (n < 0) return errno == EINTR || errno == EAGAIN;
            ended = n == 0;
            have = static_cast<size_t>(n);
            done = 0;
        } else if (have > done && can_write != 0) {
            const ssize_t n = ::write(to, bytes.data() + done, have - done);
            if (n < 0) return errno == EINTR || errno == EAGAIN;
            done += static_cast<size_t>(n);
        }
        return true;
    }
};

/// Both ways until the far end has said all it has to say.
int join(int fd, std::string_view early) {
    auto out = std::make_unique<Flow>(Flow{STDIN_FILENO, fd, {}}), in = std::make_unique<Flow>(Flow{fd, STDOUT_FILENO, {}});
    std::copy(early.begin(), early.end(), in->bytes.begin());
    in->have = early.size();
    while (!in->ended || in->have > in->done) {
        std::array<pollfd, 4> p{};
        int n = 0;
        const auto want = [&](int f, short what) {
            p[static_cast<size_t>(n)] = {f, what, 0};
            return static_cast<size_t>(n++);
        };
        const bool out_reads = out->have == out->done, in_reads = in->have == in->done;
        const size_t a = out->ended ? SIZE_MAX : want(out_reads ? out->from : out->to, out_reads ? POLLIN : POLLOUT);
        const size_t b = want(in_reads ? in->from : in->to, in_reads ? POLLIN : POLLOUT);
        if (::poll(p.data(), static_cast<nfds_t>(n), -1) < 0 && errno != EINTR) return 1;
        if (a != SIZE_MAX && !out->step(out_reads ? p[a].revents : short{0}, out_reads ? short{0} : p[a].revents)) return 1;
        if (out->ended && a != SIZE_MAX) ::shutdown(fd, SHUT_WR);
        if (!in->step(in_reads ? p[b].revents : short{0}, in_reads ? short{0} : p[b].revents)) return 1;
    }
    return 0;
}

/// From this host itself, as the daemon advises.
Result<platform::UniqueFd> dial_here(const std::string& where) {
    const size_t colon = where.rfind(':');
    std::string host = where.substr(0, colon);
    if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
    uint16_t port = 0;
    if (colon != std::string::npos) std::from_chars(where.data() + colon + 1, where.data() + where.size(), port);
    platform::Loop loop;
    platform::Resolver resolver(loop, platform::system_resolver_config());
    platform::Dialer dialer(loop, resolver);
    platform::DialOptions options;
    options.protect = platform::Protect::kNo;
    Result<platform::UniqueFd> out = fail(Code::kInternal, "");
    auto dial = dialer.dial(host, port, options, [&](Result<platform::ByteStream> r) {
        if (r)
            out = platform::UniqueFd(::dup(r->fd()));
        else
            out = tl::unexpected(std::move(r.error()));
        loop.stop();
    });
    loop.run();
    dial.reset();
    return out;
}

}  // namespace

int run_nc(const Cli& cli, const Args& args) {
    FlagSet flags("tailscale nc", "<hostname-or-IP> <port>", "Join standard input and output to a port of a node",
                  "With SSH: ssh -o ProxyCommand=\"tailscale nc %h %p\" HOST");
    if (const auto code = parse_or_exit(flags, args)) return *code;
    if (flags.rest().size() != 2) return cli.fail("usage: tailscale nc <hostname-or-IP> <port>");
    const std::string &host = flags.rest()[0], &port_text = flags.rest()[1];
    uint16_t port = 0;
    const auto [end, ec] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
    if (ec != std::errc() || end != port_text.data() + port_text.size() || port == 0) return cli.fail(fmt::format("invalid port \"{}\"", port_text));
    Client client = cli.client();
    auto status = client.status(false);
    if (!status) return cli.fail_explained(status.error());
    if (status->backend_state != api::State::kRunning)
        return cli.fail(fmt::format("tailscale is not running; state: {}. Start it by: tailscale up", api::state_name(status->backend_state)));
    auto far = client.dial(host, port);
    if (!far) return cli.fail(far.error());
    if (far->fd.valid()) return join(far->fd.get(), far->early);
    auto here = dial_here(far->elsewhere);
    if (!here) return cli.fail(here.error().message());
    return join(here->get(), "");
}

}  // namespace mesh::cli
