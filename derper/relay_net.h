// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Relays of several loops in one thread, for tests: clients are joined to them by real sessions, frames that clients get are
/// read back from the bytes, and what one loop tells another waits until the test lets it arrive.

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "derper/relay.h"

namespace mesh::derper {

inline Bytes disco_packet() {
    Bytes p = {'T', 'S', 0xf0, 0x9f, 0x92, 0xac};
    p.resize(80, 1);
    return p;
}

struct Net {
    struct Got {
        derp::FrameType type;
        Bytes payload;
        [[nodiscard]] NodePublic key() const { return NodePublic::from(ByteSpan(payload).first(32)); }
        [[nodiscard]] ByteSpan packet() const { return ByteSpan(payload).subspan(32); }
    };
    struct OnItsWay {
        Note note;
        Bytes packet;
    };
    /// The siblings as loop `self` sees them.
    struct View final : Siblings {
        Net& net;
        size_t self;
        View(Net& n, size_t s) : net(n), self(s) {}
        [[nodiscard]] size_t loops() const override { return net.relays.size(); }
        [[nodiscard]] size_t home(const NodePublic& key) const override { return net.home(key); }
        bool tell(size_t loop, const Note& note, ByteSpan packet) override {
            EXPECT_NE(loop, self);
            net.roads[{self, loop}].push_back({note, to_bytes(packet)});
            return true;
        }
    };
    struct Conn {
        size_t loop = 0;
        std::unique_ptr<derp::ServerSession> session;
    };

    SeededRandom random;
    Time now{seconds(100).ns};
    NodePrivate server_key = NodePrivate::generate(random);
    std::map<std::pair<size_t, size_t>, std::deque<OnItsWay>> roads;
    std::vector<std::unique_ptr<View>> views;
    std::vector<std::unique_ptr<Relay>> relays;
    Relay& relay;  ///< the front's
    std::map<ConnId, Conn> conns;
    ConnId next = 1;

    explicit Net(size_t loops = 1, uint64_t seed = 5) : random(seed), relay(make(loops)) {}
    Relay& make(size_t loops) {
        for (size_t i = 0; i < loops; ++i) {
            views.push_back(std::make_unique<View>(*this, i));
            relays.push_back(std::make_unique<Relay>(loops > 1 ? views.back().get() : nullptr, i));
        }
        return *relays.front();
    }
    [[nodiscard]] size_t home(const NodePublic& key) const { return key.raw[0] % relays.size(); }

    ConnId connect(const NodePrivate& key, bool mesh_peer = false) {
        const LockedKey mesh_key = [] {
            LockedKey k;
            std::fill(k.bytes().begin(), k.bytes().end(), uint8_t{7});
            return k;
        }();
        derp::ServerSessionConfig c;
        c.server_key = server_key;
        c.mesh_key = mesh_key;
        auto s = std::make_unique<derp::ServerSession>(random, c, now);
        derp::ClientInfo info;
        info.version = 2;
        if (mesh_peer) info.mesh_key = mesh_key;
        Bytes login;
        derp::append_frame(login, derp::FrameType::kClientInfo, *derp::seal_client_info(info, key, server_key.public_key(), random));
        s->feed(login);
        EXPECT_TRUE(s->next_event(now));
        EXPECT_EQ(s->is_mesh_peer(), mesh_peer);
        s->accept(now);
        const ConnId id = next++;
        const size_t loop = mesh_peer ? kFront : home(key.public_key());
        relays[loop]->add(id, *s, {}, now);
        conns[id] = {loop, std::move(s)};
        (void)take(id);
        return id;
    }
    Relay& relay_of(ConnId id) { return *relays[conns.at(id).loop]; }
    void disconnect(ConnId id) {
        relay_of(id).remove(id, now);
        conns.erase(id);
    }
    void packet(ConnId from, const NodePublic& to, ByteSpan packet) { (void)relay_of(from).packet(from, to, packet, now); }
    /// What the client was sent since the last call.
    std::vector<Got> take(ConnId id) {
        derp::FrameReader r(derp::FrameReader::Side::kClient);
        derp::ServerSession& s = *conns.at(id).session;
        while (!s.writable(now).empty()) {
            const ByteSpan w = s.writable(now);
            r.append(w);
            s.wrote(w.size(), now);
        }
        std::vector<Got> out;
        derp::Frame f;
        while (r.next(f) == derp::FrameReader::Next::kFrame) out.push_back({f.type, to_bytes(f.payload)});
        return out;
    }
    /// One note arrives, of a road chosen at random. False: nothing is under way.
    bool step() {
        std::vector<std::pair<size_t, size_t>> busy;
        for (const auto& [road, notes] : roads)
            if (!notes.empty()) busy.push_back(road);
        if (busy.empty()) return false;
        const auto road = busy[random.below(static_cast<uint32_t>(busy.size()))];
        const OnItsWay first = std::move(roads[road].front());
        roads[road].pop_front();
        (void)relays[road.second]->hear(road.first, first.note, first.packet, now);
        return true;
    }
    void settle() {
        while (step()) {
        }
    }
    [[nodiscard]] RelayStats stats() const {
        RelayStats sum;
        for (const auto& r : relays) sum += r->stats();
        return sum;
    }
    NodePrivate key() { return NodePrivate::generate(random); }
    /// One whose home is that loop.
    NodePrivate key_at(size_t loop) {
        for (;;)
            if (const NodePrivate k = key(); home(k.public_key()) == loop) return k;
    }
};

}  // namespace mesh::derper
