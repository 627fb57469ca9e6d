// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/noise.h"

#include <gtest/gtest.h>

#include <deque>

namespace mesh::control {
namespace {

Bytes unhex(std::string_view text) {
    std::string clean;
    for (char c : text)
        if (c != ' ' && c != '\n') clean += c;
    Bytes out(clean.size() / 2);
    EXPECT_TRUE(hex_decode(clean, out));
    return out;
}
MachinePrivate private_key(std::string_view hex) {
    std::array<uint8_t, 32> raw{};
    EXPECT_TRUE(hex_decode(hex, raw));
    return MachinePrivate::from(raw);
}
MachinePublic public_key(std::string_view hex) { return MachinePublic::from(unhex(hex)); }

/// Gives out prepared bytes: the ephemeral keys of the vectors.
class ScriptedRandom final : public Random {
   public:
    explicit ScriptedRandom(Bytes bytes) : bytes_(bytes.begin(), bytes.end()) {}
    void fill(std::span<uint8_t> out) override {
        for (uint8_t& b : out) {
            ASSERT_FALSE(bytes_.empty());
            b = bytes_.front();
            bytes_.pop_front();
        }
    }

   private:
    std::deque<uint8_t> bytes_;
};

// Made by an independent implementation that works with Headscale; protocol version 142.
constexpr auto kClientPriv = "101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e6f";
constexpr auto kClientPub = "d89e3bad79437dbed9f843418304f460ff05c7fe81fe4a9577a804cb9367ff66";
constexpr auto kClientEph = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f";
constexpr auto kServerPriv = "707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e4f";
constexpr auto kServerPub = "23b7bb8c91ae008711fb12846780bcdf1e065f821bdfec49f57e7c7dcd4c4823";
constexpr auto kServerEph = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbe7f";
constexpr auto kInitiation =
    "008e01006079a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a3e3656b8d011d79289238e398d21992719757cfd"
    "dd7b176b1542816cfce2502caedaed1a31c4b3c2a3cfbd2c397d95388ed054c0b1eb3006f2567ffd8f72dcc4";
constexpr auto kResponse =
    "020030605a725d2a4adfeeb1a29e17edd621c1b7593ee8cdbc44ac6c4ab6e2f805d23cbdf2d14cd47d89c561f57ee4642cab00";
constexpr auto kHash = "497c18552cdf41573f2ecd54112a92e29ec2c18b5b8f17bb82e82c74b026f620";
constexpr auto kSendKey = "5665783869166e49aad30bcd50671cd7c425c681b3bbbace35db84f098000a53";
constexpr auto kReceiveKey = "771bd460054c522e7c03f74313525ad8298df7bd2df9f3d4415ccdd26fd4de45";
constexpr auto kRecord0 = "0400286914bb0a93fc676f22a915b4936217c3fc05a84634d24e89661485c39d27718ff38dd51f11232db4";
constexpr auto kRecord1 = "0400157f3624d9d598926e5dea3f312cb986cbe3c8e19ecf";
constexpr auto kServerRecord0 =
    "040078ff890c12df211cdfe8fad13b8e5baa024e676398c3c42ca5a176ed5822fc20c383b0804a1174a41c198e4b1cb42029bac6b3efc1791f"
    "05c21729a91f0865551bd224f3d72a60ae9e469bd4927cd7d15ae9a2074a91df01f18de836f1643043fca429983bdb39701a9aad2a5327cce1"
    "e1623a90995029a54e";
constexpr auto kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

NoiseKeys client_keys() {
    ScriptedRandom random(unhex(kClientEph));
    NoiseInitiator noise(private_key(kClientPriv), public_key(kServerPub), 142);
    EXPECT_EQ(hex_encode(noise.start(random).value()), kInitiation);
    return noise.finish(unhex(kResponse)).value();
}

TEST(NoiseVectors, ClientMakesTheInitiationAndTheSameKeys) {
    const NoiseKeys keys = client_keys();
    EXPECT_EQ(hex_encode(keys.handshake_hash), kHash);
    EXPECT_EQ(hex_encode(keys.send.bytes()), kSendKey);
    EXPECT_EQ(hex_encode(keys.receive.bytes()), kReceiveKey);
}

TEST(NoiseVectors, ServerReadsTheInitiationAndMakesTheResponse) {
    ScriptedRandom random(unhex(kServerEph));
    const NoiseAccepted a = noise_accept(unhex(kInitiation), private_key(kServerPriv), random).value();
    EXPECT_EQ(a.version, 142);
    EXPECT_EQ(hex_encode(a.machine.raw), kClientPub);
    EXPECT_EQ(hex_encode(a.response), kResponse);
    EXPECT_EQ(hex_encode(a.keys.handshake_hash), kHash);
    EXPECT_EQ(hex_encode(a.keys.send.bytes()), kReceiveKey);
    EXPECT_EQ(hex_encode(a.keys.receive.bytes()), kSendKey);
}

TEST(NoiseVectors, RecordsAreSealedAndOpened) {
    NoiseStream client(client_keys());
    Bytes wire;
    ASSERT_TRUE(client.seal(as_bytes(kPreface), wire));
    EXPECT_EQ(hex_encode(wire), kRecord0);
    wire.clear();
    ASSERT_TRUE(client.seal(as_bytes("hello"), wire));
    EXPECT_EQ(hex_encode(wire), kRecord1);

    Bytes plain;
    ASSERT_TRUE(client.open(unhex(kServerRecord0), plain));
    EarlyPayload early;
    Bytes rest;
    ASSERT_TRUE(early.feed(plain, rest));
    EXPECT_TRUE(rest.empty());
    EXPECT_EQ(early.json(),
              R"({"nodeKeyChallenge":"chalpub:79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a"})");
}

TEST(Noise, AWrongServerKeyOrVersionOrFlippedBitFailsTheHandshake) {
    SeededRandom random(1);
    const Bytes good = unhex(kInitiation);
    EXPECT_FALSE(noise_accept(good, private_key(kClientPriv), random));
    for (size_t i = 0; i < good.size(); ++i) {
        Bytes bad = good;
        bad[i] ^= 1;
        EXPECT_FALSE(noise_accept(bad, private_key(kServerPriv), random)) << i;
    }
    const Bytes response = unhex(kResponse);
    for (size_t i = 0; i < response.size(); ++i) {
        ScriptedRandom scripted(unhex(kClientEph));
        NoiseInitiator noise(private_key(kClientPriv), public_key(kServerPub), 142);
        ASSERT_TRUE(noise.start(scripted));
        Bytes bad = response;
        bad[i] ^= 1;
        EXPECT_FALSE(noise.finish(bad)) << i;
    }
    EXPECT_FALSE(noise_accept({}, private_key(kServerPriv), random));
}

TEST(Noise, AWeakServerKeyIsRefused) {
    SeededRandom random(2);
    NoiseInitiator noise(private_key(kClientPriv), MachinePublic{}, 142);
    EXPECT_FALSE(noise.start(random));
}

std::pair<NoiseKeys, NoiseKeys> handshake() {
    SeededRandom random(3);
    const MachinePrivate server = MachinePrivate::generate(random);
    NoiseInitiator i(MachinePrivate::generate(random), server.public_key(), 130);
    const auto init = i.start(random).value();
    const NoiseAccepted a = noise_accept(init, server, random).value();
    return {i.finish(a.response).value(), a.keys};
}

struct Pair {
    Pair() {
        static const auto keys = handshake();
        client.emplace(keys.first);
        serving.emplace(keys.second);
    }
    std::optional<NoiseStream> client, serving;
};

TEST(NoiseStream, OpensWhatTheOtherSideSealedAtEverySplitPoint) {
    Bytes text(9000);
    for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<uint8_t>(i * 7);
    Bytes wire;
    Pair sizes;
    ASSERT_TRUE(sizes.client->seal(text, wire));
    for (size_t split = 0; split <= wire.size(); split += split < 4200 ? 1 : 97) {
        Pair p;
        wire.clear();
        ASSERT_TRUE(p.client->seal(text, wire));
        Bytes plain;
        ASSERT_TRUE(p.serving->open(ByteSpan(wire).first(split), plain));
        ASSERT_TRUE(p.serving->open(ByteSpan(wire).subspan(split), plain));
        ASSERT_EQ(plain, text) << split;
    }
    Pair p;
    wire.clear();
    ASSERT_TRUE(p.client->seal(text, wire));
    Bytes plain;
    for (uint8_t b : wire) ASSERT_TRUE(p.serving->open({&b, 1}, plain));
    EXPECT_EQ(plain, text);
}

TEST(NoiseStream, NoFrameIsLongerThan4096Bytes) {
    Pair p;
    Bytes wire;
    ASSERT_TRUE(p.client->seal(Bytes(kMaxRecordPlain + 1), wire));
    EXPECT_EQ(load_be16(&wire[1]), 4093);
    EXPECT_EQ(wire.size(), 4096U + 3 + 17);
}

TEST(NoiseStream, AnEmptyRecordIsSkipped) {
    Pair p;
    // Seal of nothing makes no record, so an empty one is made by hand.
    Bytes wire(19);
    wire[0] = 4;
    store_be16(&wire[1], 16);
    uint8_t nonce[12] = {};
    const NoiseKeys keys = client_keys();
    crypto::aead_seal(&wire[3], {}, {}, nonce, keys.receive.bytes());
    NoiseStream s(keys);
    Bytes plain;
    EXPECT_TRUE(s.open(wire, plain));
    EXPECT_TRUE(plain.empty());
}

TEST(NoiseStream, ForgedOversizedAndForeignFramesEndTheConnectionForGood) {
    const auto dies = [](Bytes frame) {
        Pair p;
        Bytes plain;
        EXPECT_FALSE(p.client->open(frame, plain));
        EXPECT_TRUE(plain.empty());
        Bytes good;
        ASSERT_TRUE(p.serving->seal(as_bytes("x"), good));
        EXPECT_FALSE(p.client->open(good, plain));
        EXPECT_FALSE(p.client->seal(as_bytes("x"), good));
    };
    dies(unhex("040ffe00"));            // 4097 bytes with header
    dies(unhex("04ffff00"));
    dies(unhex("0400050000000000"));    // shorter than a tag
    dies(unhex("020003aabbcc"));        // a response after the handshake
    dies(unhex(kRecord1));              // sealed with other keys
}

TEST(NoiseStream, ARecordPlayedTwiceIsRefused) {
    Pair p;
    Bytes wire, plain;
    ASSERT_TRUE(p.client->seal(as_bytes("once"), wire));
    ASSERT_TRUE(p.serving->open(wire, plain));
    EXPECT_FALSE(p.serving->open(wire, plain));
}

TEST(ResponseReader, FindsTheResponseAtEverySplitPointAndLeavesTheRest) {
    Bytes stream = unhex(kResponse);
    stream.push_back(0x04);
    for (size_t split = 0; split <= stream.size(); ++split) {
        ResponseReader r;
        size_t used = r.feed(ByteSpan(stream).first(split)).value();
        used += r.feed(ByteSpan(stream).subspan(used)).value();
        EXPECT_TRUE(r.done());
        EXPECT_EQ(used, kResponseLen);
        EXPECT_EQ(hex_encode(r.frame()), kResponse);
    }
}

TEST(ResponseReader, TellsTheTextOfAnErrorFrame) {
    Bytes frame = {3, 0, 48};
    for (int i = 0; i < 48; ++i) frame.push_back('a');
    ResponseReader r;
    const auto result = r.feed(frame);
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().message().find("aaaa"), std::string::npos);
    ResponseReader other;
    EXPECT_FALSE(other.feed(as_bytes("HTTP/1.1 200 OK")));
}

TEST(EarlyPayload, IsSplitOffAtEverySplitPoint) {
    Bytes stream = EarlyPayload::encode(R"({"nodeKeyChallenge":"x"})");
    const std::string http2 = "the rest";
    stream.insert(stream.end(), http2.begin(), http2.end());
    for (size_t split = 0; split <= stream.size(); ++split) {
        EarlyPayload e;
        Bytes rest;
        ASSERT_TRUE(e.feed(ByteSpan(stream).first(split), rest));
        ASSERT_TRUE(e.feed(ByteSpan(stream).subspan(split), rest));
        EXPECT_EQ(as_text(rest), http2);
        EXPECT_TRUE(e.seen());
    }
}

TEST(EarlyPayload, WhenMissingEveryByteBelongsToHttp2) {
    for (const std::string& stream : {std::string("\0\0\x24\x04\0\0\0\0\0rest", 13), std::string("\xff\xff\xffTX..."),
                                     std::string("\xff")}) {
        EarlyPayload e;
        Bytes rest;
        ASSERT_TRUE(e.feed(as_bytes(stream), rest));
        if (stream.size() > 1) {
            EXPECT_EQ(as_text(rest), stream);
        }
        EXPECT_FALSE(e.seen());
    }
}

TEST(EarlyPayload, AHugeLengthIsRefused) {
    EarlyPayload e;
    Bytes rest;
    EXPECT_FALSE(e.feed(unhex("ffffff5453ffffffff"), rest));
}

}  // namespace
}  // namespace mesh::control
