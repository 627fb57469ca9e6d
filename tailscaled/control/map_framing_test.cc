// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/map_framing.h"

#include <gtest/gtest.h>
#include <zstd.h>

namespace mesh::control {
namespace {

using Coding = MapFrameReader::Coding;

struct Sink {
    std::vector<std::string> texts;
    std::function<Status(std::string_view)> f = [this](std::string_view t) -> Status {
        texts.emplace_back(t);
        return {};
    };
};

Bytes joined(const std::vector<Bytes>& parts) {
    Bytes out;
    for (const Bytes& p : parts) out.insert(out.end(), p.begin(), p.end());
    return out;
}

Bytes with_length(const Bytes& body, uint32_t length) {
    Bytes out;
    WireWriter w(out);
    w.le32(length);
    w.bytes(body);
    return out;
}

Bytes compressed(const std::string& text, bool checksum = false) {
    Bytes out(ZSTD_compressBound(text.size()));
    ZSTD_CCtx* c = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum ? 1 : 0);
    out.resize(ZSTD_compress2(c, out.data(), out.size(), text.data(), text.size()));
    ZSTD_freeCCtx(c);
    return out;
}

TEST(MapFraming, FramesArriveWholeAtEverySplitPoint) {
    for (Coding coding : {Coding::kPlain, Coding::kZstd}) {
        const Bytes stream = joined({encode_map_frame("{\"a\":1}", coding), encode_map_frame("", coding),
                                     encode_map_frame(std::string(3000, 'x'), coding)});
        for (size_t split = 0; split <= stream.size(); ++split) {
            MapFrameReader r(coding);
            Sink sink;
            ASSERT_TRUE(r.feed(ByteSpan(stream).first(split), sink.f));
            ASSERT_TRUE(r.feed(ByteSpan(stream).subspan(split), sink.f));
            ASSERT_EQ(sink.texts.size(), 3U) << split;
            EXPECT_EQ(sink.texts[0], "{\"a\":1}");
            EXPECT_EQ(sink.texts[1], "");
            EXPECT_EQ(sink.texts[2].size(), 3000U);
        }
    }
}

TEST(MapFraming, LengthsAreLittleEndian) {
    const Bytes f = encode_map_frame(std::string(258, 'x'), Coding::kPlain);
    EXPECT_EQ(hex_encode(ByteSpan(f).first(4)), "02010000");
}

TEST(MapFraming, AHugeLengthIsRefusedBeforeAnythingIsKept) {
    MapFrameReader r(Coding::kZstd);
    Sink sink;
    EXPECT_FALSE(r.feed(with_length({}, 0xffffffff), sink.f));
    EXPECT_FALSE(r.feed(encode_map_frame("{}", Coding::kZstd), sink.f)) << "the error is final";
    EXPECT_TRUE(sink.texts.empty());
}

TEST(MapFraming, AnAnnouncedLengthCostsNoMemoryUntilTheBytesCome) {
    MapFrameReader r(Coding::kPlain);
    Sink sink;
    EXPECT_TRUE(r.feed(with_length({'a'}, kMaxMapFrame), sink.f));
    EXPECT_TRUE(sink.texts.empty());
}

TEST(MapFraming, ChecksumsAreVerified) {
    const std::string text(1000, 'y');
    Bytes good = compressed(text, true);
    EXPECT_EQ(zstd_decompress(good, 4096).value(), text);
    good.back() ^= 1;
    EXPECT_FALSE(zstd_decompress(good, 4096));
}

TEST(MapFraming, ZstdBombsAreRefused) {
    const Bytes bomb = compressed(std::string(100U << 20, '\0'));
    ASSERT_LT(bomb.size(), 20'000U);
    EXPECT_FALSE(zstd_decompress(bomb, kMaxMapJson));
    // The same without an announced size: it is noticed while decompressing.
    ZSTD_CCtx* c = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
    Bytes quiet(1U << 20);
    const std::string zeros(8U << 20, '\0');
    quiet.resize(ZSTD_compress2(c, quiet.data(), quiet.size(), zeros.data(), zeros.size()));
    ZSTD_freeCCtx(c);
    EXPECT_FALSE(zstd_decompress(quiet, 1U << 20));
    EXPECT_EQ(zstd_decompress(quiet, 8U << 20 | 1).value().size(), zeros.size());
}

TEST(MapFraming, CutShortAndForeignDataAreErrors) {
    const Bytes whole = compressed(std::string(1000, 'z'));
    for (size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(zstd_decompress(ByteSpan(whole).first(n), 4096)) << n;
    EXPECT_FALSE(zstd_decompress(as_bytes("{\"plain\":\"json\"}"), 4096));
}

TEST(MapFraming, AnErrorOfTheReceiverEndsTheStream) {
    MapFrameReader r(Coding::kPlain);
    const Bytes two = joined({encode_map_frame("a", Coding::kPlain), encode_map_frame("b", Coding::kPlain)});
    int calls = 0;
    EXPECT_FALSE(r.feed(two, [&](std::string_view) -> Status {
        ++calls;
        return fail(Code::kInvalid, "bad");
    }));
    EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace mesh::control
