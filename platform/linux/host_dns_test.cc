// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/host_dns.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <mutex>

#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using testing::turn_until;

/// What the manager was told, and a door it waits at.
struct Host {
    std::mutex mutex;
    std::vector<std::string> told;
    std::atomic<bool> hangs{false};
    std::latch door{1};
    std::atomic<int> looks{0};
    std::function<void()> on_change;

    std::vector<std::string> list() {
        const std::lock_guard lock(mutex);
        return told;
    }
};

class FakeManager final : public DnsManager {
   public:
    explicit FakeManager(Host& host) : host_(host) {}
    ~FakeManager() override { note("gone"); }
    Status set(const OsDnsConfig& config) override {
        if (host_.hangs) host_.door.wait();
        note(config.is_empty() ? "own" : config.search.at(0));
        if (!config.is_empty() && config.search[0] == "bad") return fail(Code::kUnavailable, "no");
        return {};
    }
    [[nodiscard]] ResolverConfig base() const override {
        ResolverConfig out;
        out.search = {"look" + std::to_string(host_.looks.load())};
        return out;
    }
    [[nodiscard]] bool can_split() const override { return true; }
    [[nodiscard]] DnsMode mode() const override { return DnsMode::kDirect; }
    void look() override { ++host_.looks; }

   private:
    void note(std::string what) {
        const std::lock_guard lock(host_.mutex);
        host_.told.push_back(std::move(what));
    }
    Host& host_;
};

OsDnsConfig config(const std::string& search) { return {.nameservers = {service_addr_v4()}, .search = {search}, .match = {}}; }

class HostDnsTest : public ::testing::Test {
   protected:
    void open() {
        dns = std::make_unique<HostDns>(
            loop,
            [this](Loop&, std::function<void()> on_change) {
                host.on_change = std::move(on_change);
                return std::make_unique<FakeManager>(host);
            },
            [this] { ++changes; });
    }
    Loop loop;
    Host host;
    int changes = 0;
    std::unique_ptr<HostDns> dns;
};

TEST_F(HostDnsTest, TellsWhatItFoundAndWhatWasDone) {
    open();
    EXPECT_EQ(dns->state(), nullptr);
    ASSERT_TRUE(turn_until(loop, [&] { return changes == 1; }));
    ASSERT_NE(dns->state(), nullptr);
    EXPECT_TRUE(dns->state()->can_split);
    EXPECT_TRUE(dns->settled());
    dns->set(config("a"));
    ASSERT_TRUE(turn_until(loop, [&] { return changes == 2; }));
    EXPECT_TRUE(dns->settled());
    dns->set(config("bad"));
    ASSERT_TRUE(turn_until(loop, [&] { return changes == 3; })) << "a failure is an end as well";
    dns->look();
    ASSERT_TRUE(turn_until(loop, [&] { return dns->state()->base.search[0] == "look1"; }));
    dns->look();
    ASSERT_TRUE(turn_until(loop, [&] { return dns->state()->base.search[0] == "look2"; })) << "every look counts";
    dns.reset();
    EXPECT_EQ(host.list(), (std::vector<std::string>{"a", "bad", "gone"}));
}

TEST_F(HostDnsTest, AManagerThatHangsHoldsNobodyUp) {
    open();
    host.hangs = true;
    dns->set(config("a"));
    int turns = 0;
    Timer timer(loop, [&] { ++turns; });
    for (int i = 1; i <= 3; ++i) {
        timer.set_after(milliseconds(1));
        ASSERT_TRUE(turn_until(loop, [&] { return turns == i; })) << "the loop goes on";
    }
    EXPECT_FALSE(dns->settled());
    EXPECT_FALSE(dns->wait(milliseconds(1)));
    // Of what waits only the last is carried out.
    for (const char* later : {"b", "c", "d"}) dns->set(config(later));
    host.hangs = false;
    host.door.count_down();
    ASSERT_TRUE(dns->wait(seconds(10)));
    const auto told = host.list();
    EXPECT_EQ(told.back(), "d");
    EXPECT_LE(told.size(), 2U);
}

TEST_F(HostDnsTest, ItsEndGivesTheHostItsOwnBack) {
    open();
    host.hangs = true;
    dns->set(config("a"));
    dns->set({});
    host.hangs = false;
    host.door.count_down();
    dns.reset();
    EXPECT_EQ(host.list().back(), "gone");
    EXPECT_FALSE(turn_until(loop, [] { return false; }, milliseconds(20))) << "and nothing is told afterwards";
    EXPECT_EQ(changes, 0);
}

TEST_F(HostDnsTest, ChangesOfOthersAreTold) {
    open();
    ASSERT_TRUE(turn_until(loop, [&] { return changes == 1; }));
    ++host.looks;
    host.on_change();  // a manager calls it on its own thread; here nobody else is on it
    ASSERT_TRUE(turn_until(loop, [&] { return changes == 2; }));
    EXPECT_EQ(dns->state()->base.search[0], "look1");
}

}  // namespace
}  // namespace mesh::platform
