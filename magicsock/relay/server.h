// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A UDP relay server: forwards datagrams between two clients that cannot reach each other but can reach it. Pure: bytes,
/// source, `now` and randomness in; where a datagram goes, or an answer, out.
///
///   1. allocate() makes an endpoint, which is a VNI, for the disco keys of two clients. Who may ask is decided outside.
///   2. Each client binds its leg: Bind → Challenge → Answer (disco::RelayBind). The challenge is a MAC over the client's address
///      and what it asked for, so the server remembers nothing of a Bind but its generation, and an address is bound only by one
///      who receives there. A further handshake, under a new generation, moves the leg.
///   3. What comes from the address of one bound leg goes unchanged to that of the other; everything else is dropped. Nothing is
///      forwarded before both legs are bound.
///
/// An endpoint that is not bound within 30 s ends, and one whose clients are both bound when either was silent for 5 min.
/// Source: tailscale/tailscale net/udprelay/server.go.

#include <array>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "base/secret.h"
#include "magicsock/disco/disco.h"
#include "magicsock/relay/geneve.h"

namespace mesh::relay {

inline constexpr Duration kBindLifetime = seconds(30);
inline constexpr Duration kSteadyLifetime = minutes(5);
inline constexpr Duration kCollectInterval = seconds(30);
inline constexpr Duration kMacSecretLifetime = minutes(2);  ///< and as long again as the one before

class Server {
   public:
    static constexpr size_t kMaxEndpoints = 4096;
    static constexpr size_t kMaxPerClient = 128;

    /// `random` must outlive this. The key is the server's own, not that of its node.
    Server(Random& random, const DiscoPrivate& key);

    [[nodiscard]] const DiscoPublic& disco_public() const { return public_; }
    /// Where clients may reach this server; told to them from the next allocation on. Empty: not ready, nothing is allocated.
    void set_addrs(std::vector<Endpoint> addrs);
    [[nodiscard]] const std::vector<Endpoint>& addrs() const { return addrs_; }

    /// The endpoint of these two clients, a new one if need be. nullopt: not ready, full, or no pair of clients.
    [[nodiscard]] std::optional<disco::RelayEndpoint> allocate(const DiscoPublic& a, const DiscoPublic& b, Time now);

    enum class Verdict : uint8_t { kDrop, kForward, kReply };
    struct Received {
        Verdict verdict = Verdict::kDrop;
        Endpoint to;  ///< kForward: the datagram goes there as it is; kReply: reply() goes there
    };
    /// One datagram, with its Geneve header. Forwarding allocates nothing.
    [[nodiscard]] Received receive(ByteSpan datagram, const Endpoint& from, Time now);
    [[nodiscard]] ByteSpan reply() const { return reply_; }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

    struct Client {
        DiscoPublic disco;
        Endpoint addr;  ///< invalid: not bound
        uint64_t packets = 0, bytes = 0;  ///< from it, forwarded
    };
    struct Session {
        uint32_t vni = 0;
        std::array<Client, 2> clients;
    };
    [[nodiscard]] std::vector<Session> sessions() const;  ///< by VNI
    /// Endpoints with both legs bound, and those on the way there.
    [[nodiscard]] size_t open() const { return open_; }
    [[nodiscard]] size_t connecting() const { return by_vni_.size() - open_; }

    /// Datagrams by what became of them.
    struct Counters {
        uint64_t challenges = 0, bound = 0;
        uint64_t foreign = 0;      ///< no Geneve header of ours
        uint64_t unknown_vni = 0;
        uint64_t unbound = 0;      ///< data before both clients were bound
        uint64_t wrong_source = 0; ///< data from neither leg
        uint64_t bad_control = 0;  ///< not sealed by a client of that endpoint, or with something wrong inside
        uint64_t refused = 0;      ///< allocations: not ready or full
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }

   private:
    struct Leg {
        DiscoPublic disco;
        disco::SharedKey shared;
        Endpoint addr;            // invalid: not bound
        uint32_t generation = 0;  // of the handshake under way; 0: none
        Time last_seen;
        uint64_t packets = 0, bytes = 0;
    };
    struct Entry {
        std::array<Leg, 2> legs;  // in the order of the sorted pair
        uint32_t vni = 0;
        uint64_t lamport = 0;
        Time allocated;
        [[nodiscard]] bool bound() const { return legs[0].addr.is_valid() && legs[1].addr.is_valid(); }
    };
    [[nodiscard]] bool expired(const Entry& e, Time now) const;
    [[nodiscard]] disco::RelayEndpoint describe(const Entry& e) const;
    void erase(uint32_t vni);
    [[nodiscard]] uint32_t next_vni();
    Received control(Entry& e, ByteSpan sealed, const Endpoint& from, Time now);
    void rotate(Time now);
    [[nodiscard]] static std::array<uint8_t, 32> mac(const LockedKey& secret, const disco::RelayBind& m, const Endpoint& from);

    Random& random_;
    DiscoPrivate private_;
    DiscoPublic public_;
    std::vector<Endpoint> addrs_;
    std::unordered_map<uint32_t, Entry> by_vni_;
    std::unordered_map<DiscoPublic, std::vector<uint32_t>> by_client_;
    size_t open_ = 0;
    uint32_t next_vni_ = 1;
    uint64_t lamport_ = 0;
    std::array<LockedKey, 2> secrets_;  // newest first
    Time rotated_;
    Time collect_at_ = Time::never();
    Bytes reply_;
    Counters counters_;
};

}  // namespace mesh::relay
