// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/send_lane.h"

namespace mesh::platform {

SendLane::SendLane(Loop& loop, UdpSocket* v4, UdpSocket* v6, LaneMode mode, Hooks hooks)
    : v4_(v4),
      v6_(v6),
      hooks_(std::move(hooks)),
      mode_(mode),
      news_(loop, [this] { hooks_.news(); }),
      lane_([this](Job& job) { work(job); }, [this](Job& job) { finished(job); }) {}

void SendLane::send(std::span<const UdpSend> sends) {
    lane_.drain();
    send_now(sends, inline_);
    finished(inline_);
}

void SendLane::send(UdpBatch& batch, Time now) {
    size_t bytes = 0;
    for (const UdpSend& s : batch.sends) bytes += s.bytes.size();
    if (mode_ == LaneMode::kBusy && gauge_.due(now)) gauge_.note(now, thread_cpu_time());
    const bool wanted = mode_ == LaneMode::kAlways || (in_use() && bytes >= kMinBatch);
    // What comes behind a batch under way goes the same way, be it ever so small: waiting for it costs more.
    const bool later = wanted || !lane_.idle();
    if (later && !lane_.start()) mode_ = LaneMode::kOff;
    if (!later || mode_ == LaneMode::kOff) {
        for (LateSeals& s : batch.seals) s.run();
        return send(batch.sends);
    }
    Job& job = lane_.claim();
    job.sends.assign(batch.sends.begin(), batch.sends.end());
    job.seals.assign(std::move_iterator(batch.seals.begin()), std::move_iterator(batch.seals.end()));
    if (job.memory.size() < batch.memory.size()) job.memory.resize(batch.memory.size());
    for (size_t i = 0; i < batch.memory.size(); ++i) job.memory[i].swap(batch.memory[i]);
    ++handed_over_;
    lane_.publish();
}

/// On the lane's thread.
void SendLane::work(Job& job) {
    for (LateSeals& s : job.seals) s.run();
    send_now(job.sends, job);
    if (!job.errors.empty()) news_.send();
}

void SendLane::finished(Job& job) {
    for (const auto& [to, err] : job.errors) hooks_.failed(to, err);
    job.errors.clear();
    job.seals.clear();  // and the keys with them
}

void SendLane::send_now(std::span<const UdpSend> sends, UdpSocket::SendErrors& errors) {
    // Runs of one family; nearly always the whole batch.
    for (size_t i = 0; i < sends.size();) {
        size_t n = i + 1;
        while (n < sends.size() && sends[n].to.addr.is_v4() == sends[i].to.addr.is_v4()) ++n;
        if (UdpSocket* socket = sends[i].to.addr.is_v4() ? v4_ : v6_) socket->send(sends.subspan(i, n - i), &errors);
        i = n;
    }
}

}  // namespace mesh::platform
