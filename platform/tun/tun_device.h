// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The TUN device: one descriptor, one reader, batches both ways.
///
/// Every read and write carries a 10-byte virtio_net_hdr (linux/virtio_net.h) in front of the IP packet:
///   u8 flags | u8 gso_type | u16 hdr_len | u16 gso_size | u16 csum_start | u16 csum_offset      host byte order
/// so the kernel hands us TCP and UDP super-packets of up to 65,535 bytes and takes them back. Where the kernel
/// refuses the header, packets come one by one (offloads().vnet_hdr is false and every VnetHdr is zero).
/// The memory of a batch is packed, not one 64 KiB slot per packet: small packets stay within the cache.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/packet.h"
#include "base/result.h"
#include "platform/fd.h"

namespace mesh::platform {

/// What may be written to the device. One-way: a capability that is lost is not tried again until restart.
struct TunOffloads {
    bool vnet_hdr = false;
    bool tcp_coalescing = false;  ///< TunWrite may be a TCP super-packet
    bool udp_coalescing = false;  ///< TunWrite may be a UDP super-packet (kernel >= 6.2)
};

/// Counters of packets that the kernel did not take or give, by reason.
struct TunCounters {
    uint64_t reads = 0;          ///< packets and super-packets
    uint64_t writes = 0;
    uint64_t read_errors = 0;    ///< anything but "nothing there"
    uint64_t link_down = 0;      ///< writes refused because the link is down (EIO)
    uint64_t refused_gso = 0;    ///< super-packets refused (EINVAL)
    uint64_t other_errors = 0;
};

class TunDevice {
   public:
    static constexpr size_t kMaxBatch = 128;       ///< packets per read()
    static constexpr size_t kMaxPacket = 65535;
    static constexpr unsigned kDefaultMtu = 1280;

    /// Makes (or takes over, if persistent and free) the TUN interface `name` (1..15 bytes) and sets its MTU
    /// (68..65535). The link is left down. Errors: no /dev/net/tun, no permission, busy (EBUSY: another process holds it),
    /// a link of that name that is no TUN (EINVAL); the text names cause and remedy. Environment
    /// TS_TUN_DISABLE_TCP_GRO / TS_TUN_DISABLE_UDP_GRO turn off coalescing.
    [[nodiscard]] static Result<TunDevice> open(const std::string& name, unsigned mtu = kDefaultMtu);

    // Move-only. Destruction closes: a TUN that was not persistent vanishes with its addresses and routes.

    /// For polling, readable = read() has something. Owned by this object.
    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] int if_index() const { return if_index_; }
    [[nodiscard]] const TunOffloads& offloads() const { return offloads_; }
    [[nodiscard]] const TunCounters& counters() const { return counters_; }
    /// MTU as the kernel has it now: an administrator's change is honoured.
    [[nodiscard]] Result<unsigned> mtu() const;
    [[nodiscard]] Status set_mtu(unsigned mtu);
    /// errno of a read that will not get better (the interface was deleted: EBADFD), else 0.
    [[nodiscard]] int failed() const { return failed_; }

    /// Up to kMaxBatch packets that wait now; empty: nothing (more) there. The bytes may be changed in place and stay
    /// valid until the next read(). A full batch may not be all: readable stays set, or call again. Never blocks.
    [[nodiscard]] std::span<TunRead> read();
    /// read() with a callback; false if nothing waited.
    template <class F>
    bool read(F&& sink) {
        const std::span<TunRead> batch = read();
        if (!batch.empty()) sink(batch);
        return !batch.empty();
    }
    /// Writes each item; failures are counted. Returns how many the kernel took. Eight refused super-packets (EINVAL) in a
    /// row turn coalescing of their kind off, so look at offloads() when building the next batch.
    size_t write(std::span<const TunWrite> batch);

    /// With the link up: writes one tiny TCP super-packet from and to 100.100.100.100 with TTL 0, which the kernel
    /// discards; kernels that refuse it get no super-packets at all.
    void probe_coalescing();

   private:
    TunDevice() = default;
    Status set_offloads();
    void refused(const VnetHdr& vnet);

    UniqueFd fd_;
    int if_index_ = 0;
    int failed_ = 0;
    std::string name_;
    TunOffloads offloads_;
    TunCounters counters_;
    unsigned tcp_refusals_ = 0;  ///< in a row
    unsigned udp_refusals_ = 0;
    std::unique_ptr<uint8_t[]> slab_;
    std::vector<TunRead> batch_;
};

}  // namespace mesh::platform
