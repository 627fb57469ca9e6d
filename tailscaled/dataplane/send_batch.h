// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Collects sealed datagrams so that the kernel gets them as few, large sends (UDP_SEGMENT): datagrams to one endpoint
/// that follow each other in its lane of memory and have equal length, the last perhaps shorter, are one UdpSend.
/// Sealing writes right into the lane, so there is no copy. The order of datagrams to one endpoint is kept.

#include <array>
#include <memory>
#include <vector>

#include "base/udp_batch.h"

namespace mesh::dataplane {

class SendBatch {
   public:
    static constexpr size_t kMaxSegments = 64;       ///< UDP_MAX_SEGMENTS of older kernels
    static constexpr size_t kMaxSendBytes = 65507;   ///< largest UDP payload over IPv4
    static constexpr size_t kLaneBytes = 256 * 1024;
    static constexpr size_t kLanes = 8;              ///< endpoints served at once without a flush in between

    /// Takes what a flush yields; valid during the call.
    class Sink {
       public:
        virtual ~Sink() = default;
        virtual void send_udp(std::span<const UdpSend> sends) = 0;
        /// A flush.
        virtual void send_batch(UdpBatch& batch) {
            for (LateSeals& seals : batch.seals) seals.run();
            send_udp(batch.sends);
        }
        /// Whether the batch will likely go to another thread, so that some of it may as well be sealed there.
        [[nodiscard]] virtual bool seals_too() const { return false; }
    };
    explicit SendBatch(Sink& sink);

    /// Room for a datagram of at most `max_bytes` ≤ kMaxSendBytes to `to`. May flush. Follow with commit().
    [[nodiscard]] uint8_t* reserve(const Endpoint& to, size_t max_bytes);
    /// The datagram at the last reserve() has `bytes` bytes; 0 gives the room back.
    void commit(size_t bytes);
    void flush();
    [[nodiscard]] bool empty() const { return sends_.empty(); }

   private:
    struct Lane {
        Endpoint to;
        size_t used = 0;
        size_t send = SIZE_MAX;  // index of the open send; SIZE_MAX: none
        size_t segments = 0;
        bool in_use = false;
    };
    Lane& lane_for(const Endpoint& to, size_t max_bytes);

    Sink& sink_;
    std::array<Lane, kLanes> lanes_;
    std::array<UdpBatch::Memory, kLanes> memory_;  // of the lanes, on first use; untouched pages cost nothing
    size_t current_ = 0;
    std::vector<UdpSend> sends_;
};

}  // namespace mesh::dataplane
