// SPDX-License-Identifier: BSD-3-Clause
// Netlink, commands and the network monitor against the real kernel; main() of all kernel tests.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <memory>

#include "platform/linux/kernel_fixture.h"
#include "platform/linux/net_monitor.h"
#include "platform/linux/router.h"
#include "platform/linux/router_samples.h"
#include "platform/loop/loop.h"
#include "platform/tun/tun_device.h"

namespace mesh::platform {
namespace {

TEST_F(Kernel, RoutesOfOneTableAreDumpedAloneAndExclusively) {
    auto nl = Netlink::open();
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    output({"ip", "addr", "add", "10.5.0.1/24", "dev", "va"});
    output({"ip", "link", "set", "va", "up"});
    output({"ip", "link", "set", "vb", "up"});
    const int va = nl->link("va")->index;
    EXPECT_TRUE(nl->routes(Addr::Family::kV4, 52).value().empty());
    const IpRoute route{p("10.7.0.0/16"), IpRoute::Type::kUnicast, va, 52, {}, 0};
    ASSERT_TRUE(nl->add_route(route));
    EXPECT_EQ(nl->add_route(route).error().sys_errno, EEXIST);
    EXPECT_EQ(nl->routes(Addr::Family::kV4, 52).value(), (std::vector<IpRoute>{route}));
    ASSERT_TRUE(nl->delete_route(route));
    EXPECT_TRUE(nl->delete_route(route)) << "gone already is no error";
    EXPECT_TRUE(nl->add_address(va, p("10.5.0.9/32")));
    EXPECT_TRUE(nl->add_address(va, p("10.5.0.9/32"))) << "there already is no error";
    EXPECT_TRUE(nl->delete_address(va, p("10.5.0.9/32")));
    EXPECT_TRUE(nl->delete_address(va, p("10.5.0.9/32")));
    EXPECT_EQ(nl->route_interface(*Addr::parse("10.5.0.77"), 0).value(), va);
    EXPECT_EQ(nl->route_interface(*Addr::parse("203.0.113.1"), 0).value(), 0);
    EXPECT_EQ(nl->route_interface(*Addr::parse("2001:db8::1"), kBypassMark).value(), 0);
}

TEST_F(Kernel, DefaultInterfaceIsThatOfMarkedTraffic) {
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    output({"ip", "addr", "add", "10.5.0.1/24", "dev", "va"});
    output({"ip", "link", "set", "va", "up"});
    output({"ip", "link", "set", "vb", "up"});
    EXPECT_EQ(read_net_state()->default_interface_v4, "");
    output({"ip", "route", "add", "default", "via", "10.5.0.2"});
    EXPECT_EQ(read_net_state()->default_interface_v4, "va");
    // An exit node's default route in table 52 does not deceive it.
    auto tun = TunDevice::open("tailscale0");
    ASSERT_TRUE(tun);
    auto router = Router::start("tailscale0");
    ASSERT_TRUE(router);
    RouterConfig c = client();
    c.accepted_routes = {p("0.0.0.0/0")};
    ASSERT_TRUE((*router)->set(c));
    EXPECT_EQ(read_net_state()->default_interface_v4, "va");
}

TEST_F(Kernel, MonitorTellsChangesOfTheHostAndOfTheRouter) {
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    output({"ip", "link", "set", "vb", "up"});
    auto tun = TunDevice::open("tailscale0");
    ASSERT_TRUE(tun);
    auto router = Router::start("tailscale0");
    ASSERT_TRUE(router);
    ASSERT_TRUE((*router)->set(client()));
    Loop loop;
    std::vector<NetChange> changes;
    int touched = 0;
    std::unique_ptr<NetMonitor> monitor;
    Timer guard(loop, [&] { loop.stop(); });
    auto created = NetMonitor::create(loop, "tailscale0", [&](const NetEvent& e) {
        if (e.router_touched) ++touched;
        if (e.change != NetChange::kNone) changes.push_back(e.change);
        loop.stop();
    });
    ASSERT_TRUE(created) << created.error().message();
    monitor = std::move(*created);

    output({"ip", "-6", "rule", "del", "pref", "5270"});
    guard.set_after(seconds(10));
    loop.run();
    EXPECT_EQ(touched, 1);
    EXPECT_EQ((*router)->resync().value(), 1U);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);

    output({"ip", "addr", "add", "10.5.0.1/24", "dev", "va"});
    output({"ip", "link", "set", "va", "up"});
    output({"ip", "route", "add", "default", "via", "10.5.0.2"});
    loop.run();
    EXPECT_EQ(changes, (std::vector<NetChange>{NetChange::kMajor}));
    EXPECT_EQ(monitor->state().default_interface_v4, "va");
    EXPECT_TRUE(guard.armed()) << "timed out";
}

TEST_F(Kernel, AWakeUpIsAMajorChangeThoughTheNetworkLooksTheSame) {
    Loop loop;
    std::vector<NetEvent> events;
    auto monitor = NetMonitor::create(loop, "tailscale0", [&](const NetEvent& e) { events.push_back(e); });
    ASSERT_TRUE(monitor) << monitor.error().message();
    Clocks now = read_clocks();
    (*monitor)->look_at_clocks(now);
    now.boot = now.boot + seconds(3600);
    now.wall = now.wall + seconds(3600);
    (*monitor)->look_at_clocks(now);
    ASSERT_EQ(events.size(), 1U) << "at once, not after a debounce";
    EXPECT_EQ(events[0].change, NetChange::kMajor);
    EXPECT_TRUE(events[0].router_touched);
    (*monitor)->look_at_clocks(now);
    EXPECT_EQ(events.size(), 1U);
}

TEST_F(Kernel, MonitorMayBeDestroyedInItsOwnCallback) {
    output({"ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"});
    Loop loop;
    Timer guard(loop, [&] { loop.stop(); });
    guard.set_after(seconds(10));
    std::unique_ptr<NetMonitor> monitor;
    auto created = NetMonitor::create(loop, "tailscale0", [&](const NetEvent&) {
        monitor.reset();
        loop.stop();
    });
    ASSERT_TRUE(created);
    monitor = std::move(*created);
    output({"ip", "link", "set", "va", "up"});
    loop.run();
    EXPECT_EQ(monitor, nullptr);
    EXPECT_TRUE(guard.armed());
}

TEST_F(Kernel, CommandsAreTimedOutAndMissingOnesNamed) {
    EXPECT_EQ(run_command({"no-such-program"}).error().code, Code::kNotFound);
    EXPECT_EQ(run_command({"cat"}, "through a file")->out, "through a file");
    EXPECT_EQ(run_command({"sh", "-c", "echo oops >&2; exit 3"})->exit_code, 3);
    EXPECT_EQ(run_command({"sh", "-c", "echo oops >&2; exit 3"})->err, "oops\n");
    EXPECT_EQ(run_command({"sh", "-c", "sleep 60 & sleep 60"}, {}, milliseconds(50)).error().code, Code::kTimeout);
}

}  // namespace
}  // namespace mesh::platform

int main(int argc, char** argv) {
    using mesh::platform::g_why_not;
    ::testing::InitGoogleTest(&argc, argv);
    if (::geteuid() != 0)
        g_why_not = "needs root";
    else if (::access("/dev/net/tun", R_OK | W_OK) != 0)
        g_why_not = "needs /dev/net/tun";
    else if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0)
        g_why_not = "needs the right to make namespaces";
    else if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        g_why_not = "needs the right to make mounts private";
    return RUN_ALL_TESTS();
}
