// SPDX-License-Identifier: BSD-3-Clause
#include "platform/system.h"

#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "platform/net/socket_mark.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

using testing::TempFolder;

TEST(System, ReadsOsRelease) {
    const TempFolder root;
    std::filesystem::create_directories(root.path + "/etc");
    std::ofstream(root.path + "/etc/os-release")
        << "PRETTY_NAME=\"Some OS 12 (x)\"\nVERSION_ID='12'\nID=some\nVERSION_CODENAME=code\n";
    const OsInfo info = read_os_info(root.path);
    EXPECT_EQ(info.distro, "some");
    EXPECT_EQ(info.distro_version, "12");
    EXPECT_EQ(info.distro_codename, "code");
    EXPECT_EQ(info.pretty_name, "Some OS 12 (x)");
    EXPECT_FALSE(info.hostname.empty());
    EXPECT_FALSE(info.go_arch.empty());
    EXPECT_FALSE(info.container);
    EXPECT_EQ(os_release_value("A=\"x\\\"y\"\nB=", "A"), "x\"y");
    EXPECT_EQ(os_release_value("AA=1\n", "A"), "");
}

/// KiB of machine code that are mapped into this process.
size_t code_in_reach() {
    std::ifstream smaps("/proc/self/smaps");
    size_t sum = 0;
    bool code = false;
    for (std::string line; std::getline(smaps, line);) {
        if (line.find(" r-xp ") != std::string::npos)
            code = line.find('/') != std::string::npos;
        else if (line.find("-") < line.find(' '))
            code = false;
        else if (code && line.starts_with("Rss:"))
            sum += std::stoul(line.substr(4));
    }
    return sum;
}

TEST(System, CodeThatIsNotUsedLeavesAndComesBackWhenCalled) {
    const auto use = [] { return os_release_value("A=b", "A"); };
    EXPECT_EQ(use(), "b");
    const size_t before = code_in_reach();
    let_go_of_code();
    const size_t after = code_in_reach();
    EXPECT_LT(after, before);
    EXPECT_GT(after, 0U) << "this very code";
    EXPECT_EQ(use(), "b");
}

TEST(System, CoresAreThoseThisProcessMayUse) {
    cpu_set_t before, one;
    ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
    EXPECT_EQ(usable_cores(), static_cast<size_t>(CPU_COUNT(&before)));
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
        if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(usable_cores(), 1U);
    ::sched_setaffinity(0, sizeof before, &before);
}

TEST(System, BlanksASecretArgument) {
    char program[] = "prog", key[] = "--auth-key=secret", value[] = "secret";
    char* argv[] = {program, key, value, nullptr};
    blank_argv(3, argv, 1);
    blank_argv(3, argv, 2);
    blank_argv(3, argv, 7);
    EXPECT_STREQ(key, "--auth-key=xxxxxx");
    EXPECT_STREQ(value, "xxxxxx");
    EXPECT_STREQ(program, "prog");
}

TEST(System, TellsTheServiceManager) {
    EXPECT_TRUE(sd_notify("READY=1"));
    const TempFolder folder;
    const std::string path = folder.path + "/notify";
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    path.copy(at.sun_path, sizeof at.sun_path - 1);
    const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
    EXPECT_TRUE(sd_notify("READY=1"));
    ::setenv("NOTIFY_SOCKET", (folder.path + "/nobody").c_str(), 1);
    EXPECT_FALSE(sd_notify("READY=1"));
    ::unsetenv("NOTIFY_SOCKET");
    char text[32] = "";
    EXPECT_EQ(::recv(fd.get(), text, sizeof text - 1, MSG_DONTWAIT), 7);
    EXPECT_STREQ(text, "READY=1");
}

TEST(SocketMark, LeavesLoopbackDestinationsAloneAndMarksOthers) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto mark = [&] {
        uint32_t value = 0;
        socklen_t len = sizeof value;
        ::getsockopt(fd.get(), SOL_SOCKET, SO_MARK, &value, &len);
        return value;
    };
    EXPECT_TRUE(protect_socket(fd.get(), Addr::v4(127, 0, 0, 1)).has_value());
    EXPECT_EQ(mark(), 0U);
    if (!socket_mark_works()) GTEST_SKIP() << "no right to mark sockets here";
    EXPECT_TRUE(protect_socket(fd.get(), Addr::v4(192, 0, 2, 1)).has_value());
    EXPECT_EQ(mark(), kBypassMark);
}

}  // namespace
}  // namespace mesh::platform
