// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "platform/file.h"
#include "platform/linux/dns_manager.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using testing::turn_until;
namespace fs = std::filesystem;

class DirectDnsTest : public ::testing::Test {
   protected:
    DirectDnsTest() {
        std::string pattern = "/tmp/mesh-dns-XXXXXX";
        etc = ::mkdtemp(pattern.data());
        options.etc = etc;
        options.on_change = [this] { ++changes; };
        wanted.nameservers = {service_addr_v4()};
        wanted.search = {"tail.example"};
    }
    ~DirectDnsTest() override {
        set_file_fault({});
        fs::remove_all(etc);
    }
    void write(const std::string& text) const {
        // As most programs do: a new file moved over the old one.
        std::ofstream(etc + "/new") << text;
        fs::rename(etc + "/new", conf());
    }
    [[nodiscard]] std::string read() const { return read_file(conf()).value_or("missing"); }
    [[nodiscard]] bool ours() const { return is_our_resolv_conf(read()); }
    [[nodiscard]] std::string conf() const { return etc + "/resolv.conf"; }
    [[nodiscard]] std::string backup() const { return etc + "/resolv.pre-tailscale-backup.conf"; }
    [[nodiscard]] size_t files() const { return static_cast<size_t>(std::distance(fs::directory_iterator(etc), fs::directory_iterator())); }

    Loop loop;
    std::string etc;
    DnsManagerOptions options;
    OsDnsConfig wanted;
    int changes = 0;
};

TEST_F(DirectDnsTest, ThereAndBack) {
    write("nameserver 10.0.0.1\n");
    auto dns = make_direct_dns(loop, options);
    EXPECT_EQ(dns->base().servers.at(0).addr.str(), "10.0.0.1");
    ASSERT_TRUE(dns->set(wanted));
    EXPECT_TRUE(ours());
    EXPECT_EQ(dns->base().servers.at(0).addr.str(), "10.0.0.1") << "what was there before is still known";
    ASSERT_TRUE(dns->set({}));
    EXPECT_EQ(read(), "nameserver 10.0.0.1\n");
    EXPECT_EQ(files(), 1U);
    ASSERT_TRUE(dns->set(wanted));
    dns.reset();
    EXPECT_EQ(read(), "nameserver 10.0.0.1\n") << "dying gives it back too";
}

TEST_F(DirectDnsTest, ALinkComesBackAsALink) {
    std::ofstream(etc + "/real") << "nameserver 10.0.0.1\n";
    fs::create_symlink("real", conf());
    auto dns = make_direct_dns(loop, options);
    ASSERT_TRUE(dns->set(wanted));
    EXPECT_TRUE(ours());
    EXPECT_FALSE(fs::is_symlink(conf()));
    EXPECT_EQ(read_file(etc + "/real").value_or(""), "nameserver 10.0.0.1\n") << "what the link leads to is not ours to change";
    ASSERT_TRUE(dns->set({}));
    EXPECT_EQ(fs::read_symlink(conf()), "real");
}

TEST_F(DirectDnsTest, AHostWithoutAFileHasNoneAfterwards) {
    auto dns = make_direct_dns(loop, options);
    ASSERT_TRUE(dns->set(wanted));
    EXPECT_TRUE(ours());
    ASSERT_TRUE(dns->set({}));
    EXPECT_EQ(files(), 0U);
}

