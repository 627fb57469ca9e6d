// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Packets that lie in their slots with header and counter but are not sealed yet: many at once are sealed faster than
/// one by one. It stands between SendBatch and the kernel, so nothing leaves unsealed.

#include <array>

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
    [[nodiscard]] size_t add(wg::Session& session, uint8_t* slot, size_t plain_len, size_t mtu) {
        if (&session != session_ || used_ == kMax) finish();
        session_ = &session;
        const size_t n = session.prepare(slot, plain_len, mtu, jobs_[used_]);
        if (n > 0) ++used_;
        return n;
    }
    /// Before anything that may end a session (see wg::Device::send_session), and before a slot is read.
    void finish() {
        if (used_ > 0) session_->seal(std::span(jobs_).first(used_));
        used_ = 0;
        session_ = nullptr;
    }
    void send_udp(std::span<const UdpSend> sends) override {
        finish();
        kernel_.send_udp(sends);
    }

   private:
    SendBatch::Sink& kernel_;
    wg::Session* session_ = nullptr;
    std::array<crypto::AeadJob, kMax> jobs_;
    size_t used_ = 0;
};

}  // namespace mesh::dataplane
