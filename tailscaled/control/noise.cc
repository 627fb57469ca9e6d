// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/noise.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace mesh::control {
namespace {

constexpr std::string_view kProtocol = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
constexpr uint8_t kTypeInitiation = 1;
constexpr uint8_t kTypeResponse = 2;
constexpr uint8_t kTypeError = 3;
constexpr uint8_t kTypeRecord = 4;
constexpr uint8_t kEarlyMagic[5] = {0xff, 0xff, 0xff, 'T', 'S'};
constexpr uint8_t kZeroNonce[12] = {};

/// Noise's symmetric state (specification, section 5.2).
struct Symmetric {
    crypto::Hash32 h = crypto::blake2s(as_bytes(kProtocol));
    LockedKey ck{h};

    void mix_hash(ByteSpan data) { h = crypto::blake2s(h, data); }
    [[nodiscard]] bool mix_dh(LockedKey& key, const crypto::Key32& secret, const crypto::Key32& point) {
        LockedKey shared, next;
        if (!crypto::x25519(shared.bytes(), secret, point)) return false;
        crypto::hkdf2(next.bytes(), key.bytes(), ck.bytes(), shared.bytes());
        ck = std::move(next);
        return true;
    }
    void seal(uint8_t* out, ByteSpan plain, const LockedKey& key) {
        crypto::aead_seal(out, plain, h, kZeroNonce, key.bytes());
        mix_hash({out, plain.size() + crypto::kTagLen});
    }
    [[nodiscard]] bool open(uint8_t* out, ByteSpan sealed, const LockedKey& key) {
        if (!crypto::aead_open(out, sealed, h, kZeroNonce, key.bytes())) return false;
        mix_hash(sealed);
        return true;
    }
};

void mix_prologue(Symmetric& s, int version, const MachinePublic& server) {
    s.mix_hash(as_bytes(fmt::format("Tailscale Control Protocol v{}", version)));
    s.mix_hash(server.bytes());
}

tl::unexpected<Error> weak_key() { return fail(Code::kDenied, "the peer's key is a weak curve point"); }

}  // namespace

NoiseInitiator::NoiseInitiator(const MachinePrivate& machine, const MachinePublic& server, int version)
    : machine_(machine), server_(server), version_(version) {}

Result<std::array<uint8_t, kInitiationLen>> NoiseInitiator::start(Random& random) {
    ephemeral_ = MachinePrivate::generate(random);
    Symmetric s;
    mix_prologue(s, version_, server_);

    std::array<uint8_t, kInitiationLen> out{};
    store_be16(out.data(), static_cast<uint16_t>(version_));
    out[2] = kTypeInitiation;
    store_be16(&out[3], 96);
    const MachinePublic e = ephemeral_.public_key();
    std::copy(e.raw.begin(), e.raw.end(), out.begin() + 5);
    s.mix_hash(e.bytes());
    LockedKey key;
    if (!s.mix_dh(key, ephemeral_.secret(), server_.raw)) return weak_key();
    s.seal(&out[37], machine_.public_key().bytes(), key);
    if (!s.mix_dh(key, machine_.secret(), server_.raw)) return weak_key();
    s.seal(&out[85], {}, key);
    h_ = s.h;
    ck_ = s.ck;
    return out;
}

Result<NoiseKeys> NoiseInitiator::finish(ByteSpan response) {
    if (response.size() != kResponseLen || response[0] != kTypeResponse || load_be16(&response[1]) != 48)
        return fail(Code::kInvalid, "malformed Noise response");
    Symmetric s;
    s.h = h_;
    s.ck = ck_;
    crypto::Key32 e{};
    std::copy_n(response.begin() + 3, 32, e.begin());
    s.mix_hash(e);
    LockedKey key;
    if (!s.mix_dh(key, ephemeral_.secret(), e)) return weak_key();
    if (!s.mix_dh(key, machine_.secret(), e)) return weak_key();
    uint8_t nothing[1];
    if (!s.open(nothing, response.subspan(35), key))
        return fail(Code::kDenied, "the server does not hold the key it announced");
    NoiseKeys keys;
    crypto::hkdf2(keys.send.bytes(), keys.receive.bytes(), s.ck.bytes(), {});
    keys.handshake_hash = s.h;
    return keys;
}

