// SPDX-License-Identifier: BSD-3-Clause
#include "wg/cookie.h"

#include <algorithm>

namespace mesh::wg {

namespace {

/// The bytes that name a source: address and port, or the relay's name for the sender.
struct SourceName {
    std::array<uint8_t, 40> bytes{};
    size_t len = 0;
    [[nodiscard]] ByteSpan span() const { return {bytes.data(), len}; }
    void add(ByteSpan b) {
        std::memcpy(bytes.data() + len, b.data(), b.size());
        len += b.size();
    }
};

SourceName relay_name(const Source& from) {
    SourceName n;
    n.add(from.derp_key.bytes());
    uint8_t region[4];
    store_be32(region, static_cast<uint32_t>(from.derp_region));
    n.add(region);
    return n;
}

SourceName exact_name(const Source& from) {
    if (from.by_derp()) return relay_name(from);
    SourceName n;
    n.add(from.udp.addr.bytes());
    uint8_t port[2];
    store_be16(port, from.udp.port);
    n.add(port);
    return n;
}

/// Without the port, and IPv6 by its /64: what one sender can change at will must not give it more.
SourceName rate_name(const Source& from) {
    if (from.by_derp()) return relay_name(from);
    SourceName n;
    const ByteSpan addr = from.udp.addr.bytes();
    n.add(addr.first(std::min<size_t>(addr.size(), 8)));
    return n;
}

ByteSpan before_mac1(ByteSpan m) { return m.first(m.size() - 2 * kMac); }
ByteSpan mac1_of(ByteSpan m) { return m.subspan(m.size() - 2 * kMac, kMac); }
ByteSpan before_mac2(ByteSpan m) { return m.first(m.size() - kMac); }
ByteSpan mac2_of(ByteSpan m) { return m.last(kMac); }

}  // namespace

crypto::Hash32 mac1_key(const NodePublic& key) { return crypto::blake2s(as_bytes("mac1----"), key.bytes()); }
crypto::Hash32 cookie_key(const NodePublic& key) { return crypto::blake2s(as_bytes("cookie--"), key.bytes()); }

void CookieJar::write_macs(MutByteSpan message, const NodePublic& peer, Time now) {
    crypto::blake2s_mac16(last_mac1.data(), mac1_key(peer), before_mac1(message));
    has_mac1 = true;
    std::copy(last_mac1.begin(), last_mac1.end(), message.end() - 2 * kMac);
    if (!cookie_at.is_zero() && now - cookie_at < kCookieLifetime)
        crypto::blake2s_mac16(&*(message.end() - kMac), cookie, before_mac2(message));
    else
        std::fill(message.end() - kMac, message.end(), uint8_t{0});
}

bool CookieJar::accept(const CookieReply& reply, const NodePublic& peer, Time now) {
    if (!has_mac1) return false;
    Mac fresh;
    if (!crypto::xaead_open(fresh.data(), reply.sealed_cookie, last_mac1, reply.nonce, cookie_key(peer))) return false;
    cookie = fresh;
    cookie_at = now;
    has_mac1 = false;  // one reply per message: a replay of it cannot renew the cookie
    return true;
}

HandshakeGate::~HandshakeGate() { crypto::wipe(secret_); }

void HandshakeGate::set_key(const NodePublic& own) {
    mac1_key_ = mac1_key(own);
    cookie_key_ = cookie_key(own);
}

Mac HandshakeGate::cookie_for(const Source& from, Time now) {
    if (secret_at_.is_zero() || now - secret_at_ >= kCookieLifetime) {
        random_.fill(secret_);
        secret_at_ = now;
    }
    Mac cookie;
    crypto::blake2s_mac16(cookie.data(), secret_, exact_name(from).span());
    return cookie;
}

bool HandshakeGate::source_may(const Source& from, Time now) {
    if (sources_.empty()) sources_.assign(kSourceSlots, TokenBucket{seconds(1) / kSourceRate, kSourceBurst});
    // Keyed with the secret: which sources share a slot cannot be chosen from outside.
    Mac h;
    crypto::blake2s_mac16(h.data(), secret_, rate_name(from).span());
    return sources_[load_le32(h.data()) % kSourceSlots].take(now);
}

HandshakeGate::Verdict HandshakeGate::check(ByteSpan message, const Source& from, Time now) {
    Mac expected;
    crypto::blake2s_mac16(expected.data(), mac1_key_, before_mac1(message));
    if (!crypto::equal_constant_time(expected, mac1_of(message))) return Verdict::kBadMac;
    // The free budget is also the measure: while it does not last, the load goes on.
    if (!free_.take(now)) loaded_until_ = now + kLoadHold;
    if (!under_load(now)) return Verdict::kAdmit;

    const Mac cookie = cookie_for(from, now);
    crypto::blake2s_mac16(expected.data(), cookie, before_mac2(message));
    if (!crypto::equal_constant_time(expected, mac2_of(message))) return Verdict::kDemandCookie;
    if (!source_may(from, now) || !with_cookie_.take(now)) return Verdict::kRefuse;
    return Verdict::kAdmit;
}

CookieReply HandshakeGate::make_reply(ByteSpan message, const Source& from, Time now) {
    CookieReply r;
    store_le32(r.type, kTypeCookie);
    std::memcpy(r.receiver, message.data() + 4, 4);  // their sender index
    random_.fill(r.nonce);
    const Mac cookie = cookie_for(from, now);
    crypto::xaead_seal(r.sealed_cookie, cookie, mac1_of(message), r.nonce, cookie_key_);
    return r;
}

}  // namespace mesh::wg
