// SPDX-License-Identifier: BSD-3-Clause
#include "platform/inbox.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "platform/loop/worker.h"
#include "platform/test_support.h"

namespace mesh::platform {
namespace {

namespace fs = std::filesystem;

TEST(FileName, WhatAPeerMayCallAFile) {
    for (const char* good : {"a", "a.txt", ".hidden", "Urlaub in Köln.jpg", "a b", "日本語.pdf", "a..b", "...", "x (1).png", "smile \xf0\x9f\x98\x80"})
        EXPECT_TRUE(is_valid_file_name(good)) << good;
    for (const std::string& bad :
         {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("../a"), std::string("/etc/passwd"), std::string("a\\b"),
          std::string("c:"), std::string("a*"), std::string("a\"b"), std::string("<a>"), std::string("a|b"), std::string("a\nb"), std::string("a\0b", 3),
          std::string("\x1b[2Ja"), std::string("\x7f"), std::string(" a"), std::string("a "), std::string("a\xc2\xa0"), std::string("\xff"), std::string("a\xc0\xaf"),
          std::string("\xe2\x80\xae" "gpj.exe"), std::string("a\xe2\x80\xa8"), std::string("\xef\xbb\xbf" "a"), std::string("\xed\xa0\x80"), std::string("a\xc2\x85"),
          std::string("x.partial"), std::string("x.deleted"), std::string(256, 'a')})
        EXPECT_FALSE(is_valid_file_name(bad)) << bad;
    EXPECT_TRUE(is_valid_file_name(std::string(255, 'a')));
}

TEST(FileName, TheNextOneIsNumbered) {
    EXPECT_EQ(next_file_name("foo.jpg"), "foo (1).jpg");
    EXPECT_EQ(next_file_name("foo (1).jpg"), "foo (2).jpg");
    EXPECT_EQ(next_file_name("x.tar.gz"), "x (1).tar.gz");
    EXPECT_EQ(next_file_name("foo"), "foo (1)");
    EXPECT_EQ(next_file_name(".bashrc"), ".bashrc (1)");
    EXPECT_EQ(next_file_name("v1.2.3"), "v1.2.3 (1)");
    EXPECT_EQ(next_file_name("a (99999999999999999999).x"), "a (99999999999999999999) (1).x");
}

class InboxTest : public ::testing::Test {
   protected:
    [[nodiscard]] Inbox inbox(InboxLimits limits = {}) const {
        limits.keep_free = limits.keep_free == InboxLimits{}.keep_free ? 0 : limits.keep_free;
        return Inbox(root + "/files/alice-uid-1", limits);
    }
    static std::string put(Inbox& to, const std::string& name, std::string_view text, const std::string& from = "n1") {
        auto in = to.receive(name, from, 0, text.size());
        if (!in) return "refused: " + in.error().message();
        if (const Status s = in->write(as_bytes(text)); !s) return "write: " + s.error().message();
        const auto done = in->finish();
        return done ? *done : "finish: " + done.error().message();
    }
    static std::string content(const Inbox& of, const std::string& name) {
        const auto f = of.open(name);
        return f ? read_at(f->fd.get(), 0, 1U << 20).value() : f.error().message();
    }
    testing::TempFolder folder;
    const std::string& root = folder.path;
};

TEST_F(InboxTest, AFileIsThereWhenItIsWhole) {
    Inbox box = inbox();
    EXPECT_TRUE(box.list()->empty());
    {
        auto in = box.receive("a.txt", "n1", 0, 6);
        ASSERT_TRUE(in) << in.error().message();
        EXPECT_TRUE(in->write(as_bytes(std::string_view("abc"))));
        EXPECT_TRUE(box.list()->empty()) << "halfway";
        EXPECT_EQ(box.partials("n1").value(), std::vector<std::string>{"a.txt.n1.partial"});
        EXPECT_TRUE(box.partials("n2")->empty()) << "nobody else's";
    }
    // The sender comes again, knows what is there, and goes on.
    const auto half = box.open_partial("a.txt", "n1");
    ASSERT_TRUE(half);
    EXPECT_EQ(half->size, 3U);
    EXPECT_FALSE(box.receive("a.txt", "n1", 4, 1)) << "there are only three";
    auto in = box.receive("a.txt", "n1", 3, 3);
    ASSERT_TRUE(in);
    EXPECT_TRUE(in->write(as_bytes(std::string_view("def"))));
    EXPECT_EQ(in->finish().value(), "a.txt");
    EXPECT_EQ(box.list().value(), (std::vector<Inbox::File>{{"a.txt", 6}}));
    EXPECT_EQ(content(box, "a.txt"), "abcdef");
    struct stat st {};
    ASSERT_EQ(::stat((root + "/files/alice-uid-1").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0700U);
    ASSERT_EQ(::stat((root + "/files/alice-uid-1/a.txt").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600U);
    EXPECT_TRUE(box.remove("a.txt"));
    EXPECT_TRUE(box.remove("a.txt")) << "gone already";
    EXPECT_TRUE(box.list()->empty());
}

TEST_F(InboxTest, AnotherFileOfThatNameGetsANumberTheSameOneDoesNot) {
    Inbox box = inbox();
    EXPECT_EQ(put(box, "a.txt", "one"), "a.txt");
    EXPECT_EQ(put(box, "a.txt", "two"), "a (1).txt");
    EXPECT_EQ(put(box, "a.txt", "two"), "a (1).txt");
    EXPECT_EQ(put(box, "a.txt", "three", "n2"), "a (2).txt");
    EXPECT_EQ(box.list()->size(), 3U);
    EXPECT_TRUE(box.partials("n1")->empty());
}

TEST_F(InboxTest, NothingLeavesTheFolder) {
    Inbox box = inbox();
    for (const std::string name : {"../x", "a/b", "..", "/tmp/x", "x.partial"}) {
        EXPECT_FALSE(box.receive(name, "n1", 0, 1)) << name;
        EXPECT_FALSE(box.open(name)) << name;
        EXPECT_FALSE(box.remove(name)) << name;
    }
    EXPECT_FALSE(box.receive("a", "../n1", 0, 1));
    EXPECT_FALSE(box.receive("a", "", 0, 1));
    EXPECT_FALSE(box.receive(std::string(250, 'a'), "n1", 0, 1)) << "its partial name would be too long";
    EXPECT_EQ(put(box, "a", "x"), "a");
    // Whoever may write there plants links; they are neither listed nor followed.
    std::ofstream(root + "/secret") << "secret";
    fs::create_symlink(root + "/secret", root + "/files/alice-uid-1/link");
    fs::create_symlink(root + "/secret", root + "/files/alice-uid-1/b.n1.partial");
    EXPECT_EQ(box.list()->size(), 1U);
    EXPECT_FALSE(box.open("link"));
    EXPECT_FALSE(box.receive("b", "n1", 0, 1));
    EXPECT_EQ(put(box, "link", "x"), "link (1)");
    std::string still;
    std::ifstream(root + "/secret") >> still;
    EXPECT_EQ(still, "secret");
}

TEST_F(InboxTest, LimitsAreSaid) {
    Inbox few = inbox({.files = 2});
    EXPECT_EQ(put(few, "a", "1"), "a");
    EXPECT_EQ(put(few, "b", "1"), "b");
    EXPECT_EQ(put(few, "c", "1"), "refused: too many files are waiting at the receiver");
    Inbox small = inbox({.bytes = 10});
    EXPECT_EQ(put(small, "d", "12345678"), "d");
    EXPECT_EQ(put(small, "e", "1"), "refused: there is not enough space for it on the receiver's disk");
    EXPECT_TRUE(small.remove("d"));
    auto unsized = small.receive("f", "n1", 0, std::nullopt);
    ASSERT_TRUE(unsized);
    EXPECT_TRUE(unsized->write(as_bytes(std::string_view("12345678"))));
    const Status over = unsized->write(as_bytes(std::string_view("9")));
    ASSERT_FALSE(over);
    EXPECT_EQ(over.error().code, Code::kLimit);
    Inbox full = inbox({.keep_free = UINT64_MAX / 2});
    EXPECT_EQ(put(full, "g", "1"), "refused: there is not enough space for it on the receiver's disk");
}

TEST_F(InboxTest, OldPartialFilesGo) {
    Inbox box = inbox();
    static_cast<void>(box.receive("a", "n1", 0, 1));
    EXPECT_EQ(put(box, "whole", "x"), "whole");
    const WallTime now = read_wall_clock();
    EXPECT_EQ(box.sweep(now), 1U);
    EXPECT_EQ(box.sweep(WallTime{now.unix_ns + Inbox::kPartialLife.ns + seconds(1).ns}), 0U);
    EXPECT_TRUE(box.partials("n1")->empty());
    EXPECT_EQ(box.list()->size(), 1U);
}

TEST(Worker, JobsInOrderAndNoWordAfterItsEnd) {
    Loop loop;
    std::vector<int> did;
    auto worker = std::make_unique<Worker>(loop);
    auto seen = std::make_shared<std::vector<int>>();
    for (int i = 0; i < 5; ++i) worker->run([seen, i] { seen->push_back(i); }, [&did, i] { did.push_back(i); });
    EXPECT_TRUE(testing::turn_until(loop, [&] { return did.size() == 5; }));
    EXPECT_EQ(did, (std::vector<int>{0, 1, 2, 3, 4}));
    EXPECT_EQ(*seen, did);
    worker->run([] {}, [&did] { did.push_back(9); });
    worker.reset();
    for (int i = 0; i < 3; ++i) loop.run_once(false);
    EXPECT_EQ(did.size(), 5U);
}

}  // namespace
}  // namespace mesh::platform
