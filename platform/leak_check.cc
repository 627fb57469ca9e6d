// SPDX-License-Identifier: BSD-3-Clause
#include "platform/leak_check.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "platform/loop/loop.h"

namespace mesh::platform::testing {

std::map<int, std::string> open_descriptors() {
    std::map<int, std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code error;
        const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        // The one that lists them shows up, too, and is closed by now.
        if (!error && !target.ends_with("/fd")) out[std::stoi(entry.path().filename().string())] = target;
    }
    return out;
}

std::vector<std::string> left_open(const std::map<int, std::string>& before, const std::map<int, std::string>& now) {
    std::vector<std::string> out;
    for (const auto& [fd, target] : now) {
        const auto it = before.find(fd);
        if (it == before.end() || it->second != target) out.push_back(std::to_string(fd) + " = " + target);
    }
    return out;
}

namespace {

class LeakCheck final : public ::testing::EmptyTestEventListener {
    void OnTestProgramStart(const ::testing::UnitTest&) override {
        const Loop once;  // libuv keeps one pipe for signals from its first loop on
    }
    void OnTestStart(const ::testing::TestInfo&) override { before_ = open_descriptors(); }
    void OnTestEnd(const ::testing::TestInfo&) override {
        for (const std::string& fd : left_open(before_, open_descriptors())) ADD_FAILURE() << "left open: " << fd;
    }
    std::map<int, std::string> before_;
};

[[maybe_unused]] const bool installed = [] {
    ::testing::UnitTest::GetInstance()->listeners().Append(new LeakCheck);
    return true;
}();

}  // namespace
}  // namespace mesh::platform::testing
