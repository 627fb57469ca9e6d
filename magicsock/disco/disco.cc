// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/disco/disco.h"

#include <algorithm>

namespace mesh::disco {
namespace {

constexpr size_t kEndpointLen = 18;
constexpr size_t kMaxPadding = 65000;

Endpoint read_endpoint(WireReader& r) {
    uint8_t ip[16];
    r.copy(ip);
    const uint16_t port = r.be16();
    return {Addr::v6_bytes(ip), port};
}

void write_endpoint(WireWriter& w, const Endpoint& e) {
    w.bytes(e.addr.mapped16());
    w.be16(e.port);
}

void encode_body(WireWriter& w, const Ping& m) {
    w.bytes(m.tx);
    if (m.node.is_zero()) return;
    w.bytes(m.node.bytes());
    w.zeros(std::min(m.padding, kMaxPadding));
}
void encode_body(WireWriter& w, const Pong& m) {
    w.bytes(m.tx);
    write_endpoint(w, m.source);
}
void encode_body(WireWriter& w, const CallMeMaybe& m) {
    for (size_t i = 0; i < std::min(m.endpoints.size(), kMaxEndpoints); ++i) write_endpoint(w, m.endpoints[i]);
}
void encode_body(WireWriter&, const RelayMessage&) {}

uint8_t type_of(const Message& m) {
    switch (m.index()) {
        case 0: return static_cast<uint8_t>(Type::kPing);
        case 1: return static_cast<uint8_t>(Type::kPong);
        case 2: return static_cast<uint8_t>(Type::kCallMeMaybe);
        default: return std::get<RelayMessage>(m).type;
    }
}

std::optional<Message> parse_ping(WireReader& r) {
    Ping m;
    r.copy(m.tx);
    if (!r.ok()) return std::nullopt;
    if (r.remaining() >= 32) {
        r.copy(m.node.raw);
        if (!m.node.is_zero()) m.padding = r.remaining();
    }
    return m;
}

std::optional<Message> parse_pong(WireReader& r) {
    Pong m;
    r.copy(m.tx);
    m.source = read_endpoint(r);
    if (!r.ok()) return std::nullopt;
    return m;
}

// A body of odd length or of another version counts as an empty list, which still asks for pings.
std::optional<Message> parse_call_me_maybe(WireReader& r, uint8_t version) {
    CallMeMaybe m;
    if (version != 0 || r.remaining() % kEndpointLen != 0) return m;
    const size_t n = std::min(r.remaining() / kEndpointLen, kMaxEndpoints);
    m.endpoints.reserve(n);
    for (size_t i = 0; i < n; ++i) m.endpoints.push_back(read_endpoint(r));
    return m;
}

}  // namespace

std::optional<Message> parse(ByteSpan payload) {
    WireReader r(payload);
    const uint8_t type = r.u8();
    const uint8_t version = r.u8();
    if (!r.ok()) return std::nullopt;
    switch (static_cast<Type>(type)) {
        case Type::kPing: return parse_ping(r);
        case Type::kPong: return parse_pong(r);
        case Type::kCallMeMaybe: return parse_call_me_maybe(r, version);
        default: break;
    }
    if (type >= static_cast<uint8_t>(Type::kFirstRelay) && type <= static_cast<uint8_t>(Type::kLastRelay))
        return RelayMessage{type};
    return std::nullopt;
}

Bytes encode(const Message& message) {
    Bytes out;
    WireWriter w(out);
    w.u8(type_of(message));
    w.u8(0);
    std::visit([&w](const auto& m) { encode_body(w, m); }, message);
    return out;
}

std::optional<SharedKey> SharedKey::derive(const DiscoPrivate& mine, const DiscoPublic& theirs) {
    SharedKey k;
    if (!crypto::box_precompute(k.key_.bytes(), theirs.raw, mine.secret())) return std::nullopt;
    return k;
}

Bytes SharedKey::seal(const DiscoPublic& sender, ByteSpan payload, Random& random) const {
    Bytes out(kOverhead + payload.size());
    std::copy(kMagic.begin(), kMagic.end(), out.begin());
    std::copy(sender.raw.begin(), sender.raw.end(), out.begin() + 6);
    const MutByteSpan nonce = MutByteSpan(out).subspan(6 + 32, kNonceLen);
    random.fill(nonce);
    crypto::box_seal(out.data() + kHeaderLen, payload, nonce.data(), key_.bytes());
    return out;
}

std::optional<Bytes> SharedKey::open(ByteSpan datagram) const {
    if (datagram.size() < kOverhead) return std::nullopt;
    Bytes out(datagram.size() - kOverhead);
    uint8_t none = 0;
    uint8_t* to = out.empty() ? &none : out.data();
    if (!crypto::box_open(to, datagram.subspan(kHeaderLen), datagram.data() + 6 + 32, key_.bytes())) return std::nullopt;
    return out;
}

}  // namespace mesh::disco
