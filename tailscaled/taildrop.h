// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Files that peers send us ("Taildrop"), until somebody fetches them by the local API. On the control loop; the disk is touched by
/// a thread of its own. Who may send, and what a file may be called, is decided here and in platform/inbox.h.
///
/// On the wire (facts: linux-platform 9): a sender asks by GET for the hashes of what it left halfway, then PUTs the rest.

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "platform/inbox.h"
#include "platform/loop/worker.h"

namespace mesh::daemon {

class Taildrop {
   public:
    static constexpr size_t kMaxIncoming = 32;  ///< at a time
    static constexpr size_t kMaxPerPeer = 8;
    static constexpr size_t kMaxWaiters = 64;
    static constexpr size_t kBehind = size_t{1} << 20;  ///< bytes of one file that may wait for the disk

    struct Hooks {
        /// The stable id of the node at this address if it may send us files; else why not.
        std::function<Result<std::string>(const Addr& peer)> sender;
        std::function<void()> arrived;  ///< one more file waits
    };
    Taildrop(platform::Loop& loop, Hooks hooks, platform::InboxLimits limits = {});
    ~Taildrop();

    /// Where files are kept from now on; "" = nowhere: nothing is taken.
    void set_folder(const std::string& folder);
    [[nodiscard]] const std::string& folder() const { return folder_; }

    // ---- for peers

    /// What a request ends with.
    struct Answer {
        unsigned status = 200;
        std::string body;
    };
    /// One PUT. Its death before finish() leaves a partial file.
    class Upload {
       public:
        Upload(Taildrop& owner, std::string peer, std::string name, uint64_t offset, std::optional<uint64_t> length,
               std::function<void()> on_room, std::function<void(Answer)> on_end);
        ~Upload();
        Upload(const Upload&) = delete;
        Upload& operator=(const Upload&) = delete;
        /// False: no more now; on_room will come.
        [[nodiscard]] bool write(std::string bytes);
        /// All has come: on_end follows, as it does on any failure.
        void finish();

       private:
        friend class Taildrop;
        void pump();
        void end(Answer answer);

        Taildrop* owner_;
        const std::string peer_, name_;
        const uint64_t offset_;
        const std::optional<uint64_t> length_;
        std::function<void()> on_room_;
        std::function<void(Answer)> on_end_;
        struct Disk;
        std::shared_ptr<Disk> disk_;  // touched by the job under way, or by nobody
        std::string pending_;
        bool busy_ = false, full_ = false, finishing_ = false, ended_ = false;
        std::shared_ptr<Upload*> self_;
    };
    /// A refusal, or an Upload; it must not outlive this object.
    [[nodiscard]] Result<std::unique_ptr<Upload>> receive(const Addr& peer, const std::string& name, uint64_t offset, std::optional<uint64_t> length,
                                                          std::function<void()> on_room, std::function<void(Answer)> on_end);
    /// Hashes of what this peer left of that file, block by block as lines of JSON, from `offset` on; "" at the end. "" as a name:
    /// which files it left, as one JSON list.
    void left_by(const Addr& peer, const std::string& name, uint64_t offset, std::function<void(Result<std::string>)> done);

    // ---- for this host

    using Files = std::vector<platform::Inbox::File>;
    /// With `wait`: as soon as there is one, or none when the time is over.
    void list(Duration wait, std::function<void(Result<Files>)> done);
    void remove(const std::string& name, std::function<void(Status)> done);
    using OpenFile = std::shared_ptr<const platform::Inbox::Open>;
    void open(const std::string& name, std::function<void(Result<OpenFile>)> done);
    /// A good piece from `offset` on; "" at the end.
    void read(const OpenFile& file, uint64_t offset, std::function<void(Result<std::string>)> done);
    /// As of the last look.
    [[nodiscard]] bool has_files() const { return has_files_; }

   private:
    struct Waiter {
        Time until;
        std::function<void(Result<Files>)> done;
    };
    [[nodiscard]] Result<std::string> sender_at(const Addr& peer) const;
    void answer_waiters();
    void sweep();

    platform::Loop& loop_;
    const Hooks hooks_;
    const platform::InboxLimits limits_;
    std::string folder_;
    std::shared_ptr<platform::Inbox> inbox_;  // none: no folder. Jobs hold it too
    bool has_files_ = false;
    std::map<std::pair<std::string, std::string>, Upload*> incoming_;  // by peer and name
    std::list<Waiter> waiters_;
    platform::Timer wait_timer_, sweep_timer_;
    platform::Worker disk_;
};

/// Folder of one account's files below the daemon's, as the original names it.
[[nodiscard]] std::string taildrop_folder(const std::string& state_dir, const std::string& login_name, int64_t user);
/// Status of the answer to a peer whose file was refused.
[[nodiscard]] unsigned http_status(const Error& error);

}  // namespace mesh::daemon
