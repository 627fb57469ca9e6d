// SPDX-License-Identifier: BSD-3-Clause
// Any bytes from a relay or a client. Both sessions end in events or errors, and how the stream was cut changes neither:
// the events of the whole stream and of its pieces are the same.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "magicsock/derp/client_session.h"
#include "magicsock/derp/server_session.h"
#include "tests/fuzz/growth.h"

namespace {

using namespace mesh;

constexpr Time kNow{1'000'000'000};

/// What came out of a session: events as text (an error is an error, whatever it says), and the bytes it wants to send.
struct Outcome {
    std::vector<std::string> events;
    Bytes sent;
    bool operator==(const Outcome&) const = default;
};

template <class Session>
void take_output(Session& session, Outcome& out) {
    for (ByteSpan w = session.writable(kNow); !w.empty(); w = session.writable(kNow)) {
        out.sent.insert(out.sent.end(), w.begin(), w.end());
        session.wrote(w.size(), kNow);
    }
}

/// The first byte chooses the mode and the size of the pieces, the rest is the stream.
Outcome client(ByteSpan stream, size_t piece, bool fast) {
    SeededRandom random(1);
    derp::ClientConfig config;
    config.node_key = NodePrivate::generate(random);
    derp::ClientSession session(random, config);
    derp::ClientStart start;
    start.host = "h";
    if (fast) start.fast_start_key = NodePrivate::generate(random).public_key();
    session.start(start, kNow);
    Outcome out;
    take_output(session, out);
    const auto take = [&] {
        while (const derp::Event* e = session.next_event(kNow)) {
            CHECK(e->packet.size() <= derp::kMaxPacket);
            out.events.push_back(std::to_string(static_cast<int>(e->kind)) + e->key.text() + std::string(as_text(e->packet)) + e->text);
            for (uint8_t& b : e->packet) b = static_cast<uint8_t>(b + 1);  // in place, as WireGuard does
        }
    };
    while (!stream.empty()) {
        const size_t n = std::min(piece, stream.size());
        session.feed(stream.first(n), kNow);
        stream = stream.subspan(n);
        take();
    }
    take_output(session, out);
    session.closed("");
    take();
    CHECK(session.failed());
    session.handle_timeout(kNow + seconds(60));
    CHECK(session.queued_bytes() == 0 || session.failed());
    return out;
}

Outcome server(ByteSpan stream, size_t piece) {
    SeededRandom random(2);
    derp::ServerSessionConfig config;
    config.server_key = NodePrivate::generate(random);
    config.mesh_key.bytes().fill(0xaa);
    derp::ServerSession session(random, config, kNow);
    const NodePrivate key = NodePrivate::generate(random);
    derp::ClientInfo info;
    info.version = 2;
    if (piece % 2 == 0) info.mesh_key = config.mesh_key;
    Bytes login;
    const auto sealed = derp::seal_client_info(info, key, config.server_key.public_key(), random);
    CHECK(sealed);
    derp::append_frame(login, derp::FrameType::kClientInfo, *sealed);
    session.feed(login);
    CHECK(session.next_event(kNow));
    session.accept(kNow);
    CHECK(session.logged_in() && session.is_mesh_peer() == (piece % 2 == 0));
    Outcome out;
    fuzz::equipment_ready();
    while (!stream.empty()) {
        const size_t n = std::min(piece, stream.size());
        Bytes lent = to_bytes(stream.first(n));  // memory of its own: reading on after settle() is noticed
        stream = stream.subspan(n);
        session.lend(lent);
        while (const derp::ServerEvent* e = session.next_event(kNow)) {
            using Kind = derp::ServerEvent::Kind;
            CHECK(e->packet.size() <= derp::kMaxPacket);
            if (!session.is_mesh_peer()) CHECK(e->kind != Kind::kForward && e->kind != Kind::kWatchConns && e->kind != Kind::kClosePeer);
            out.events.push_back(std::to_string(static_cast<int>(e->kind)) + e->key.text() + e->source.text() + std::string(as_text(e->packet)));
            if (e->kind == Kind::kPacket) session.deliver(e->key, e->packet, kNow);
        }
        session.settle();
    }
    take_output(session, out);
    session.handle_timeout(kNow + seconds(60));
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    const size_t piece = 1 + data[0] % 64;
    const ByteSpan stream(data + 1, size - 1);
    if ((data[0] & 0x80) != 0) {
        const size_t large = 8192 + (piece % 2);  // the parity says who logs in
        CHECK(server(stream, piece) == server(stream, large));
    } else {
        const bool fast = (data[0] & 0x40) != 0;
        CHECK(client(stream, piece, fast) == client(stream, 8192, fast));
    }
    return 0;
}
