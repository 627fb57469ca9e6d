// SPDX-License-Identifier: BSD-3-Clause
// Relays on several loops against one alone: what clients get must not depend on how many loops there are, nor on when what
// one loop tells another arrives.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <tuple>

#include "derper/note_buffer.h"
#include "derper/relay_net.h"

namespace mesh::derper {
namespace {

using derp::FrameType;
using derp::GoneReason;

uint64_t seeds() { return std::getenv("MESH_FULL") != nullptr ? 400 : 12; }

struct FakeMesh final : Forwarder {
    std::vector<std::tuple<NodePublic, NodePublic, Bytes>> got;
    void forward(const NodePublic& from, const NodePublic& to, ByteSpan packet, Time) override { got.emplace_back(from, to, to_bytes(packet)); }
};

Bytes numbered(uint32_t n, bool disco = false) {
    Bytes p = disco ? disco_packet() : Bytes(40, 1);
    store_be32(p.data() + p.size() - 4, n);
    return p;
}
uint32_t number_of(ByteSpan packet) { return load_be32(packet.data() + packet.size() - 4); }

GoneReason reason_of(const Net::Got& g) { return static_cast<GoneReason>(g.payload.back()); }

TEST(Relays, APacketForAKeyOfAnotherLoopArrivesAndItsAnswersComeBack) {
    Net n(3);
    const auto ka = n.key_at(1), kb = n.key_at(2);
    const ConnId a = n.connect(ka), b = n.connect(kb);
    n.packet(a, kb.public_key(), numbered(1));
    EXPECT_TRUE(n.take(b).empty());
    n.settle();
    auto got = n.take(b);
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(got[0].key(), ka.public_key());
    EXPECT_EQ(number_of(got[0].packet()), 1U);

    // Nobody has that key: once a second and three at once, as on one loop.
    const NodePublic nobody = n.key_at(0).public_key();
    n.packet(a, nobody, numbered(2));
    for (int i = 0; i < 10; ++i) n.packet(a, nobody, disco_packet());
    n.settle();
    got = n.take(a);
    ASSERT_EQ(got.size(), 3U);
    EXPECT_EQ(reason_of(got[0]), GoneReason::kNotHere);
    EXPECT_EQ(got[0].key(), nobody);
    EXPECT_EQ(n.stats().dropped_unknown.total(), 11U);

    n.disconnect(a);
    n.settle();
    got = n.take(b);
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(got[0].type, FrameType::kPeerGone);
    EXPECT_EQ(reason_of(got[0]), GoneReason::kDisconnected);
}

TEST(Relays, WhoReturnsAtOnceIsGoneBeforeItsNewPacketsAndNotAfter) {
    Net n(2);
    const auto ka = n.key_at(0), kb = n.key_at(1);
    ConnId a = n.connect(ka);
    const ConnId b = n.connect(kb);
    n.packet(a, kb.public_key(), numbered(1));
    n.disconnect(a);
    a = n.connect(ka);
    n.packet(a, kb.public_key(), numbered(2));
    n.settle();
    const auto got = n.take(b);
    ASSERT_EQ(got.size(), 3U);
    // Control frames go first when several wait; the relay's own order shows in who hears of the next departure.
    n.disconnect(a);
    n.settle();
    EXPECT_EQ(n.take(b).size(), 1U) << "the second packet came after the first departure";
}

TEST(Relays, AMeshPeerIsReachedAtTheFrontWhateverItsKey) {
    Net n(4);
    const auto ka = n.key_at(3), peer = n.key_at(2);
    const ConnId a = n.connect(ka), p = n.connect(peer, true);
    n.settle();
    n.packet(a, peer.public_key(), numbered(1));
    n.settle();
    EXPECT_EQ(n.take(p).size(), 1U);
    n.packet(p, ka.public_key(), numbered(2));
    n.settle();
    EXPECT_EQ(n.take(a).size(), 1U);
    n.disconnect(p);
    n.settle();
    EXPECT_EQ(n.take(a).size(), 1U) << "it is gone";
    n.packet(a, peer.public_key(), disco_packet());
    n.settle();
    EXPECT_EQ(reason_of(n.take(a).at(0)), GoneReason::kNotHere);
}

TEST(Relays, AKeyThatMovesToAnotherRelayIsNotGone) {
    Net n(3);
    FakeMesh link;
    const auto ka = n.key_at(1), kb = n.key_at(2);
    const ConnId a = n.connect(ka), b = n.connect(kb);
    n.packet(a, kb.public_key(), numbered(1));
    n.relay.add_forwarder(ka.public_key(), link);
    n.settle();
    n.disconnect(a);
    n.packet(b, ka.public_key(), numbered(2));
    n.settle();
    EXPECT_EQ(n.take(b).size(), 1U) << "the packet, no departure";
    ASSERT_EQ(link.got.size(), 1U);
    EXPECT_EQ(std::get<0>(link.got[0]), kb.public_key());
    // From there it sends on, and is gone from the region when that link loses it.
    (void)n.relay.forwarded(ka.public_key(), kb.public_key(), numbered(3), n.now);
    n.settle();
    EXPECT_EQ(n.take(b).size(), 1U);
    // A forwarded packet for somebody who is known from the mesh only is not forwarded again.
    (void)n.relay.forwarded(kb.public_key(), ka.public_key(), numbered(4), n.now);
    n.settle();
    EXPECT_EQ(link.got.size(), 1U);
    EXPECT_EQ(n.stats().dropped_unknown_forward.total(), 1U);
    n.relay.remove_forwarder(ka.public_key(), link, n.now);
    n.settle();
    EXPECT_EQ(n.take(b).size(), 1U);
}

TEST(Relays, NotesCrossAsBytes) {
    Bytes buffer;
    const NodePublic one = NodePublic::from(Bytes(32, 1)), two = NodePublic::from(Bytes(32, 2));
    put_note(buffer, {.kind = Note::Kind::kPacket, .loop = 3, .conn = 7, .source = one, .key = two}, numbered(9));
    put_note(buffer, {.kind = Note::Kind::kGone, .key = one}, {});
    put_note(buffer, {.kind = Note::Kind::kForward, .key = two}, Bytes(derp::kMaxPacket, 5));
    ByteSpan left = buffer, packet;
    Note note;
    ASSERT_TRUE(take_note(left, note, packet));
    EXPECT_EQ(note.loop, 3);
    EXPECT_EQ(note.conn, 7U);
    EXPECT_EQ(note.source, one);
    EXPECT_EQ(note.key, two);
    EXPECT_EQ(to_bytes(packet), numbered(9));
    ASSERT_TRUE(take_note(left, note, packet));
    EXPECT_TRUE(note.kind == Note::Kind::kGone && note.key == one && packet.empty());
    ASSERT_TRUE(take_note(left, note, packet));
    EXPECT_EQ(packet.size(), derp::kMaxPacket);
    EXPECT_FALSE(take_note(left, note, packet));
}

/// The same life on one loop and on several: who comes and goes is settled before the next burst of packets, within which
/// everything arrives in any order that loops may cause.
struct Twins {
    explicit Twins(uint64_t seed) : dice(seed), one(1, seed), many(2 + seed % 4, seed) {}

