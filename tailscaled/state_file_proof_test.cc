// SPDX-License-Identifier: BSD-3-Clause
// The identity on disk: whatever ends the process or damages a file, a start finds the old state or the new one.
#include <dirent.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "base/log.h"
#include "platform/file.h"
#include "tailscaled/ipn/profile.h"
#include "tailscaled/state_file.h"

namespace mesh::daemon {
namespace {

class StateFileProof : public ::testing::Test {
   protected:
    void SetUp() override {
        char name[] = "/tmp/state-file-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        folder = name;
        path = folder + "/tailscaled.state";
        log::set_sink([this](std::string_view line) { logged += std::string(line) + "\n"; });
    }
    void TearDown() override {
        platform::set_file_fault({});
        log::set_sink({});
        if (DIR* d = ::opendir(folder.c_str())) {
            while (const dirent* e = ::readdir(d)) ::unlink((folder + "/" + e->d_name).c_str());
            ::closedir(d);
        }
        ::rmdir(folder.c_str());
    }
    static ipn::StateStore store(const std::string& value) {
        ipn::StateStore s;
        s.set("_machinekey", "the identity");
        s.set("changes", value);
        return s;
    }
    /// "" if a start is not possible.
    std::string value_at_start() const {
        const auto s = StateFile(path).load();
        if (!s || s->get("_machinekey") != "the identity") return "";
        return s->get("changes").value_or("");
    }

    std::string folder, path, logged;
};

TEST_F(StateFileProof, AnEndOfTheProcessAtAnyStepOfASaveLeavesOneOfTheTwoStates) {
    {
        StateFile f(path);
        ASSERT_TRUE(f.load());
        ASSERT_TRUE(f.save(store("0")));
    }
    int most = 0;
    for (int n = 0; n <= most; ++n) {
        const std::string before = value_at_start(), after = std::to_string(n + 1);
        int fds[2];
        ASSERT_EQ(::pipe(fds), 0);
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            int steps = 0;
            platform::set_file_fault([&](platform::FileStep, const std::string&) {
                if (steps++ == n) ::_exit(7);
                return 0;
            });
            StateFile f(path);
            const bool ok = f.load() && f.save(store(after));
            ::_exit(ok && ::write(fds[1], &steps, sizeof steps) == sizeof steps ? 0 : 1);
        }
        ::close(fds[1]);
        int status = 0, steps = 0;
        const bool finished = ::read(fds[0], &steps, sizeof steps) == sizeof steps;
        ::close(fds[0]);
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_EQ(status, finished ? 0 : 7 << 8);
        // One generation aside, one in place: six steps each, and one more turn that gets through.
        most = finished ? n : n + 1;
        const std::string found = value_at_start();
        EXPECT_TRUE(found == before || found == after) << "step " << n << ": '" << found << "'";
        if (finished) {
            EXPECT_EQ(found, after);
        }
    }
    EXPECT_EQ(most, 12);
}

TEST_F(StateFileProof, EachGenerationIsOnDiskBeforeItGetsItsName) {
    StateFile f(path);
    ASSERT_TRUE(f.load());
    ASSERT_TRUE(f.save(store("1")));
    std::vector<std::string> steps;
    platform::set_file_fault([&](platform::FileStep s, const std::string& at) {
        static constexpr const char* kNames[] = {"create", "write", "mode", "sync", "rename to", "sync"};
        steps.push_back(fmt::format("{} {}", kNames[static_cast<size_t>(s)], at.substr(folder.size())));
        return 0;
    });
    ASSERT_TRUE(f.save(store("2")));
    const std::string name = "/tailscaled.state";
    EXPECT_THAT(steps, ::testing::ElementsAre("create " + name + ".prev.tmp", "write " + name + ".prev.tmp", "mode " + name + ".prev.tmp",
                                              "sync " + name + ".prev.tmp", "rename to " + name + ".prev", "sync ",
                                              "create " + name + ".tmp", "write " + name + ".tmp", "mode " + name + ".tmp",
                                              "sync " + name + ".tmp", "rename to " + name, "sync "));
}

TEST_F(StateFileProof, ADamagedFileIsReplacedByItsPredecessor) {
    StateFile f(path);
    ASSERT_TRUE(f.load());
    ASSERT_TRUE(f.save(store("1")));
    ASSERT_TRUE(f.save(store("2")));
    EXPECT_EQ(value_at_start(), "2");
    for (const char* damage : {"", "{", "{\"_machinekey\":7}", "{\"_machinekey\":\"?\"}", "\0\0\0\0"}) {
        ASSERT_TRUE(platform::replace_file(path, damage));
        logged.clear();
        EXPECT_EQ(value_at_start(), "1") << damage;
        EXPECT_NE(logged.find("damaged"), std::string::npos) << "and it is said";
    }
    // Going on from there keeps the good predecessor until the new file is in place.
    StateFile again(path);
    ASSERT_TRUE(again.load());
    ASSERT_TRUE(again.save(store("3")));
    EXPECT_EQ(value_at_start(), "3");
    ASSERT_TRUE(platform::replace_file(path, "damage"));
    EXPECT_EQ(value_at_start(), "1");
}

TEST_F(StateFileProof, WhenBothAreDamagedNothingIsTouched) {
    ASSERT_TRUE(platform::replace_file(path, "damage"));
    EXPECT_FALSE(StateFile(path).load());
    ASSERT_TRUE(platform::replace_file(path + ".prev", "more damage"));
    EXPECT_FALSE(StateFile(path).load());
    EXPECT_EQ(*platform::read_file(path), "damage");
    EXPECT_EQ(*platform::read_file(path + ".prev"), "more damage");
}

TEST_F(StateFileProof, AFullDiskIsToldAndTheNextSaveCatchesUp) {
    StateFile f(path);
    ASSERT_TRUE(f.load());
    ASSERT_TRUE(f.save(store("1")));
    platform::set_file_fault([](platform::FileStep s, const std::string&) { return s == platform::FileStep::kWrite ? ENOSPC : 0; });
    const Status r = f.save(store("2"));
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message().find("No space left on device"), std::string::npos);
    EXPECT_EQ(value_at_start(), "1");
    platform::set_file_fault({});
    ASSERT_TRUE(f.save(store("2")));
    EXPECT_EQ(value_at_start(), "2");
}

TEST_F(StateFileProof, AnUnreadableFileIsNoReasonForANewIdentity) {
    ASSERT_EQ(::mkdir(path.c_str(), 0700), 0);  // reading a folder fails with EISDIR
    EXPECT_FALSE(StateFile(path).load());
    ::rmdir(path.c_str());
}

}  // namespace
}  // namespace mesh::daemon
