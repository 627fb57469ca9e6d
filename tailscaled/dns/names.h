// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The names this node answers by itself: peers, extra records, reverse names, 4via6. Pure: bytes in, bytes out, one
/// immutable table, so the packet loop answers without asking anybody.
///
/// Behaviour as the original's at 100.100.100.100 (recorded, samples/linux/40): time to live 5 s; peers have one A record
/// and no AAAA unless the control server asks for it; unknown names inside our zones do not exist (NXDOMAIN with SOA); what
/// is nobody's here is forwarded.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/dns_message.h"

namespace mesh::dns {

class NameTable {
   public:
    /// Names in any spelling (case, final dot). An address added twice under one name counts once; at most 16 per name.
    void add_host(std::string_view name, const Addr& addr);
    /// Replaces what was known of that name: extra records override peers.
    void set_host(std::string_view name, std::vector<Addr> addrs);
    /// The name an address is called by; the first one wins.
    void add_reverse(const Addr& addr, std::string_view name);
    /// Everything inside is ours: what is not known there does not exist.
    void add_zone(std::string_view zone);
    /// Names below this host resolve to it (node attribute dns-subdomain-resolve).
    void add_wildcard(std::string_view name) { wildcards_.insert(canonical(name)); }
    /// Tailnet's suffix: "b" is looked up as "b.SUFFIX" too.
    void set_suffix(std::string_view suffix) { suffix_ = canonical(suffix); }

    [[nodiscard]] const std::vector<Addr>* host(std::string_view canonical_name) const;
    [[nodiscard]] const std::string* reverse(const Addr& addr) const;
    /// The zone of ours that holds this name, the longest; nullptr if none.
    [[nodiscard]] const std::string* zone_of(std::string_view canonical_name) const;
    [[nodiscard]] const std::string& suffix() const { return suffix_; }
    [[nodiscard]] const std::unordered_set<std::string>& zones() const { return zones_; }

   private:
    std::unordered_map<std::string, std::vector<Addr>> hosts_;
    std::unordered_map<Addr, std::string> reverse_;
    std::unordered_set<std::string> zones_;
    std::unordered_set<std::string> wildcards_;
    std::string suffix_;
};

enum class Outcome : uint8_t {
    kAnswered,  ///< `reply` goes back
    kForward,   ///< a good query for somebody else's name
    kIgnore,    ///< no query at all: silence
};
/// Answers one query. Replies may be longer than the client takes over UDP; see fit_udp().
[[nodiscard]] Outcome answer(const NameTable& names, ByteSpan query, Bytes& reply);
/// `reply`, or if it is too long for this client over UDP, the one that sends it to TCP.
[[nodiscard]] Bytes fit_udp(ByteSpan query, Bytes reply);
/// The answer for a query that could not be answered in time or at all.
[[nodiscard]] Bytes failure(ByteSpan query, Rcode rcode);

}  // namespace mesh::dns
