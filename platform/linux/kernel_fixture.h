// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the tests against the real kernel share: every test runs in a network namespace of its own, so the host's rules
/// are never seen. Needs root and /dev/net/tun, otherwise all is skipped (a failure if CI=true).

#include <gtest/gtest.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/log.h"
#include "platform/linux/netlink.h"
#include "platform/linux/router_plan.h"
#include "platform/linux/run_command.h"

namespace mesh::platform {

inline std::string g_why_not;  // empty: everything is there

inline Prefix p(const char* text) { return *Prefix::parse(text); }

inline std::string output(const std::vector<std::string>& argv, std::string_view input = {}) {
    const auto done = run_command(argv, input);
    if (!done) return "error: " + done.error().message();
    return done->exit_code == 0 ? done->out : "error: " + done->err;
}

/// The client of the samples.
inline RouterConfig client() {
    RouterConfig c;
    c.local_addrs = {p("100.64.0.1/32"), p("fd7a:115c:a1e0::1/128")};
    c.peer_routes = {p("100.64.0.2/32"), p("fd7a:115c:a1e0::2/128")};
    c.port_v4 = c.port_v6 = 41641;
    return c;
}

class Kernel : public ::testing::Test {
   protected:
    void SetUp() override {
        if (!g_why_not.empty()) {
            const char* ci = std::getenv("CI");
            if (ci != nullptr && std::string_view(ci) == "true") FAIL() << g_why_not;
            GTEST_SKIP() << "not tested here: " << g_why_not;
        }
        ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << std::strerror(errno);
        log::set_sink([this](std::string_view line) { log_ += std::string(line) + "\n"; });
        auto nl = Netlink::open();
        ASSERT_TRUE(nl);
        const auto lo = nl->link("lo");
        ASSERT_TRUE(lo);
        ASSERT_TRUE(nl->set_link_up(lo->index, true));
    }
    void TearDown() override {
        log::set_sink({});
        if (HasFailure()) std::fputs(log_.c_str(), stderr);
    }
    std::string log_;
};

}  // namespace mesh::platform
