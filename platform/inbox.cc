// SPDX-License-Identifier: BSD-3-Clause
#include "platform/inbox.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <memory>

#include "platform/file.h"

namespace mesh::platform {
namespace {

constexpr std::string_view kPartial = ".partial";
constexpr std::string_view kDeleted = ".deleted";  // left by other programs of this family
constexpr uint64_t kCheckEvery = uint64_t{16} << 20;
constexpr int kMaxTries = 100;

/// One code point from `text`, which gets shorter; nullopt: not UTF-8.
std::optional<uint32_t> take_rune(std::string_view& text) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t first = byte(0);
    const size_t n = first < 0x80 ? 1 : first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : 0;
    if (n == 0 || text.size() < n) return std::nullopt;
    uint32_t r = n == 1 ? first : first & (0xffU >> (n + 1));
    for (size_t i = 1; i < n; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return std::nullopt;
        r = r << 6 | (byte(i) & 0x3fU);
    }
    constexpr std::array<uint32_t, 5> kLeast{0, 0, 0x80, 0x800, 0x10000};
    if (r < kLeast[n] || r > 0x10ffff || (r >= 0xd800 && r < 0xe000)) return std::nullopt;
    text.remove_prefix(n);
    return r;
}

/// Controls, what changes the direction or hides, line ends, private use and what is no character.
bool is_invisible(uint32_t r) {
    constexpr std::array<std::pair<uint32_t, uint32_t>, 22> kRanges{{{0x00, 0x1f}, {0x7f, 0x9f}, {0xad, 0xad}, {0x600, 0x605}, {0x61c, 0x61c}, {0x6dd, 0x6dd},
        {0x70f, 0x70f}, {0x890, 0x891}, {0x8e2, 0x8e2}, {0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xe000, 0xf8ff}, {0xfdd0, 0xfdef},
        {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0x110bd, 0x110cd}, {0x13430, 0x1343f}, {0x1d173, 0x1d17a}, {0xe0000, 0x10ffff}}};
    return (r & 0xfffe) == 0xfffe || std::any_of(kRanges.begin(), kRanges.end(), [r](const auto& range) { return r >= range.first && r <= range.second; });
}

bool is_space(uint32_t r) {
    return r == ' ' || r == 0xa0 || r == 0x1680 || (r >= 0x2000 && r <= 0x200a) || r == 0x202f || r == 0x205f || r == 0x3000;
}

bool is_sender(std::string_view id) {
    return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; });
}

std::string partial_suffix(const std::string& sender) { return fmt::format(".{}{}", sender, kPartial); }

bool is_ours(std::string_view name) { return name.ends_with(kPartial) || name.ends_with(kDeleted); }

Error no_room(std::string_view what) { return {Code::kLimit, 0, std::string(what)}; }

Error of_write(int e) {
    if (e == ENOSPC || e == EDQUOT) return no_room("no space is left on the receiver's disk");
    return {Code::kSystem, e, "write the file"};
}

/// Calls for each entry that is a plain file.
void each_file(int folder, const std::function<void(const char* name, const struct stat& st)>& what) {
    const int copy = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0) return;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(copy), ::closedir);
    if (!dir) {
        ::close(copy);
        return;
    }
    while (const dirent* e = ::readdir(dir.get())) {
        struct stat st {};
        if (::fstatat(folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) what(e->d_name, st);
    }
}

uint64_t free_bytes(int fd) {
    struct statvfs v {};
    if (::fstatvfs(fd, &v) != 0) return UINT64_MAX;
    return static_cast<uint64_t>(v.f_bavail) * v.f_frsize;
}

bool same_content(int a, int b) {
    for (uint64_t at = 0;;) {
        const auto x = read_at(a, at, size_t{256} << 10), y = read_at(b, at, size_t{256} << 10);
        if (!x || !y || *x != *y) return false;
        if (x->empty()) return true;
        at += x->size();
    }
}

Result<Inbox::Open> open_plain(int folder, const std::string& name) {
    Inbox::Open out;
    out.fd.reset(::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat st {};
    if (!out.fd.valid() || ::fstat(out.fd.get(), &st) != 0) return fail(errno == ENOENT ? Code::kNotFound : Code::kSystem, "open " + name, errno);
    if (!S_ISREG(st.st_mode)) return fail(Code::kInvalid, name + " is not a file");
    out.size = static_cast<uint64_t>(st.st_size);
    return out;
}

}  // namespace

bool is_utf8(std::string_view text) {
    while (!text.empty())
        if (!take_rune(text)) return false;
    return true;
}