TEST_F(DirectDnsTest, NothingWantedTouchesNothing) {
    write("nameserver 10.0.0.1\n");
    struct stat before{}, after{};
    ASSERT_EQ(::stat(etc.c_str(), &before), 0);
    {
        auto dns = make_direct_dns(loop, options);
        ASSERT_TRUE(dns->set({}));
        dns->look();
    }
    ASSERT_EQ(::stat(etc.c_str(), &after), 0);
    EXPECT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

TEST_F(DirectDnsTest, AnotherWriterIsAnsweredAndItsServersAreUsed) {
    write("nameserver 10.0.0.1\n");
    auto dns = make_direct_dns(loop, options);
    ASSERT_TRUE(dns->set(wanted));
    write("nameserver 10.0.0.2\n");
    ASSERT_TRUE(turn_until(loop, [&] { return ours() && changes > 0; }));
    EXPECT_EQ(dns->base().servers.at(0).addr.str(), "10.0.0.2");
    ASSERT_EQ(dns->problems().size(), 1U);
    EXPECT_TRUE(dns->problems()[0].starts_with("System DNS config not ideal. ")) << dns->problems()[0];
    ASSERT_TRUE(dns->set({}));
    EXPECT_EQ(read(), "nameserver 10.0.0.2\n");
    EXPECT_TRUE(dns->problems().empty());
}

TEST_F(DirectDnsTest, AFightEnds) {
    write("nameserver 10.0.0.1\n");
    auto dns = make_direct_dns(loop, options);
    ASSERT_TRUE(dns->set(wanted));
    for (int i = 0; i < FightGuard::kMaxRounds; ++i) {
        write("nameserver 10.0.0.2\n");
        ASSERT_TRUE(turn_until(loop, [&] { return ours(); })) << i;
    }
    const int before = changes;
    write("nameserver 10.0.0.3\n");
    ASSERT_TRUE(turn_until(loop, [&] { return changes > before; }));
    EXPECT_EQ(read(), "nameserver 10.0.0.3\n") << "the host keeps a resolver, whoever wins";
    EXPECT_FALSE(dns->problems().empty());
    ASSERT_TRUE(dns->set({}));
    EXPECT_EQ(read(), "nameserver 10.0.0.3\n");
    EXPECT_EQ(files(), 1U);
}

TEST_F(DirectDnsTest, AReadOnlyFolderIsSaidAndTriedAgain) {
    write("nameserver 10.0.0.1\n");
    set_file_fault([](FileStep step, const std::string&) { return step == FileStep::kCreate ? EROFS : 0; });
    auto dns = make_direct_dns(loop, options);
    EXPECT_FALSE(dns->set(wanted));
    EXPECT_EQ(read(), "nameserver 10.0.0.1\n");
    ASSERT_EQ(dns->problems().size(), 1U);
    EXPECT_NE(dns->problems()[0].find("Read-only file system"), std::string::npos) << dns->problems()[0];
    set_file_fault({});
    dns->look();
    EXPECT_TRUE(ours());
    EXPECT_TRUE(dns->problems().empty());
}

TEST_F(DirectDnsTest, AFileThatCannotBeReplacedIsWrittenInPlace) {
    // As one that a container's engine has mounted there.
    write("nameserver 10.0.0.1\nsearch a.rather.long.line.so.that.ours.may.be.shorter.example and.more.of.it.example and.still.more.example\n");
    const std::string before = read();
    struct stat st{};
    ASSERT_EQ(::stat(conf().c_str(), &st), 0);
    set_file_fault([this](FileStep step, const std::string& path) { return step == FileStep::kRename && path.starts_with(conf()) ? EBUSY : 0; });
    auto dns = make_direct_dns(loop, options);
    ASSERT_TRUE(dns->set(wanted));
    EXPECT_TRUE(ours());
    struct stat now{};
    ASSERT_EQ(::stat(conf().c_str(), &now), 0);
    EXPECT_EQ(now.st_ino, st.st_ino);
    EXPECT_EQ(read_file(backup()).value_or(""), before) << "the backup is another file";
}

TEST_F(DirectDnsTest, CleanupBringsBackWhatAKilledRunLeft) {
    write("nameserver 10.0.0.1\n");
    ResolvFile file(etc);
    ASSERT_TRUE(file.apply(resolv_conf_text(wanted, "")));
    ASSERT_TRUE(cleanup_dns(etc));
    EXPECT_EQ(read(), "nameserver 10.0.0.1\n");
    // Killed between the two steps: the backup is a second name of the file that is there.
    fs::create_hard_link(conf(), backup());
    ASSERT_TRUE(cleanup_dns(etc));
    EXPECT_EQ(read(), "nameserver 10.0.0.1\n");
    EXPECT_EQ(files(), 1U);
    // The file itself lost, the backup there.
    fs::rename(conf(), backup());
    ASSERT_TRUE(cleanup_dns(etc));
    EXPECT_EQ(read(), "nameserver 10.0.0.1\n");
}

}  // namespace
}  // namespace mesh::platform
