// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// For tests only: a node made of the real Device, with a recording Output and a data plane of a few lines.

#include <deque>
#include <string>
#include <vector>

#include "base/crypto/crypto.h"
#include "wg/device.h"

namespace mesh::wg::testing {

inline constexpr Time kStart{1'000'000'000'000};
inline constexpr WallTime kWallStart{1'700'000'000'000'000'000};

inline Source source_of(uint32_t host, uint16_t port = 41641) {
    Source s;
    s.udp = Endpoint{Addr::v4(host), port};
    return s;
}

/// One node. What it sends lies in `sent` until the test delivers or drops it.
class Node : public Output {
   public:
    explicit Node(uint64_t seed, Time now = kStart) : random(seed), device(random, *this) {
        crypto::init();
        key = NodePrivate::generate(random);
        device.set_wall_clock(kWallStart + (now - kStart), now);
        device.set_private_key(key, now);
    }

    bool send_to_peer(PeerId peer, ByteSpan datagram, Time now) override {
        ++tries;
        if (!path) return false;
        sent.push_back(to_bytes(datagram));
        sent_at.push_back(now);
        last_peer = peer;
        return true;
    }
    void reply(const Source&, ByteSpan datagram, Time) override { replies.push_back(to_bytes(datagram)); }
    bool knows(const Source& source) const override { return source.udp == known.udp; }
    void session_ready(PeerId peer, Time now) override {
        ++ready;
        Bytes packet;
        while (device.take_staged(peer, packet)) transmit(peer, packet, now);
    }
    void authenticated(PeerId, const Source& from, Time) override { authenticated_from.push_back(from); }

    /// What the data plane does with one packet.
    void transmit(PeerId peer, ByteSpan packet, Time now) {
        Session* const s = device.send_session(peer, now);
        if (s == nullptr) {
            device.stage(peer, packet, now);
            return;
        }
        Bytes slot(kDataHeader + packet.size() + kPadding + kTag);
        if (!packet.empty()) std::memcpy(slot.data() + kDataHeader, packet.data(), packet.size());
        slot.resize(device.seal(*s, slot.data(), packet.size(), 0));
        device.sent_data(peer, slot.size(), now);
        sent.push_back(slot);
        sent_at.push_back(now);
    }
    void transmit(PeerId peer, std::string_view text, Time now) { transmit(peer, as_bytes(text), now); }

    Device::Opened deliver(Bytes datagram, Time now, const Source& from = source_of(0x0a000001)) {
        const Device::Opened o = device.receive(datagram, from, now);
        last_drop = o.drop;
        if (o.kind == Device::Opened::kData) {
            std::string text(as_text(o.plain));
            while (!text.empty() && text.back() == '\0') text.pop_back();
            received.push_back(text);
            device.received_data(o.peer, datagram.size(), now);
        }
        return o;
    }
    Bytes take() {
        if (sent.empty()) return {};
        Bytes b = sent.front();
        sent.pop_front();
        sent_at.pop_front();
        return b;
    }
    void forget_sent() {
        sent.clear();
        sent_at.clear();
    }
    [[nodiscard]] bool has_session(PeerId peer, Time now) const { return device.stats(peer, now).has_session; }

    SeededRandom random;
    NodePrivate key;
    bool path = true;
    Source known;  ///< the only place where a peer was last seen
    std::deque<Bytes> sent;
    std::deque<Time> sent_at;
    std::vector<Bytes> replies;
    std::vector<std::string> received;
    std::vector<Source> authenticated_from;
    DropReason last_drop = DropReason::kNone;
    PeerId last_peer = kNoPeer;
    int ready = 0;
    int tries = 0;
    Device device;
};

/// A node after a restart: its key and its peer 0 are all it knows.
struct Restarted : Node {
    Restarted(const Node& before, const Node& peer, Duration clock_ahead, Time now) : Node(99) {
        device.set_private_key(before.key, now);
        device.set_wall_clock(kWallStart + clock_ahead, now);
        device.add_peer(0, peer.key.public_key());
    }
};

inline uint32_t type_of(const Bytes& b) { return b.size() < 4 ? 0 : load_le32(b.data()); }

/// Times since kStart at which `n` sent datagrams of one type, in ms.
inline std::vector<int64_t> times_of(const Node& n, uint32_t type) {
    std::vector<int64_t> out;
    for (size_t i = 0; i < n.sent.size(); ++i)
        if (type_of(n.sent[i]) == type) out.push_back((n.sent_at[i] - kStart).millis());
    return out;
}

/// Two nodes that know each other as peer 0, with a perfect wire of no delay.
struct Pair {
    Node a{1}, b{2};
    Time now = kStart;

    Pair() { introduce(); }
    void introduce() {
        a.device.add_peer(0, b.key.public_key());
        b.device.add_peer(0, a.key.public_key());
    }
    /// Delivers until both are silent.
    void settle() {
        while (!a.sent.empty() || !b.sent.empty()) {
            if (!a.sent.empty()) (void)b.deliver(a.take(), now, source_of(0x0a000001));
            if (!b.sent.empty()) (void)a.deliver(b.take(), now, source_of(0x0a000002));
        }
    }
    /// Time passes in the steps the devices ask for; nothing is delivered unless `wire`.
    void advance(Duration d, bool wire = true) {
        const Time end = now + d;
        for (;;) {
            const Time t = min(a.device.next_timeout(), b.device.next_timeout());
            if (t > end) break;
            now = max(now, t);
            a.device.handle_timeout(now);
            b.device.handle_timeout(now);
            if (wire) settle();
        }
        now = end;
    }
    /// A session with `a` as the initiator, confirmed.
    void connect() {
        a.transmit(0, "hello", now);
        settle();
    }
};

/// As Pair, but a minute after the start of both, when a silent session is not taken for dead so soon.
struct CalmPair : Pair {
    CalmPair() { now = kStart + seconds(60); }
};

}  // namespace mesh::wg::testing
