// SPDX-License-Identifier: BSD-3-Clause
// replace_file with every step failing in turn, and with the process ending at every step.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <set>
#include <vector>

#include "platform/file.h"

namespace mesh::platform {
namespace {

using ::testing::ElementsAre;

constexpr int kSteps = static_cast<int>(FileStep::kSyncFolder) + 1;

class ReplaceFile : public ::testing::Test {
   protected:
    void SetUp() override {
        char name[] = "/tmp/replace-file-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        folder = name;
        path = folder + "/state";
    }
    void TearDown() override {
        set_file_fault({});
        for (const std::string& name : names()) ::unlink((folder + "/" + name).c_str());
        ::rmdir(folder.c_str());
    }
    std::set<std::string> names() const {
        std::set<std::string> out;
        DIR* d = ::opendir(folder.c_str());
        while (const dirent* e = d != nullptr ? ::readdir(d) : nullptr)
            if (e->d_name[0] != '.') out.insert(e->d_name);
        if (d != nullptr) ::closedir(d);
        return out;
    }

    std::string folder, path;
};

TEST_F(ReplaceFile, SyncsTheContentBeforeTheNameAndTheFolderAfterIt) {
    std::vector<FileStep> steps;
    set_file_fault([&](FileStep s, const std::string&) {
        steps.push_back(s);
        return 0;
    });
    ASSERT_TRUE(replace_file(path, "content", 0600));
    EXPECT_THAT(steps, ElementsAre(FileStep::kCreate, FileStep::kWrite, FileStep::kMode, FileStep::kSync, FileStep::kRename,
                                   FileStep::kSyncFolder));
    struct stat st{};
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 07777U, 0600U);
}

TEST_F(ReplaceFile, AFailureOfAnyStepIsToldAndTheOldContentStays) {
    for (int n = 0; n < kSteps; ++n) {
        set_file_fault({});
        ASSERT_TRUE(replace_file(path, "old"));
        set_file_fault([&](FileStep s, const std::string&) { return static_cast<int>(s) == n ? ENOSPC : 0; });
        const Status r = replace_file(path, "new");
        ASSERT_FALSE(r) << n;
        EXPECT_EQ(r.error().sys_errno, ENOSPC) << n;
        EXPECT_NE(r.error().context.find(folder), std::string::npos) << "names what it worked on";
        // The one step after the rename cannot take the new content back.
        EXPECT_EQ(*read_file(path), n < static_cast<int>(FileStep::kSyncFolder) ? "old" : "new") << n;
        EXPECT_THAT(names(), ElementsAre("state")) << "nothing is left lying about";
    }
}

TEST_F(ReplaceFile, AnEndOfTheProcessAtAnyStepLeavesOldOrNewAndTheNextSaveWorks) {
    for (int n = 0; n <= kSteps; ++n) {
        ASSERT_TRUE(replace_file(path, "old"));
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            set_file_fault([&](FileStep s, const std::string&) {
                if (static_cast<int>(s) == n) ::_exit(0);
                return 0;
            });
            ::_exit(replace_file(path, "a much longer new content") ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        EXPECT_EQ(*read_file(path), n <= static_cast<int>(FileStep::kRename) ? "old" : "a much longer new content") << n;
        ASSERT_TRUE(replace_file(path, "x")) << "whatever the last one left there";
        EXPECT_EQ(*read_file(path), "x");
        EXPECT_THAT(names(), ElementsAre("state"));
    }
}

TEST_F(ReplaceFile, AWriteThatOnlyPartlyFitsChangesNothing) {
    ASSERT_TRUE(replace_file(path, "old"));
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        ::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{10, 10};  // the kernel writes 10 bytes, then says EFBIG
        if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
        const Status r = replace_file(path, "longer than ten bytes");
        ::_exit(!r && r.error().sys_errno == EFBIG ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_EQ(*read_file(path), "old");
    EXPECT_THAT(names(), ElementsAre("state"));
}

TEST_F(ReplaceFile, AnInterruptedWriteGoesOn) {
    int interruptions = 3;
    set_file_fault([&](FileStep s, const std::string&) { return s == FileStep::kWrite && interruptions-- > 0 ? EINTR : 0; });
    ASSERT_TRUE(replace_file(path, "content"));
    EXPECT_EQ(*read_file(path), "content");
}

TEST_F(ReplaceFile, AFileThatIsTooLargeIsNotRead) {
    ASSERT_TRUE(replace_file(path, "12345"));
    EXPECT_EQ(read_file(path, 4).error().code, Code::kLimit);
    EXPECT_EQ(read_file(path + ".none").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace mesh::platform
