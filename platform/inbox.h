// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A private folder for files that others send: each is written beside its name, synced, and takes its name only when it is whole.
/// What came halfway stays for its sender to go on with, for kPartialLife. No name leads out of the folder, no link is followed.
///
/// Everything here blocks: call it on a Worker. The folder is one daemon's at a time.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"
#include "platform/fd.h"

namespace mesh::platform {

[[nodiscard]] bool is_utf8(std::string_view text);
/// A name a peer may give a file: UTF-8 of at most 255 bytes, what people can see, no separators or wildcards of any system, not one
/// of ours (".partial", ".deleted").
[[nodiscard]] bool is_valid_file_name(std::string_view name);
/// "a.jpg" → "a (1).jpg" → "a (2).jpg"; also "x.tar.gz" → "x (1).tar.gz".
[[nodiscard]] std::string next_file_name(const std::string& name);

struct InboxLimits {
    size_t files = 1000;                         ///< whole and partial ones together
    uint64_t bytes = UINT64_MAX;                 ///< of all of them
    uint64_t keep_free = uint64_t{64} << 20;  ///< that the disk must have left
};

class Inbox {
   public:
    static constexpr Duration kPartialLife = minutes(60);
    static constexpr size_t kHashBlock = size_t{64} << 10;

    explicit Inbox(std::string folder, InboxLimits limits = {}) : folder_(std::move(folder)), limits_(limits) {}

    /// One file on its way in. Dying before finish() leaves the partial file.
    class Incoming {
       public:
        /// kLimit: no room left, in words for the sender.
        [[nodiscard]] Status write(ByteSpan bytes);
        /// To the disk and under its name, or the next free one if a different file has it. Returns that name.
        [[nodiscard]] Result<std::string> finish();
        [[nodiscard]] uint64_t size() const { return size_; }

       private:
        friend class Inbox;
        std::string name_, partial_;
        UniqueFd folder_, fd_;
        uint64_t size_ = 0, checked_ = 0, allowed_ = 0, keep_free_ = 0;
    };
    /// `sender`: an id of letters and digits. Goes on at `offset`, at most the partial file's size. `length`: of what is to come, if
    /// known. kInvalid: the name; kLimit: no room.
    [[nodiscard]] Result<Incoming> receive(const std::string& name, const std::string& sender, uint64_t offset, std::optional<uint64_t> length);

    struct File {
        std::string name;
        uint64_t size = 0;
        bool operator==(const File&) const = default;
    };
    /// The whole ones by name. A folder that is not there is empty.
    [[nodiscard]] Result<std::vector<File>> list() const;
    /// Names of those that `sender` began.
    [[nodiscard]] Result<std::vector<std::string>> partials(const std::string& sender) const;
    /// For reading; kNotFound if there is none of that name.
    struct Open {
        UniqueFd fd;
        uint64_t size = 0;
    };
    [[nodiscard]] Result<Open> open(const std::string& name) const;
    [[nodiscard]] Result<Open> open_partial(const std::string& name, const std::string& sender) const;
    [[nodiscard]] Status remove(const std::string& name);
    /// Partial files not touched for kPartialLife go. Returns how many are left.
    size_t sweep(WallTime now);

   private:
    [[nodiscard]] Result<UniqueFd> folder(bool make) const;
    const std::string folder_;
    const InboxLimits limits_;
};

/// Up to `want` bytes at `offset`; fewer only at the end.
[[nodiscard]] Result<std::string> read_at(int fd, uint64_t offset, size_t want);

}  // namespace mesh::platform
