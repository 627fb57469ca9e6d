// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Joins neighbouring packets of one flow into super-packets for one TUN write each, the inverse of segment.h:
/// splitting the output gives the input again (but for the IPv4 id). TCP segments are appended or put in front, UDP
/// datagrams only appended, so that their order never changes. What does not qualify passes through untouched.
///
/// Joinable: IPv4 without options or IPv6 without extension headers, no fragment, lengths that agree, TCP with flags
/// ACK or ACK|PSH, UDP; ≥ 1 byte of payload; equal addresses, ports, ACK number, window, options, ToS, TTL, DF; equal
/// payload sizes with one shorter at the end; checksums that are right; ≤ 65,535 bytes together.

#include <array>
#include <vector>

#include "base/packet.h"
#include "netstack/packet.h"

namespace mesh::netstack {

class Coalescer {
   public:
    static constexpr size_t kMaxPackets = 1024;  ///< per batch; also the limit of pieces in one write (IOV_MAX)

    /// `hash_seed`: secret, so that nobody can aim flows at one bucket.
    explicit Coalescer(uint64_t hash_seed);

    /// Off: packets of this kind pass through untouched (kernels without USO, or broken ones).
    void enable_tcp(bool on) { tcp_ = on; }
    void enable_udp(bool on) { udp_ = on; }

    /// Adds a packet trimmed to its IP length. The memory stays valid until the writes of take() are done; headers in
    /// it are rewritten. Call only while !full().
    void add(MutByteSpan packet, const Parsed& parsed);
    [[nodiscard]] bool full() const { return packets_ >= kMaxPackets; }
    [[nodiscard]] bool empty() const { return packets_ == 0; }

    /// The writes, ordered by the first packet of each. Valid until the next add().
    [[nodiscard]] std::span<const TunWrite> take();

   private:
    static constexpr int32_t kNone = -1;
    static constexpr size_t kBuckets = 1024;
    // Items of one TCP flow looked at per packet: more than a few means loss or malice, not a bulk flow.
    static constexpr int kLookBack = 16;

    struct Item {
        MutByteSpan head;  // whole packet
        uint64_t hash = 0;
        uint32_t payload = 0;  // all packets together
        uint32_t gso_size = 0;
        uint32_t seq = 0;      // of the first byte
        int32_t first = kNone, last = kNone;  // payloads behind the head's, in order
        int32_t next_in_bucket = kNone;
        uint16_t merged = 0;  // packets besides the head
        uint8_t ip_len = 0, l4_len = 0, version = 0, proto = 0;
        bool psh = false;
        bool verified = false;  // the head's checksum was checked
        bool closed = false;    // passes alone from now on
    };
    struct Piece {
        ByteSpan payload;
        int32_t next = kNone;
    };
    enum class Fit : uint8_t { kNo, kAppend, kPrepend };

    [[nodiscard]] bool is_candidate(ByteSpan packet, const Parsed& p) const;
    [[nodiscard]] uint64_t hash_of(ByteSpan packet, const Parsed& p) const;
    [[nodiscard]] static bool same_flow(const Item& item, ByteSpan packet, const Parsed& p);
    [[nodiscard]] static bool same_headers(const Item& item, ByteSpan packet, const Parsed& p);
    [[nodiscard]] static Fit fit(const Item& item, ByteSpan packet, const Parsed& p);
    void merge(Item& item, Fit how, MutByteSpan packet, const Parsed& p);
    int32_t push_item(MutByteSpan packet, const Parsed& p);
    int32_t& bucket(uint64_t hash);
    static void finish_head(const Item& item, VnetHdr& vnet);

    uint64_t seed_;
    bool tcp_ = true, udp_ = true;
    size_t packets_ = 0;
    std::vector<Item> items_;
    std::vector<Piece> chain_;
    std::vector<ByteSpan> pieces_;
    std::vector<TunWrite> writes_;
    struct Bucket {
        uint32_t batch = 0;  // stale unless equal to batch_
        int32_t head = kNone;
    };
    std::array<Bucket, kBuckets> buckets_{};
    uint32_t batch_ = 1;
    bool taken_ = false;
};

}  // namespace mesh::netstack
