// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Packets that lie in their slots with header and counter but are not sealed yet: many at once are sealed faster than
/// one by one. It stands between SendBatch and the kernel, so nothing leaves unsealed.

#include <array>
#include <vector>

#include "tailscaled/dataplane/send_batch.h"
#include "wg/session.h"

namespace mesh::dataplane {

class SealQueue final : public SendBatch::Sink {
   public:
    /// So many are in the first-level cache from filling to sealing.
    static constexpr size_t kMax = 16;

    /// The kernel must outlive this.
    explicit SealQueue(SendBatch::Sink& kernel) : kernel_(kernel) {}

    /// As wg::Device::seal, but slot and session must stay until finish(), and only then is the datagram complete.
    /// `may_wait`: nobody reads the slot but who gets the batch.
    [[nodiscard]] size_t add(wg::Session& session, uint8_t* slot, size_t plain_len, size_t mtu, bool may_wait = false) {
        if (&session != session_ || used_ == kMax) {
            if (!postpone()) finish();
        }
        session_ = &session;
        const size_t n = session.prepare(slot, plain_len, mtu, jobs_[used_]);
        if (n > 0) ++used_;
        may_wait_ = may_wait_ && may_wait;
        return n;
    }
    /// Before anything that may end a session (see wg::Device::send_session), and before a slot is read.
    void finish() {
        if (used_ > 0) session_->seal(std::span(jobs_).first(used_));
        used_ = 0;
        session_ = nullptr;
        may_wait_ = true;
    }
    void send_udp(std::span<const UdpSend> sends) override {
        finish();
        kernel_.send_udp(sends);
    }
    void send_batch(UdpBatch& batch) override {
        finish();
        batch.seals = late_;
        kernel_.send_batch(batch);
        late_.clear();
        postponed_ = false;
    }

   private:
    static_assert(kMax == LateSeals::kMax);
    static constexpr size_t kMaxLate = 16;

    /// Leaves every other full group to the thread that sends the batch: it has about half the work then.
    [[nodiscard]] bool postpone() {
        if (used_ < kMax || !may_wait_ || postponed_ || late_.size() == kMaxLate || !kernel_.seals_too()) {
            postponed_ = false;
            return false;
        }
        late_.push_back({session_->seal_key(), jobs_, used_});
        used_ = 0;
        return postponed_ = true;
    }

    SendBatch::Sink& kernel_;
    wg::Session* session_ = nullptr;
    std::array<crypto::AeadJob, kMax> jobs_;
    size_t used_ = 0;
    bool may_wait_ = true;    // all of jobs_
    bool postponed_ = false;  // the last group
    std::vector<LateSeals> late_;
};

}  // namespace mesh::dataplane