    struct Peer {
        NodePrivate key;
        std::vector<ConnId> conns;  // the same ids in both
        bool mesh_peer = false;
    };
    SeededRandom dice;
    Net one, many;
    FakeMesh one_links[2], many_links[2];
    std::vector<Peer> peers;
    uint32_t number = 0;

    template <class F>
    void both(F&& f) {
        f(one, one_links);
        f(many, many_links);
        many.settle();
    }
    Peer& any() { return peers[dice.below(static_cast<uint32_t>(peers.size()))]; }

    void change() {
        Peer& p = any();
        const NodePublic key = p.key.public_key();
        const auto link = dice.below(2);
        switch (dice.below(p.mesh_peer ? 3 : 7)) {
            case 0:
            case 1:
                if (p.conns.size() < 3) {
                    ConnId id = 0;
                    both([&](Net& n, FakeMesh*) { id = n.connect(p.key, p.mesh_peer); });
                    if (p.mesh_peer && dice.below(2) == 0) both([&](Net& n, FakeMesh*) { n.relay_of(id).watch(id, n.now); });
                    p.conns.push_back(id);
                }
                break;
            case 2:
            case 3:
                if (!p.conns.empty()) {
                    const auto at = static_cast<ptrdiff_t>(dice.below(static_cast<uint32_t>(p.conns.size())));
                    compare();  // what the connection got goes with it
                    both([&](Net& n, FakeMesh*) { n.disconnect(p.conns[static_cast<size_t>(at)]); });
                    p.conns.erase(p.conns.begin() + at);
                }
                break;
            case 4: both([&](Net& n, FakeMesh* links) { n.relay.add_forwarder(key, links[link]); }); break;
            case 5: both([&](Net& n, FakeMesh* links) { n.relay.remove_forwarder(key, links[link], n.now); }); break;
            case 6:
                if (!p.conns.empty()) {
                    const ConnId speaks = p.conns[dice.below(static_cast<uint32_t>(p.conns.size()))];
                    both([&](Net& n, FakeMesh*) { n.relay_of(speaks).activity(speaks); });
                    std::erase(p.conns, speaks);  // the active one is the last in our list
                    p.conns.push_back(speaks);
                }
                break;
        }
    }
    void burst() {
        const uint32_t packets = dice.below(30);
        for (uint32_t i = 0; i < packets; ++i) {
            Peer& from = any();
            const NodePublic to = any().key.public_key();
            const Bytes packet = numbered(++number, dice.below(3) == 0);
            if (from.conns.empty() && !from.mesh_peer) {
                (void)one.relay.forwarded(from.key.public_key(), to, packet, one.now);
                (void)many.relay.forwarded(from.key.public_key(), to, packet, many.now);
            } else if (!from.conns.empty()) {
                one.packet(from.conns.back(), to, packet);
                many.packet(from.conns.back(), to, packet);
            }
            for (uint32_t k = dice.below(4); k > 0; --k) (void)many.step();
        }
        many.settle();
    }
    /// By source in order; of the frames that are no packets which ones there are. Whom "not here" names depends on the order
    /// of arrival, so only their number counts.
    struct Seen {
        std::map<NodePublic, std::vector<uint32_t>> packets;
        std::multiset<std::pair<FrameType, Bytes>> others;
        size_t not_here = 0;
        bool operator==(const Seen&) const = default;
    };
    static Seen seen(Net& n, ConnId id) {
        Seen s;
        for (const Net::Got& g : n.take(id)) {
            if (g.type == FrameType::kRecvPacket)
                s.packets[g.key()].push_back(number_of(g.packet()));
            else if (g.type == FrameType::kPeerGone && reason_of(g) == GoneReason::kNotHere)
                ++s.not_here;
            else
                s.others.emplace(g.type, g.payload);
        }
        return s;
    }
    static std::map<std::pair<NodePublic, NodePublic>, std::vector<uint32_t>> seen(FakeMesh& link) {
        std::map<std::pair<NodePublic, NodePublic>, std::vector<uint32_t>> out;
        for (const auto& [from, to, packet] : link.got) out[{from, to}].push_back(number_of(packet));
        link.got.clear();
        return out;
    }
    void compare() {
        for (const Peer& p : peers)
            for (const ConnId id : p.conns) ASSERT_EQ(seen(one, id), seen(many, id)) << "connection " << id;
        for (size_t i = 0; i < 2; ++i) ASSERT_EQ(seen(one_links[i]), seen(many_links[i]));
    }
    void compare_counts() {
        const RelayStats a = one.stats(), b = many.stats();
        EXPECT_EQ(a.packets_in, b.packets_in);
        EXPECT_EQ(a.packets_out, b.packets_out);
        EXPECT_EQ(a.dropped_unknown.total(), b.dropped_unknown.total());
        EXPECT_EQ(a.dropped_unknown_forward.total(), b.dropped_unknown_forward.total());
        EXPECT_EQ(a.forwarded_out, b.forwarded_out);
        EXPECT_EQ(a.forwarded_in, b.forwarded_in);
        EXPECT_EQ(a.gone_disconnected, b.gone_disconnected);
        EXPECT_EQ(a.gone_not_here, b.gone_not_here);
        EXPECT_EQ(a.connections, b.connections);
        EXPECT_EQ(a.clients, b.clients);
        EXPECT_EQ(a.duplicate_keys, b.duplicate_keys);
        EXPECT_EQ(a.remote_clients, b.remote_clients);
        EXPECT_EQ(a.watchers, b.watchers);
    }
};

TEST(Relays, SeveralLoopsDoWhatOneDoes) {
    for (uint64_t seed = 1; seed <= seeds(); ++seed) {
        SCOPED_TRACE(seed);
        Twins t(seed);
        for (int i = 0; i < 12; ++i) t.peers.push_back({t.many.key(), {}, i < 2});
        for (int round = 0; round < 60; ++round) {
            t.change();
            t.burst();
            t.one.now = t.many.now = t.one.now + milliseconds(400);
            t.compare();
            if (::testing::Test::HasFatalFailure()) return;
        }
        t.compare_counts();
        if (::testing::Test::HasFailure()) return;
    }
}

/// Everybody comes and goes while packets and news are under way; what must hold when all has arrived.
TEST(Relays, WhateverIsUnderWayNobodyMissesADepartureOrHearsOfAFalseOne) {
    struct Client {
        NodePrivate key;
        ConnId conn = 0;
        uint32_t came = 0;  // packets with a lower number are of an earlier stay
    };
    for (uint64_t seed = 1; seed <= 2 * seeds(); ++seed) {
        SCOPED_TRACE(seed);
        SeededRandom dice(seed + 1000);
        Net n(2 + seed % 5, seed);
        FakeMesh link;
        std::vector<Client> clients;
        for (int i = 0; i < 10; ++i) clients.push_back({n.key(), 0, 0});
        std::set<NodePublic> by_mesh;
        struct Log {
            std::map<NodePublic, uint32_t> last_packet;
            std::set<NodePublic> gone_since;
            std::multiset<NodePublic> present;
        };
        std::map<ConnId, Log> logs;
        const NodePrivate watcher_key = n.key();
        ConnId watcher = 0;
        uint32_t number = 0;
        const auto read = [&](ConnId id) {
            Log& log = logs[id];
            // The session sends control frames before packets: read often, so that the order within a reading does not matter.
            for (const Net::Got& g : n.take(id)) {
                if (g.type == FrameType::kRecvPacket) {
                    const uint32_t got = number_of(g.packet());
                    uint32_t& last = log.last_packet[g.key()];
                    EXPECT_LT(last, got) << "twice or out of order";
                    last = got;
                    log.gone_since.erase(g.key());
                } else if (g.type == FrameType::kPeerGone) {
                    EXPECT_EQ(reason_of(g), GoneReason::kDisconnected);
                    log.gone_since.insert(g.key());
                    log.present.erase(g.key());
                } else if (g.type == FrameType::kPeerPresent) {
                    log.present.insert(g.key());
                }
            }
        };
        const auto read_all = [&] {
            for (const auto& [id, conn] : n.conns) read(id);
        };
        const auto step = [&] {
            const bool more = n.step();
            read_all();
            return more;
        };
        for (int i = 0; i < 400; ++i) {
            Client& c = clients[dice.below(10)];
            const NodePublic other = clients[dice.below(10)].key.public_key();
            switch (dice.below(12)) {
                case 0:
                    if (c.conn == 0) {
                        c.came = ++number;
                        c.conn = n.connect(c.key);
                    }
                    break;
                case 1:
                    if (c.conn != 0) {
                        logs.erase(c.conn);
                        n.disconnect(std::exchange(c.conn, 0));
                    }
                    break;
                case 2:
                    n.relay.add_forwarder(c.key.public_key(), link);
                    by_mesh.insert(c.key.public_key());
                    break;
                case 3:
                    n.relay.remove_forwarder(c.key.public_key(), link, n.now);
                    by_mesh.erase(c.key.public_key());
                    break;
                case 4:
                    if (watcher == 0) {
                        watcher = n.connect(watcher_key, true);
                        n.relay.watch(watcher, n.now);
                    } else if (dice.below(4) == 0) {
                        logs.erase(watcher);
                        n.disconnect(std::exchange(watcher, 0));
                    }
                    break;
                default:
                    if (c.conn != 0) n.packet(c.conn, other, numbered(++number));
                    break;
            }
            read_all();
            for (uint32_t k = dice.below(4); k > 0; --k) (void)step();
        }
        while (step()) {
        }
        const RelayStats all = n.stats();
        EXPECT_EQ(all.packets_in, all.packets_out + all.dropped_unknown.total() + all.forwarded_out) << "every packet has an end";
        EXPECT_EQ(all.forwarded_out, link.got.size());

        std::multiset<NodePublic> here;
        for (const Client& c : clients) {
            const NodePublic key = c.key.public_key();
            if (c.conn != 0) here.insert(key);
            for (const auto& [id, log] : logs) {
                const auto last = log.last_packet.find(key);
                if (last == log.last_packet.end()) continue;
                const bool told_gone = log.gone_since.contains(key);
                EXPECT_TRUE(told_gone || c.conn != 0 || by_mesh.contains(key)) << "missed a departure";
                EXPECT_FALSE(told_gone && c.conn != 0 && last->second > c.came) << "heard of a departure that was none";
            }
        }
        if (watcher != 0) {
            auto& present = logs[watcher].present;
            present.erase(watcher_key.public_key());
            EXPECT_EQ(present, here) << "what the watcher knows";
        }
        if (::testing::Test::HasFailure()) return;
    }
}

}  // namespace
}  // namespace mesh::derper