Result<NoiseAccepted> noise_accept(ByteSpan initiation, const MachinePrivate& server, Random& random) {
    if (initiation.size() != kInitiationLen || initiation[2] != kTypeInitiation || load_be16(&initiation[3]) != 96)
        return fail(Code::kInvalid, "malformed Noise initiation");
    NoiseAccepted out;
    out.version = load_be16(initiation.data());
    Symmetric s;
    mix_prologue(s, out.version, server.public_key());
    crypto::Key32 e{};
    std::copy_n(initiation.begin() + 5, 32, e.begin());
    s.mix_hash(e);
    LockedKey key;
    if (!s.mix_dh(key, server.secret(), e)) return weak_key();
    if (!s.open(out.machine.raw.data(), initiation.subspan(37, 48), key))
        return fail(Code::kDenied, "initiation was made for another server key or version");
    if (!s.mix_dh(key, server.secret(), out.machine.raw)) return weak_key();
    uint8_t nothing[1];
    if (!s.open(nothing, initiation.subspan(85), key))
        return fail(Code::kDenied, "the client does not hold its machine key");

    const MachinePrivate mine = MachinePrivate::generate(random);
    out.response[0] = kTypeResponse;
    store_be16(&out.response[1], 48);
    const MachinePublic mine_public = mine.public_key();
    std::copy(mine_public.raw.begin(), mine_public.raw.end(), out.response.begin() + 3);
    s.mix_hash(mine_public.bytes());
    if (!s.mix_dh(key, mine.secret(), e)) return weak_key();
    if (!s.mix_dh(key, mine.secret(), out.machine.raw)) return weak_key();
    s.seal(&out.response[35], {}, key);
    crypto::hkdf2(out.keys.receive.bytes(), out.keys.send.bytes(), s.ck.bytes(), {});
    out.keys.handshake_hash = s.h;
    return out;
}

Status NoiseStream::seal(ByteSpan plain, Bytes& wire) {
    while (!plain.empty()) {
        if (dead_ || send_nonce_ == UINT64_MAX) {
            dead_ = true;
            return fail(Code::kUnavailable, "control connection is used up");
        }
        const ByteSpan part = plain.first(std::min(plain.size(), kMaxRecordPlain));
        plain = plain.subspan(part.size());
        const size_t at = wire.size();
        const size_t sealed = part.size() + crypto::kTagLen;
        wire.resize(at + 3 + sealed);
        wire[at] = kTypeRecord;
        store_be16(&wire[at + 1], static_cast<uint16_t>(sealed));
        uint8_t nonce[12];
        crypto::nonce_be(nonce, send_nonce_++);
        crypto::aead_seal(&wire[at + 3], part, {}, nonce, keys_.send.bytes());
    }
    return {};
}

Status NoiseStream::open(ByteSpan wire, Bytes& plain) {
    if (dead_) return fail(Code::kUnavailable, "control connection is used up");
    while (!wire.empty()) {
        // Complete the header, then the frame, without holding more than one frame.
        size_t want = 3;
        if (partial_.size() >= 3) want = 3U + load_be16(&partial_[1]);
        if (want > kMaxRecordFrame) {
            dead_ = true;
            return fail(Code::kInvalid, fmt::format("Noise record of {} bytes is too long", want));
        }
        if (partial_.empty() && wire.size() >= 3) {
            const size_t whole = 3U + load_be16(&wire[1]);
            if (whole <= kMaxRecordFrame && wire.size() >= whole) {
                TRY(open_frame(wire.first(whole), plain));
                wire = wire.subspan(whole);
                continue;
            }
        }
        const size_t take = std::min(wire.size(), want - partial_.size());
        partial_.insert(partial_.end(), wire.begin(), wire.begin() + static_cast<std::ptrdiff_t>(take));
        wire = wire.subspan(take);
        if (partial_.size() >= 3 && partial_.size() == 3U + load_be16(&partial_[1])) {
            TRY(open_frame(partial_, plain));
            partial_.clear();
        }
    }
    return {};
}

