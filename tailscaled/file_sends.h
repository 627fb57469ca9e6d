// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Files that leave this host for a peer ("Taildrop"): a program's PUT to the local API, passed on to the peer's PeerAPI as it
/// comes, from where an earlier try of the same file ended. On the control loop; no file is held here.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/http1.h"
#include "tailscaled/api/notify.h"
#include "tailscaled/tunnel_server.h"
#include "tailscaled/user_net.h"

namespace mesh::daemon {

class FileSends {
   public:
    static constexpr size_t kMaxAtOnce = 64;
    static constexpr size_t kBehind = size_t{512} << 10;     ///< of one file, read and not yet taken by the peer
    static constexpr Duration kHashPatience = seconds(15);   ///< until the peer has said where to go on
    static constexpr Duration kStall = minutes(2);           ///< without a byte taken or an answer
    static constexpr Duration kProgress = seconds(1);
    static constexpr size_t kRemembered = 20;                ///< finished ones on the bus

    struct Hooks {
        /// The PeerAPI of the node with this stable id; an error to tell the program: kNotFound or in words.
        std::function<Result<Endpoint>(const std::string& stable_id)> target;
        /// Makes the connection; see OutgoingDialer.
        std::function<void(const Endpoint& to, Outgoing)> dial;
        std::function<void()> progress;  ///< files() has changed
    };
    FileSends(platform::Loop& loop, Hooks hooks) : loop_(loop), hooks_(std::move(hooks)) {}
    ~FileSends();
    FileSends(const FileSends&) = delete;
    FileSends& operator=(const FileSends&) = delete;

    /// `client`: a connection whose first request, not yet read, is PUT /localapi/v0/file-put/ID/NAME. It ends with the answer.
    void take(platform::ByteStream client);
    /// Those under way and the last ones that ended, by their beginnings.
    [[nodiscard]] const std::vector<api::OutgoingFile>& files() const { return files_; }

   private:
    class Transfer;
    void note(const api::OutgoingFile& file);

    platform::Loop& loop_;
    const Hooks hooks_;
    uint64_t next_id_ = 1;
    std::vector<api::OutgoingFile> files_;
    Connections<Transfer> transfers_{loop_};
};

/// One line of a peer's answer about what it has of a file; nullopt: nothing to go by.
struct BlockHash {
    std::string sha256;  ///< hex
    size_t size = 0;     ///< at most 64 KiB
};
[[nodiscard]] std::optional<BlockHash> parse_block_hash(std::string_view line);

}  // namespace mesh::daemon