bool is_valid_file_name(std::string_view name) {
    if (name.empty() || name.size() > 255 || name == "." || name == ".." || is_ours(name)) return false;
    bool first = true, space = false;
    while (!name.empty()) {
        const auto r = take_rune(name);
        if (!r || is_invisible(*r) || (*r < 0x80 && std::string_view("/\\:*\"<>|").find(static_cast<char>(*r)) != std::string_view::npos)) return false;
        space = is_space(*r);
        if (first && space) return false;
        first = false;
    }
    return !space;
}

std::string next_file_name(const std::string& name) {
    // The extension: final parts of at most seven letters and digits, with a letter among them. A first dot begins none.
    size_t stem = name.size();
    for (;;) {
        const size_t dot = stem > 0 ? name.rfind('.', stem - 1) : std::string::npos;
        if (dot == std::string::npos || dot == 0) break;
        const std::string_view part = std::string_view(name).substr(dot + 1, stem - dot - 1);
        const bool plain = std::all_of(part.begin(), part.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; });
        const bool letter = std::any_of(part.begin(), part.end(), [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; });
        if (part.empty() || part.size() > 7 || !plain || !letter) break;
        stem = dot;
    }
    std::string base = name.substr(0, stem);
    unsigned number = 0;
    if (const size_t open = base.rfind(" ("); open != std::string::npos && base.ends_with(')') && base.size() - open <= 9) {
        const std::string digits = base.substr(open + 2, base.size() - open - 3);
        if (!digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
            number = static_cast<unsigned>(std::stoul(digits));
            base.resize(open);
        }
    }
    return fmt::format("{} ({}){}", base, number + 1, name.substr(stem));
}

Result<std::string> read_at(int fd, uint64_t offset, size_t want) {
    std::string out(want, '\0');
    size_t have = 0;
    while (have < want) {
        const ssize_t n = ::pread(fd, out.data() + have, want - have, static_cast<off_t>(offset + have));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("read the file", errno);
        if (n == 0) break;
        have += static_cast<size_t>(n);
    }
    out.resize(have);
    return out;
}

