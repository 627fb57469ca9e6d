// SPDX-License-Identifier: BSD-3-Clause
// A WebSocket client of the relay. First byte odd: the rest is a frame stream as it stands; however it is cut, the same
// payload, the same answers and the same end come out. Even: the rest describes well-formed messages, and their payload
// must arrive.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "derper/websocket.h"

using namespace mesh;
using derper::WebSocketReader;
using Event = WebSocketReader::Event;

namespace {

struct Seen {
    Bytes data, replies;
    Event end = Event::kNeedMore;
    bool operator==(const Seen&) const = default;
};

Seen read(ByteSpan stream, size_t piece) {
    WebSocketReader reader;
    Seen seen;
    Bytes buffer;
    while (!stream.empty() && seen.end == Event::kNeedMore) {
        const ByteSpan part = stream.first(std::min(piece, stream.size()));
        stream = stream.subspan(part.size());
        buffer.assign(part.begin(), part.end());
        MutByteSpan rest(buffer);
        for (;;) {
            const Event e = reader.next(rest);
            if (e == Event::kNeedMore) break;
            const ByteSpan out = e == Event::kData ? ByteSpan(reader.data()) : reader.reply();
            CHECK(e == Event::kData ? !out.empty() : out.size() >= 2 && out.size() <= 127 && (out[1] & 0x80) == 0);
            Bytes& sink = e == Event::kData ? seen.data : seen.replies;
            sink.insert(sink.end(), out.begin(), out.end());
            if (e == Event::kClose || e == Event::kError) {
                seen.end = e;
                break;
            }
        }
        if (seen.end == Event::kNeedMore) CHECK(rest.empty());
    }
    return seen;
}

/// Three bytes describe a message: length, how it is cut in two, what control frame comes between.
void well_formed(WireReader r, size_t piece) {
    Bytes stream, want;
    const auto frame = [&](uint8_t first, ByteSpan payload, uint8_t mask) {
        Bytes head;
        derper::put_websocket_header(head, payload.size());
        head[0] = first;
        head[1] |= 0x80;
        stream.insert(stream.end(), head.begin(), head.end());
        for (const uint8_t m : {mask, uint8_t(mask ^ 1), uint8_t(7), mask}) stream.push_back(m);
        const uint8_t masks[4] = {mask, uint8_t(mask ^ 1), 7, mask};
        for (size_t i = 0; i < payload.size(); ++i) stream.push_back(payload[i] ^ masks[i % 4]);
    };
    size_t pings = 0;
    while (r.remaining() >= 3 && stream.size() < 8192) {
        const uint8_t length = r.u8(), cut = r.u8(), control = r.u8();
        Bytes payload(size_t{length} * 3, control);
        want.insert(want.end(), payload.begin(), payload.end());
        const size_t at = std::min<size_t>(cut, payload.size());
        if (cut == 0) {
            frame(0x82, payload, control);
            continue;
        }
        frame(0x02, ByteSpan(payload).first(at), control);
        if (control % 3 == 1) {
            frame(0x89, ByteSpan(payload).first(std::min<size_t>(at, 125)), cut);
            ++pings;
        } else if (control % 3 == 2) {
            frame(0x8a, {}, cut);
        }
        frame(0x80, ByteSpan(payload).subspan(at), cut);
    }
    const Seen seen = read(stream, piece);
    CHECK(seen.end == Event::kNeedMore && seen.data == want && (seen.replies.empty() == (pings == 0)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    const size_t piece = 1 + data[1] % 64;
    const ByteSpan rest(data + 2, size - 2);
    if (data[0] % 2 == 0) {
        well_formed(WireReader(rest), piece);
        return 0;
    }
    CHECK(read(rest, std::max<size_t>(rest.size(), 1)) == read(rest, piece));
    return 0;
}
