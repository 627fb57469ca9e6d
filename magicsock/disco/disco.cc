// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/disco/disco.h"

#include <algorithm>
#include <limits>

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
void encode_body(WireWriter& w, const RelayBind& m) {
    w.be32(m.vni);
    w.be32(m.generation);
    w.bytes(m.remote.bytes());
    w.bytes(m.challenge);
}
void write_pair(WireWriter& w, const DiscoPair& pair) {
    for (const DiscoPublic& k : pair) w.bytes(k.bytes());
}
void write_relay(WireWriter& w, const RelayEndpoint& r) {
    w.bytes(r.server.bytes());
    write_pair(w, r.clients);
    w.be64(r.lamport);
    w.be32(r.vni);
    w.be64(static_cast<uint64_t>(r.bind_lifetime.ns));
    w.be64(static_cast<uint64_t>(r.steady_lifetime.ns));
    for (size_t i = 0; i < std::min(r.addrs.size(), kMaxEndpoints); ++i) write_endpoint(w, r.addrs[i]);
}
void encode_body(WireWriter& w, const CallMeMaybeVia& m) { write_relay(w, m.relay); }
void encode_body(WireWriter& w, const AllocateRequest& m) {
    write_pair(w, m.clients);
    w.be32(m.generation);
}
void encode_body(WireWriter& w, const AllocateResponse& m) {
    w.be32(m.generation);
    write_relay(w, m.relay);
}

Type type_of(const Message& m) {
    switch (m.index()) {
        case 0: return Type::kPing;
        case 1: return Type::kPong;
        case 2: return Type::kCallMeMaybe;
        case 3: return static_cast<Type>(std::get<RelayBind>(m).step);
        case 4: return Type::kCallMeMaybeVia;
        case 5: return Type::kAllocateRequest;
        default: return Type::kAllocateResponse;
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

std::optional<Message> parse_bind(WireReader& r, RelayBind::Step step) {
    RelayBind m;
    m.step = step;
    m.vni = r.be32();
    m.generation = r.be32();
    r.copy(m.remote.raw);
    r.copy(m.challenge);
    if (!r.ok()) return std::nullopt;
    return m;
}

Duration read_lifetime(WireReader& r) {
    return nanoseconds(static_cast<int64_t>(std::min<uint64_t>(r.be64(), std::numeric_limits<int64_t>::max())));
}

void read_pair(WireReader& r, DiscoPair& pair) {
    for (DiscoPublic& k : pair) r.copy(k.raw);
}

// False unless at least one address and nothing but whole addresses follow.
bool read_relay(WireReader& r, RelayEndpoint& out) {
    r.copy(out.server.raw);
    read_pair(r, out.clients);
    out.lamport = r.be64();
    out.vni = r.be32();
    out.bind_lifetime = read_lifetime(r);
    out.steady_lifetime = read_lifetime(r);
    if (!r.ok() || r.remaining() == 0 || r.remaining() % kEndpointLen != 0) return false;
    const size_t n = std::min(r.remaining() / kEndpointLen, kMaxEndpoints);
    out.addrs.reserve(n);
    for (size_t i = 0; i < n; ++i) out.addrs.push_back(read_endpoint(r));
    return true;
}

std::optional<Message> parse_via(WireReader& r) {
    CallMeMaybeVia m;
    if (!read_relay(r, m.relay)) return std::nullopt;
    return m;
}

std::optional<Message> parse_allocate_request(WireReader& r) {
    AllocateRequest m;
    read_pair(r, m.clients);
    m.generation = r.be32();
    if (!r.ok()) return std::nullopt;
    return m;
}

std::optional<Message> parse_allocate_response(WireReader& r) {
    AllocateResponse m;
    m.generation = r.be32();
    if (!read_relay(r, m.relay)) return std::nullopt;
    return m;
}

}  // namespace

DiscoPair sorted_pair(const DiscoPublic& a, const DiscoPublic& b) {
    return a.raw < b.raw ? DiscoPair{a, b} : DiscoPair{b, a};
}

std::optional<Message> parse(ByteSpan payload) {
    WireReader r(payload);
    const uint8_t type = r.u8();
    const uint8_t version = r.u8();
    if (!r.ok()) return std::nullopt;
    switch (static_cast<Type>(type)) {
        case Type::kPing: return parse_ping(r);
        case Type::kPong: return parse_pong(r);
        case Type::kCallMeMaybe: return parse_call_me_maybe(r, version);
        case Type::kRelayBind:
        case Type::kRelayChallenge:
        case Type::kRelayAnswer: return parse_bind(r, static_cast<RelayBind::Step>(type));
        default: break;
    }
    // Bodies of another version may be laid out differently; the original does not look into them either.
    if (version != 0) return std::nullopt;
    switch (static_cast<Type>(type)) {
        case Type::kCallMeMaybeVia: return parse_via(r);
        case Type::kAllocateRequest: return parse_allocate_request(r);
        case Type::kAllocateResponse: return parse_allocate_response(r);
        default: return std::nullopt;
    }
}

Bytes encode(const Message& message) {
    Bytes out;
    WireWriter w(out);
    w.u8(static_cast<uint8_t>(type_of(message)));
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