Result<UniqueFd> Inbox::folder(bool make) const {
    if (make) TRY(make_folders(folder_, 0700));
    UniqueFd fd(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return fail(errno == ENOENT ? Code::kNotFound : Code::kSystem, "open " + folder_, errno);
    return fd;
}

Result<Inbox::Incoming> Inbox::receive(const std::string& name, const std::string& sender, uint64_t offset, std::optional<uint64_t> length) {
    const std::string partial = name + partial_suffix(sender);
    if (!is_valid_file_name(name) || partial.size() > 255) return fail(Code::kInvalid, "invalid filename");
    if (!is_sender(sender)) return fail(Code::kInternal, "the sender has no usable id");
    Incoming in;
    in.name_ = name;
    in.partial_ = partial;
    in.keep_free_ = limits_.keep_free;
    TRY_ASSIGN(in.folder_, folder(true));
    size_t files = 0;
    uint64_t bytes = 0, before = 0;
    bool known = false;
    each_file(in.folder_.get(), [&](const char* entry, const struct stat& st) {
        ++files;
        bytes += static_cast<uint64_t>(st.st_size);
        if (entry != partial) return;
        known = true;
        before = static_cast<uint64_t>(st.st_size);
    });
    if (!known && files >= limits_.files) return tl::unexpected(no_room("too many files are waiting at the receiver"));
    if (offset > before) return fail(Code::kInvalid, fmt::format("offset {} out of range", offset));
    const uint64_t others = bytes - before;
    in.allowed_ = limits_.bytes > others ? limits_.bytes - others : 0;
    const uint64_t room = free_bytes(in.folder_.get());
    const uint64_t usable = room - std::min(room, limits_.keep_free);
    if (length && (*length > usable || *length > in.allowed_ - std::min(in.allowed_, offset)))
        return tl::unexpected(no_room("there is not enough space for it on the receiver's disk"));
    in.fd_.reset(::openat(in.folder_.get(), partial.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
    if (!in.fd_.valid()) return tl::unexpected(of_write(errno));
    if (::ftruncate(in.fd_.get(), static_cast<off_t>(offset)) != 0) return tl::unexpected(of_write(errno));
    in.size_ = in.checked_ = offset;
    return in;
}

Status Inbox::Incoming::write(ByteSpan bytes) {
    if (bytes.size() > allowed_ - std::min(allowed_, size_)) return tl::unexpected(no_room("too many bytes are waiting at the receiver"));
    if (size_ + bytes.size() - checked_ >= kCheckEvery) {
        checked_ = size_;
        if (free_bytes(fd_.get()) < keep_free_) return tl::unexpected(no_room("no space is left on the receiver's disk"));
    }
    while (!bytes.empty()) {
        const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(size_));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return tl::unexpected(of_write(errno));
        size_ += static_cast<uint64_t>(n);
        bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
}

Result<std::string> Inbox::Incoming::finish() {
    if (::fsync(fd_.get()) != 0) return tl::unexpected(of_write(errno));
    std::string name = name_;
    for (int i = 0; i < kMaxTries; ++i) {
        if (::renameat2(folder_.get(), partial_.c_str(), folder_.get(), name.c_str(), RENAME_NOREPLACE) == 0) {
            if (::fsync(folder_.get()) != 0) return fail_errno("sync the folder", errno);
            return name;
        }
        if (errno == EINVAL || errno == ENOSYS) {  // a file system without it
            if (::linkat(folder_.get(), partial_.c_str(), folder_.get(), name.c_str(), 0) == 0) {
                ::unlinkat(folder_.get(), partial_.c_str(), 0);
                if (::fsync(folder_.get()) != 0) return fail_errno("sync the folder", errno);
                return name;
            }
        }
        if (errno != EEXIST) return fail_errno("rename the file", errno);
        const auto there = open_plain(folder_.get(), name);
        if (there && there->size == size_ && same_content(there->fd.get(), fd_.get())) {  // sent twice
            ::unlinkat(folder_.get(), partial_.c_str(), 0);
            return name;
        }
        name = next_file_name(name);
        if (name.size() > 255) break;
    }
    return fail(Code::kLimit, "too many files of that name are waiting at the receiver");
}

Result<std::vector<Inbox::File>> Inbox::list() const {
    std::vector<File> out;
    const auto dir = folder(false);
    if (!dir) return dir.error().code == Code::kNotFound ? Result<std::vector<File>>(out) : tl::unexpected(dir.error());
    std::vector<std::string> deleted;
    each_file(dir->get(), [&](const char* name, const struct stat& st) {
        const std::string_view n(name);
        if (n.ends_with(kDeleted)) deleted.emplace_back(n.substr(0, n.size() - kDeleted.size()));
        if (is_valid_file_name(n)) out.push_back({name, static_cast<uint64_t>(st.st_size)});
    });
    std::erase_if(out, [&](const File& f) { return std::find(deleted.begin(), deleted.end(), f.name) != deleted.end(); });
    std::sort(out.begin(), out.end(), [](const File& a, const File& b) { return a.name < b.name; });
    return out;
}

Result<std::vector<std::string>> Inbox::partials(const std::string& sender) const {
    std::vector<std::string> out;
    const auto dir = folder(false);
    if (!dir) return dir.error().code == Code::kNotFound ? Result<std::vector<std::string>>(out) : tl::unexpected(dir.error());
    each_file(dir->get(), [&](const char* name, const struct stat&) {
        if (std::string_view(name).ends_with(partial_suffix(sender))) out.emplace_back(name);
    });
    std::sort(out.begin(), out.end());
    return out;
}

Result<Inbox::Open> Inbox::open(const std::string& name) const {
    if (!is_valid_file_name(name)) return fail(Code::kInvalid, "invalid filename");
    TRY_ASSIGN(const UniqueFd dir, folder(false));
    return open_plain(dir.get(), name);
}

Result<Inbox::Open> Inbox::open_partial(const std::string& name, const std::string& sender) const {
    if (!is_valid_file_name(name) || !is_sender(sender)) return fail(Code::kInvalid, "invalid filename");
    TRY_ASSIGN(const UniqueFd dir, folder(false));
    return open_plain(dir.get(), name + partial_suffix(sender));
}

Status Inbox::remove(const std::string& name) {
    if (!is_valid_file_name(name)) return fail(Code::kInvalid, "invalid filename");
    TRY_ASSIGN(const UniqueFd dir, folder(false));
    if (::unlinkat(dir.get(), name.c_str(), 0) != 0 && errno != ENOENT) return fail_errno("remove " + name, errno);
    return {};
}

size_t Inbox::sweep(WallTime now) {
    const auto dir = folder(false);
    if (!dir) return 0;
    std::vector<std::string> old;
    size_t left = 0;
    each_file(dir->get(), [&](const char* name, const struct stat& st) {
        if (!is_ours(name)) return;
        const int64_t touched = int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec;
        if (now.unix_ns - touched > kPartialLife.ns)
            old.emplace_back(name);
        else
            ++left;
    });
    for (const std::string& name : old) ::unlinkat(dir->get(), name.c_str(), 0);
    return left;
}

}  // namespace mesh::platform
