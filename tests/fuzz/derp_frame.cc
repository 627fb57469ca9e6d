// SPDX-License-Identifier: BSD-3-Clause
// Any bytes from a relay or a client: both sessions must end in events or errors, never in a crash.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "magicsock/derp/client_session.h"
#include "magicsock/derp/server_session.h"

namespace {

using namespace mesh;

/// The first byte chooses the mode and the size of the pieces, the rest is the stream.
void client(ByteSpan stream, size_t piece, bool fast) {
    SeededRandom random(1);
    derp::ClientConfig config;
    config.node_key = NodePrivate::generate(random);
    derp::ClientSession session(random, config);
    derp::ClientStart start;
    start.host = "h";
    if (fast) start.fast_start_key = NodePrivate::generate(random).public_key();
    Time now{1'000'000'000};
    session.start(start, now);
    while (!stream.empty()) {
        const size_t n = std::min(piece, stream.size());
        session.feed(stream.first(n), now);
        stream = stream.subspan(n);
        while (const derp::Event* e = session.next_event(now))
            for (uint8_t& b : e->packet) b = static_cast<uint8_t>(b + 1);  // in place, as WireGuard does
        while (!session.writable(now).empty()) session.wrote(session.writable(now).size(), now);
        now = now + milliseconds(100);
        session.handle_timeout(now);
    }
    session.closed("");
    while (session.next_event(now)) {
    }
}

void server(ByteSpan stream, size_t piece) {
    SeededRandom random(2);
    Time now{1'000'000'000};
    derp::ServerSessionConfig config;
    config.server_key = NodePrivate::generate(random);
    derp::ServerSession session(random, config, now);
    const NodePrivate key = NodePrivate::generate(random);
    derp::ClientInfo info;
    info.version = 2;
    Bytes login;
    const auto sealed = derp::seal_client_info(info, key, config.server_key.public_key(), random);
    if (sealed) derp::append_frame(login, derp::FrameType::kClientInfo, *sealed);
    session.feed(login);
    if (session.next_event(now)) session.accept(now);
    while (!stream.empty()) {
        const size_t n = std::min(piece, stream.size());
        session.feed(stream.first(n));
        stream = stream.subspan(n);
        while (const derp::ServerEvent* e = session.next_event(now))
            if (e->kind == derp::ServerEvent::Kind::kPacket) session.deliver(e->key, e->packet, now);
        while (!session.writable(now).empty()) session.wrote(session.writable(now).size(), now);
        session.handle_timeout(now);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    const size_t piece = 1 + data[0] % 64;
    const ByteSpan stream(data + 1, size - 1);
    if (data[0] & 0x80)
        server(stream, piece);
    else
        client(stream, piece, (data[0] & 0x40) != 0);
    return 0;
}
