// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// For tests of shells: turn a loop until something is true, and listeners that remember.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"
#include "platform/net/resolver.h"
#include "platform/tls/certificate.h"

namespace mesh::platform::testing {

/// False after `limit`: the test has hung.
inline bool turn_until(Loop& loop, const std::function<bool()>& done, Duration limit = seconds(10)) {
    bool late = false;
    Timer guard(loop, [&] { late = true; });
    guard.set_after(limit);
    while (!done() && !late) loop.run_once(true);
    return done();
}

struct Recorder : ByteStream::Listener {
    std::string text;
    bool ready = false;
    bool closed = false;
    bool drained = false;
    std::optional<Error> error;
    std::function<void()> then;  // after each event; may destroy the stream

    void on_ready() override {
        ready = true;
        next();
    }
    void on_bytes(MutByteSpan bytes) override {
        text += as_text(bytes);
        next();
    }
    void on_closed(const Status& why) override {
        closed = true;
        if (!why) error = why.error();
        next();
    }
    void on_drained() override {
        drained = true;
        next();
    }
    void next() {
        if (!then) return;
        const auto f = then;
        f();
    }
};

/// Two connected streams.
inline std::pair<UniqueFd, UniqueFd> socket_pair() {
    int fds[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// No servers, no hosts file: literals only.
inline ResolverConfig no_dns() {
    ResolverConfig c;
    c.servers = {{Addr::v4(127, 0, 0, 1), 9}};
    c.hosts_path = "/nonexistent";
    return c;
}

inline CertificateAndKey self_signed(std::vector<std::string> names, Duration before = minutes(60),
                                     Duration after = minutes(60)) {
    SelfSignedOptions o;
    o.names = std::move(names);
    o.now = read_wall_clock();
    o.valid_before = before;
    o.valid_for = after;
    auto made = make_self_signed(o);
    EXPECT_TRUE(made.has_value());
    return *made;
}

struct TempFolder {
    std::string path;
    TempFolder() {
        char name[] = "/tmp/platform-test-XXXXXX";
        path = ::mkdtemp(name);
    }
    ~TempFolder() { [[maybe_unused]] const int rc = std::system(("rm -rf '" + path + "'").c_str()); }
    TempFolder(const TempFolder&) = delete;
    TempFolder& operator=(const TempFolder&) = delete;
};

/// A loop in a thread of its own, for tests that move things between loops.
class LoopThread {
   public:
    explicit LoopThread(std::function<void(Loop&)> setup, std::function<void()> teardown = {}) {
        thread_ = std::thread([this, setup = std::move(setup), teardown = std::move(teardown)] {
            setup(loop_);
            loop_.run();
            if (teardown) teardown();
        });
    }
    ~LoopThread() { join(); }
    void join() {
        if (!thread_.joinable()) return;
        loop_.stop();
        thread_.join();
    }
    Loop& loop() { return loop_; }

   private:
    Loop loop_;
    std::thread thread_;
};

}  // namespace mesh::platform::testing
