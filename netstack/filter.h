// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The packet filter. FilterTable is the policy: immutable, built on the control side, shared by pointer. Filter is the
/// state that outlives a policy: which UDP and SCTP flows this node began. Default deny.
///
/// Inbound, in this order: a transport not understood, multicast and link-local destinations (but 169.254.169.254) are
/// dropped; later fragments pass (their first one decides); the destination must be ours or advertised; ICMP replies
/// and errors pass, other ICMP if the source may reach the address at all; TCP passes unless it is a pure SYN, which
/// needs a rule; UDP and SCTP pass if the reverse was sent, else they need a rule; TSMP passes; other protocols need a
/// rule that names them and opens all ports. Outbound, the first three hold, then everything passes.

#include <bitset>
#include <functional>
#include <vector>

#include "base/prefix_table.h"
#include "netstack/filter_rule.h"
#include "netstack/packet.h"
#include "netstack/prefix_set.h"

namespace mesh::netstack {

enum class Verdict : uint8_t { kAccept, kUnknownProto, kMulticast, kLinkLocal, kNotLocal, kNoRule };

/// What the node answers for.
struct LocalSet {
    std::vector<Prefix> prefixes;  ///< own addresses and advertised routes (a default route here means `internet`)
    std::vector<Prefix> except;    ///< with a default route: not part of it (private ranges, our own LANs)
};
/// Ranges that an exit node never opens by its default routes: private, link-local, multicast, CGNAT, tailnet.
[[nodiscard]] std::vector<Prefix> exit_node_exceptions();

class FilterTable {
   public:
    /// Addresses of the peers that hold a node capability; for "cap:" sources.
    using CapLookup = std::function<std::vector<Prefix>(std::string_view cap)>;

    FilterTable() = default;  ///< nothing local, nothing allowed
    FilterTable(std::span<const FilterRule> rules, const LocalSet& local, bool shields_up = false,
                const CapLookup& caps = {});

    [[nodiscard]] bool shields_up() const { return shields_up_; }
    [[nodiscard]] bool is_local(const Addr& a) const;
    [[nodiscard]] bool allows(const Parsed& p) const;           ///< protocol, addresses, destination port
    [[nodiscard]] bool allows_addresses(const Parsed& p) const;  ///< addresses only (ICMP)
    [[nodiscard]] bool allows_all_ports(const Parsed& p) const;  ///< protocol and addresses, rule open on all ports

   private:
    struct Row {
        PrefixSet src;
        std::bitset<256> protos;
        std::vector<DstMatch> dst;
    };
    std::vector<Row> rows_;
    PrefixTable<char> local_;
    PrefixTable<char> except_;
    bool internet4_ = false, internet6_ = false;
    bool shields_up_ = false;
};

/// A set of flows with a fixed number of places; the least recently used one makes room. No allocation after construction.
class FlowTable {
   public:
    FlowTable(size_t capacity, uint64_t hash_seed);

    struct Key {
        Addr src, dst;
        uint16_t src_port = 0, dst_port = 0;
        uint8_t proto = 0;
        bool operator==(const Key&) const = default;
    };
    void insert(const Key& key);
    [[nodiscard]] bool touch(const Key& key);  ///< true if present; makes it the most recent
    void clear();
    [[nodiscard]] size_t size() const { return used_; }

   private:
    static constexpr uint32_t kNil = UINT32_MAX;
    struct Node {
        Key key;
        uint32_t bucket_next = kNil;
        uint32_t older = kNil, newer = kNil;
    };
    [[nodiscard]] size_t bucket_of(const Key& key) const;
    [[nodiscard]] uint32_t find(const Key& key) const;
    void unlink(uint32_t n);
    void push_newest(uint32_t n);
    void drop_from_bucket(uint32_t n);

    uint64_t seed_;
    std::vector<Node> nodes_;
    std::vector<uint32_t> buckets_;
    uint32_t used_ = 0, newest_ = kNil, oldest_ = kNil;
};

enum class Trust : uint8_t { kNormal, kJailed };  ///< jailed: may only answer us

class Filter {
   public:
    static constexpr size_t kFlows = 2048;

    explicit Filter(uint64_t hash_seed);

    [[nodiscard]] Verdict check_in(const FilterTable& table, const Parsed& p, Trust trust);
    /// Records the flow of an accepted UDP or SCTP packet.
    [[nodiscard]] Verdict check_out(const Parsed& p, Trust trust);
    /// Call when the table in use changes. Turning shields up forgets flows; other changes keep them.
    void table_changed(const FilterTable& before, const FilterTable& after);

   private:
    [[nodiscard]] static Verdict pre(const Parsed& p, bool& decided);
    FlowTable normal_, jailed_;
    FlowTable::Key last_out_;  // bulk flows repeat one key; skip the table for them
    Trust last_trust_ = Trust::kNormal;
};

}  // namespace mesh::netstack
