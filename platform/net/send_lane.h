// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The way of datagrams to the kernel: at once, on the caller's thread, or, while that is busy without rest, by another
/// thread, which sends one batch while the caller fills the next. One way in, one order: nothing overtakes what was given
/// before.

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/udp_batch.h"
#include "platform/loop/lane.h"
#include "platform/loop/loop.h"
#include "platform/net/udp_socket.h"

namespace mesh::platform {

class SendLane {
   public:
    /// Failures that are told of one batch; the others are only counted by the socket.
    static constexpr size_t kMaxErrors = 16;
    /// A smaller batch is sent faster than the other thread is woken.
    static constexpr size_t kMinBatch = 32 << 10;
    /// Batches under way; one more is being filled.
    static constexpr uint32_t kDepth = 2;

    struct Hooks {
        /// A send failed; called on the loop's thread from inside any function of this class.
        std::function<void(const Endpoint& to, int err)> failed;
        /// There is such news, and nobody called for it: call reap().
        std::function<void()> news;
    };
    /// One socket may be null. From here on, only this sends by them. They must outlive this.
    SendLane(Loop& loop, UdpSocket* v4, UdpSocket* v6, LaneMode mode, Hooks hooks);

    /// Sends before it returns.
    void send(std::span<const UdpSend> sends);
    /// Sends before it returns or, if that pays, later. `now` may be some milliseconds old.
    void send(UdpBatch& batch, Time now);
    /// Whether the other thread is in use, so that it may as well do what else a batch needs.
    [[nodiscard]] bool in_use() const { return mode_ == LaneMode::kAlways || (mode_ == LaneMode::kBusy && gauge_.busy()); }
    void reap() { lane_.reap(); }
    /// Returns when nothing is under way.
    void drain() { lane_.drain(); }
    /// Now and then (seconds): a lane without work gives its thread and memory back.
    void rest_if_unused() { lane_.rest_if_unused(); }
    /// Batches that went by the other thread.
    [[nodiscard]] uint64_t handed_over() const { return handed_over_; }

   private:
    struct Job final : UdpSocket::SendErrors {
        std::vector<UdpSend> sends;
        std::vector<UdpBatch::Memory> memory;
        std::vector<LateSeals> seals;
        std::vector<std::pair<Endpoint, int>> errors;
        void on_send_error(const Endpoint& to, int err) override {
            if (errors.size() < kMaxErrors) errors.emplace_back(to, err);
        }
    };
    void send_now(std::span<const UdpSend> sends, UdpSocket::SendErrors& errors);
    void work(Job& job);
    void finished(Job& job);

    UdpSocket* const v4_;
    UdpSocket* const v6_;
    const Hooks hooks_;
    LaneMode mode_;
    BusyGauge gauge_;
    uint64_t handed_over_ = 0;
    Job inline_;
    Async news_;
    Lane<Job, kDepth> lane_;  // last: its thread uses the others
};

}  // namespace mesh::platform
