// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/frame.h"

#include <gtest/gtest.h>

#include "base/crypto/crypto.h"
#include "magicsock/derp/login.h"
#include "magicsock/derp/send_queue.h"

namespace mesh::derp {
namespace {

using Side = FrameReader::Side;
using Next = FrameReader::Next;

Bytes filled(size_t n, uint8_t value) { return Bytes(n, value); }

TEST(DerpFrame, HeaderIsTypeAndBigEndianLength) {
    Bytes out;
    append_frame(out, FrameType::kPing, filled(8, 1));
    EXPECT_EQ(hex_encode(out), "12000000080101010101010101");
    out.clear();
    append_frame(out, FrameType::kSendPacket, filled(32, 2), filled(3, 3));
    EXPECT_EQ(hex_encode(ByteSpan(out).first(5)), "0400000023");
    EXPECT_EQ(out.size(), 5U + 35U);
}

TEST(DerpFrame, FramesComeOutTheSameAtEverySplit) {
    Bytes stream;
    append_frame(stream, FrameType::kRecvPacket, filled(32, 9), filled(40, 7));
    append_frame(stream, static_cast<FrameType>(0x77), filled(50, 1));  // unknown
    append_frame(stream, FrameType::kKeepAlive, {});
    append_frame(stream, FrameType::kPeerGone, filled(32, 5), filled(1, 1));
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        FrameReader r(Side::kClient);
        std::vector<std::pair<FrameType, Bytes>> got;
        const auto drain = [&] {
            Frame f;
            while (r.next(f) == Next::kFrame) got.emplace_back(f.type, Bytes(f.payload.begin(), f.payload.end()));
        };
        r.append(ByteSpan(stream).first(cut));
        drain();
        r.append(ByteSpan(stream).subspan(cut));
        drain();
        ASSERT_EQ(got.size(), 3U) << cut;
        EXPECT_EQ(got[0].first, FrameType::kRecvPacket);
        EXPECT_EQ(got[0].second.size(), 72U);
        EXPECT_EQ(got[1].first, FrameType::kKeepAlive);
        EXPECT_EQ(got[2].second.back(), 1);
        EXPECT_EQ(r.skipped_frames(), 1U);
        EXPECT_TRUE(r.raw().empty());
    }
}

TEST(DerpFrame, LongUnknownFramesAreSkippedWithoutBeingKept) {
    FrameReader r(Side::kServer);
    Bytes head(5);
    put_frame_header(head.data(), static_cast<FrameType>(0x60), 3'000'000);
    r.append(head);
    Frame f;
    EXPECT_EQ(r.next(f), Next::kNeedMore);
    for (int i = 0; i < 3000; ++i) {
        r.append(filled(1000, 0));
        ASSERT_EQ(r.next(f), Next::kNeedMore);
        ASSERT_TRUE(r.raw().empty());
    }
    Bytes ping;
    append_frame(ping, FrameType::kPing, filled(8, 1));
    r.append(ping);
    EXPECT_EQ(r.next(f), Next::kFrame);
}

TEST(DerpFrame, LentBytesGiveTheSameFramesWhateverTheSplit) {
    SeededRandom random(11);
    Bytes stream;
    std::vector<Bytes> sent;
    for (int i = 0; i < 400; ++i) {
        const bool unknown = random.below(8) == 0;
        const Bytes body = filled(32 + random.below(random.below(4) == 0 ? 20000 : 300), static_cast<uint8_t>(i));
        append_frame(stream, unknown ? static_cast<FrameType>(0x7f) : FrameType::kSendPacket, body);
        if (!unknown) sent.push_back(body);
    }
    FrameReader r(Side::kServer);
    std::vector<Bytes> got;
    for (size_t at = 0; at < stream.size();) {
        // Memory of its own that is gone after settle().
        Bytes piece(stream.begin() + static_cast<ptrdiff_t>(at), stream.begin() + static_cast<ptrdiff_t>(std::min(stream.size(), at + 1 + random.below(9000))));
        at += piece.size();
        if (random.below(5) == 0) {
            r.append(piece);
        } else {
            r.lend(piece);
        }
        Frame f;
        // Now and then somebody stops reading in the middle.
        for (uint32_t left = random.below(3) == 0 ? random.below(4) : 1'000'000; left > 0 && r.next(f) == Next::kFrame; --left)
            got.push_back(to_bytes(f.payload));
        r.settle();
        std::fill(piece.begin(), piece.end(), uint8_t{0xee});
    }
    Frame f;
    while (r.next(f) == Next::kFrame) got.push_back(to_bytes(f.payload));
    EXPECT_EQ(got, sent);
}

TEST(DerpFrame, LengthsAboveTheLimitEndTheStream) {
    Bytes head(5);
    Frame f;
    FrameReader client(Side::kClient);
    put_frame_header(head.data(), static_cast<FrameType>(0x60), (1U << 20) + 1);
    client.append(head);
    EXPECT_EQ(client.next(f), Next::kTooLarge);
    FrameReader server(Side::kServer);
    put_frame_header(head.data(), FrameType::kSendPacket, kKeyLen + kMaxPacket + 1);
    server.append(head);
    EXPECT_EQ(server.next(f), Next::kTooLarge);
    FrameReader largest(Side::kServer);
    Bytes frame;
    append_frame(frame, FrameType::kSendPacket, filled(32, 1), filled(kMaxPacket, 2));
    largest.append(frame);
    EXPECT_EQ(largest.next(f), Next::kFrame);
}

TEST(DerpFrame, OnlyLongEnoughPacketsWithTheMagicLookLikeDisco) {
    Bytes p = {'T', 'S', 0xf0, 0x9f, 0x92, 0xac};
    EXPECT_FALSE(looks_like_disco(p));
    p.resize(61);
    EXPECT_FALSE(looks_like_disco(p));
    p.resize(62);
    EXPECT_TRUE(looks_like_disco(p));
    p[0] = 't';
    EXPECT_FALSE(looks_like_disco(p));
}

TEST(DerpSendQueue, KeepsOrderAcrossTheWrapAndDropsTheOldestWhenFull) {
    SendQueue q(1000);
    size_t dropped = 0;
    for (uint8_t i = 0; i < 100; ++i) dropped += q.push(filled(50, i), filled(46, i)).frames;
    EXPECT_EQ(q.frames(), 10U);
    EXPECT_EQ(dropped, 90U);
    for (uint8_t i = 90; i < 100; ++i) {
        Bytes out;
        EXPECT_EQ(q.front_len(), 96U);
        q.pop_into(out);
        EXPECT_EQ(out, filled(96, i));
    }
    EXPECT_TRUE(q.empty());
    EXPECT_EQ(q.bytes(), 0U);
}

TEST(DerpSendQueue, SomeFramesAreKeptHoweverLarge) {
    SendQueue q(100, 3);
    size_t dropped = 0;
    for (uint8_t i = 0; i < 5; ++i) dropped += q.push(filled(1000, i)).frames;
    EXPECT_EQ(dropped, 2U);
    EXPECT_EQ(q.frames(), 3U);
    for (uint8_t i = 0; i < 20; ++i) dropped += q.push(filled(10, i)).frames;
    EXPECT_EQ(q.frames(), 7U) << "7 * 14 bytes";
    EXPECT_EQ(dropped, 2U + 3U + 13U);
}

TEST(DerpSendQueue, InterleavedUseAgainstAModel) {
    SeededRandom random(7);
    SendQueue q(40000);
    std::vector<Bytes> model;
    for (int step = 0; step < 20000; ++step) {
        if (random.below(2) == 0) {
            const Bytes frame = filled(random.below(3000), static_cast<uint8_t>(step));
            size_t bytes = frame.size() + 4;
            for (const Bytes& b : model) bytes += b.size() + 4;
            size_t dropped = 0, dropped_bytes = 0;
            while (bytes > 40000) {
                bytes -= model.front().size() + 4;
                dropped_bytes += model.front().size();
                model.erase(model.begin());
                ++dropped;
            }
            model.push_back(frame);
            const SendQueue::Dropped d = q.push(frame);
            ASSERT_EQ(d.frames, dropped);
            ASSERT_EQ(d.bytes, dropped_bytes);
        } else if (!model.empty()) {
            Bytes out;
            q.pop_into(out);
            ASSERT_EQ(out, model.front());
            model.erase(model.begin());
        }
        ASSERT_EQ(q.frames(), model.size());
    }
}

TEST(DerpSendQueue, AFrameThatCanNeverFitIsDropped) {
    SendQueue q(100);
    EXPECT_EQ(q.push(filled(97, 0)).frames, 1U);
    EXPECT_TRUE(q.empty());
    EXPECT_EQ(q.push(filled(96, 0)).frames, 0U);
}

TEST(DerpLogin, BoxesOpenOnlyForTheRightKeys) {
    SeededRandom random(1);
    const auto client = NodePrivate::generate(random);
    const auto server = NodePrivate::generate(random);
    const auto other = NodePrivate::generate(random);
    ClientInfo info;
    info.version = 2;
    info.can_ack_pings = true;
    info.mesh_key.bytes().fill(0xaa);
    const Bytes sealed = *seal_client_info(info, client, server.public_key(), random);
    const auto opened = open_client_info(sealed, server);
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->key, client.public_key());
    EXPECT_EQ(opened->info.mesh_key, info.mesh_key);
    EXPECT_TRUE(opened->info.can_ack_pings);
    EXPECT_FALSE(open_client_info(sealed, other));
    for (size_t i = 0; i < sealed.size(); ++i) {
        Bytes bad = sealed;
        bad[i] ^= 1;
        EXPECT_FALSE(open_client_info(bad, server)) << i;
        EXPECT_FALSE(open_client_info(ByteSpan(sealed).first(i), server)) << i;
    }
    const Bytes answer = *seal_server_info({.version = 2, .token_bucket_bytes_per_second = 1000,
                                            .token_bucket_bytes_burst = 2000}, server, client.public_key(), random);
    EXPECT_EQ(open_server_info(answer, client, server.public_key())->token_bucket_bytes_burst, 2000);
    EXPECT_FALSE(open_server_info(answer, other, server.public_key()));
}

TEST(DerpLogin, ServerKeyNeedsTheMagic) {
    Bytes payload = to_bytes(kMagic);
    payload.resize(40, 3);
    ASSERT_TRUE(parse_server_key(payload));
    payload.push_back(1);  // later versions may append
    EXPECT_TRUE(parse_server_key(payload));
    payload[0] ^= 1;
    EXPECT_FALSE(parse_server_key(payload));
    EXPECT_FALSE(parse_server_key(ByteSpan(payload).first(39)));
}

}  // namespace
}  // namespace mesh::derp