Status NoiseStream::open_frame(ByteSpan frame, Bytes& plain) {
    const ByteSpan sealed = frame.subspan(3);
    if (frame[0] != kTypeRecord || sealed.size() < crypto::kTagLen || receive_nonce_ == UINT64_MAX) {
        dead_ = true;
        return fail(Code::kInvalid, fmt::format("unexpected Noise frame of type {}", frame[0]));
    }
    uint8_t nonce[12];
    crypto::nonce_be(nonce, receive_nonce_++);
    const size_t at = plain.size();
    plain.resize(at + sealed.size() - crypto::kTagLen);
    uint8_t none[1];
    if (!crypto::aead_open(plain.size() > at ? &plain[at] : none, sealed, {}, nonce, keys_.receive.bytes())) {
        plain.resize(at);
        dead_ = true;
        return fail(Code::kDenied, "forged Noise record");
    }
    return {};
}

Result<size_t> ResponseReader::feed(ByteSpan wire) {
    size_t used = 0;
    while (used < wire.size() && !done_) {
        frame_.push_back(wire[used++]);
        if (frame_.size() < 3) continue;
        const size_t len = load_be16(&frame_[1]);
        if (frame_[0] == kTypeResponse) {
            if (len != 48) return fail(Code::kInvalid, "malformed Noise response");
            done_ = frame_.size() == kResponseLen;
        } else if (frame_[0] == kTypeError) {
            if (len > kMaxRecordFrame) return fail(Code::kInvalid, "malformed Noise error frame");
            if (frame_.size() == 3 + len)
                return fail(Code::kDenied, fmt::format("the server refused the handshake: {}",
                                                       log::printable(as_text(ByteSpan(frame_).subspan(3)))));
        } else {
            return fail(Code::kInvalid, "the server did not answer with a Noise response");
        }
    }
    return used;
}

Status EarlyPayload::feed(ByteSpan plain, Bytes& rest) {
    while (!plain.empty()) {
        if (state_ == State::kDone) {
            rest.insert(rest.end(), plain.begin(), plain.end());
            return {};
        }
        if (state_ == State::kHeader) {
            head_.push_back(plain[0]);
            plain = plain.subspan(1);
            const size_t n = std::min(head_.size(), sizeof kEarlyMagic);
            if (!std::equal(head_.begin(), head_.begin() + static_cast<std::ptrdiff_t>(n), kEarlyMagic)) {
                state_ = State::kDone;  // no early payload: these bytes are HTTP/2
                rest.insert(rest.end(), head_.begin(), head_.end());
            } else if (head_.size() == 9) {
                left_ = load_be32(&head_[5]);
                if (left_ > kMaxBytes) return fail(Code::kLimit, "early payload is too long");
                state_ = left_ == 0 ? State::kDone : State::kBody;
            }
            continue;
        }
        const size_t take = std::min(left_, plain.size());
        json_.insert(json_.end(), plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(take));
        plain = plain.subspan(take);
        left_ -= take;
        if (left_ == 0) state_ = State::kDone;
    }
    return {};
}

Bytes EarlyPayload::encode(std::string_view json) {
    Bytes out(kEarlyMagic, kEarlyMagic + sizeof kEarlyMagic);
    WireWriter w(out);
    w.be32(static_cast<uint32_t>(json.size()));
    w.bytes(as_bytes(json));
    return out;
}

}  // namespace mesh::control
