// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Denial-of-service defence (whitepaper 5.3, 5.4.4, 5.4.7). Nothing is answered unless mac1 proves that the sender
/// knows our public key. When handshakes come faster than we want to spend time on, the sender must echo a cookie
/// bound to its address (mac2), and each address has a small rate; above all that stands a rate for all together.

#include <array>
#include <cstdint>
#include <vector>

#include "base/crypto/crypto.h"
#include "base/keys.h"
#include "base/packet.h"
#include "base/random.h"
#include "base/time.h"
#include "wg/messages.h"

namespace mesh::wg {

using Mac = std::array<uint8_t, kMac>;

/// A rate with a burst, in one word: the time at which the bucket would be full again (generic cell rate algorithm).
class TokenBucket {
   public:
    constexpr TokenBucket(Duration interval, int64_t burst) : interval_(interval), slack_(interval * (burst - 1)) {}
    [[nodiscard]] bool take(Time now) {
        const Time base = max(full_at_, now);
        if (base - now > slack_) return false;
        full_at_ = base + interval_;
        return true;
    }

   private:
    Time full_at_{};
    Duration interval_;
    Duration slack_;
};

/// BLAKE2s("mac1----" || key) and BLAKE2s("cookie--" || key).
[[nodiscard]] crypto::Hash32 mac1_key(const NodePublic& key);
[[nodiscard]] crypto::Hash32 cookie_key(const NodePublic& key);

/// Initiator's half: what we remember for mac2 towards one peer.
struct CookieJar {
    Mac last_mac1{};
    Mac cookie{};
    Time cookie_at{};  ///< zero: none
    bool has_mac1 = false;
    ~CookieJar() {
        crypto::wipe(cookie);
        crypto::wipe(last_mac1);
    }
    /// Fills mac1 and mac2 at the end of an initiation or response to `peer`.
    void write_macs(MutByteSpan message, const NodePublic& peer, Time now);
    /// False: not for our last message, or forged. The cookie arms mac2 of the next message; nothing is sent now.
    [[nodiscard]] bool accept(const CookieReply& reply, const NodePublic& peer, Time now);
};

/// Responder's half.
class HandshakeGate {
   public:
    enum class Verdict : uint8_t {
        kAdmit,
        kBadMac,
        kDemandCookie,  ///< send make_reply(), if may_reply()
        kRefuse,        ///< the source or everybody together exceeds a rate
    };
    // Answering a handshake takes 5 curve operations, some 0.13 ms measured: these numbers keep floods near a tenth of
    // one core and a burst below 10 ms.
    static constexpr int64_t kFreeRate = 400;       ///< per second without any cookie
    static constexpr int64_t kFreeBurst = 64;
    static constexpr int64_t kCookieRate = 400;     ///< per second with a valid cookie, while under load
    static constexpr int64_t kCookieBurst = 64;
    static constexpr int64_t kSourceRate = 20;      ///< per second and source, while under load
    static constexpr int64_t kSourceBurst = 5;
    static constexpr Duration kLoadHold = seconds(1);
    // A cookie reply costs more than all the rest of a refusal, nearly all of it in the kernel's sending, and with
    // invented sources it goes to people who never asked. Those we know have a rate that strangers cannot use up.
    static constexpr int64_t kReplyRate = 1000;     ///< cookie replies per second to strangers; as many to those known
    static constexpr int64_t kReplyBurst = 256;

    explicit HandshakeGate(Random& random) : random_(random) {}
    ~HandshakeGate();
    void set_key(const NodePublic& own);

    /// `message`: a whole initiation or response.
    [[nodiscard]] Verdict check(ByteSpan message, const Source& from, Time now);
    /// After kDemandCookie: whether to send it. `known`: a peer was last seen at that source, or a relay vouches for it.
    [[nodiscard]] bool may_reply(bool known, Time now) { return replies_[known ? 1 : 0].take(now); }
    [[nodiscard]] CookieReply make_reply(ByteSpan message, const Source& from, Time now);
    [[nodiscard]] bool under_load(Time now) const { return now < loaded_until_; }

   private:
    static constexpr size_t kSourceSlots = 1024;
    Mac cookie_for(const Source& from, Time now);
    bool source_may(const Source& from, Time now);

    Random& random_;
    crypto::Hash32 mac1_key_{};
    crypto::Hash32 cookie_key_{};
    crypto::Key32 secret_{};
    Time secret_at_{};  // zero: no secret yet
    Time loaded_until_{};
    TokenBucket free_{seconds(1) / kFreeRate, kFreeBurst};
    TokenBucket with_cookie_{seconds(1) / kCookieRate, kCookieBurst};
    std::array<TokenBucket, 2> replies_{TokenBucket{seconds(1) / kReplyRate, kReplyBurst},
                                        TokenBucket{seconds(1) / kReplyRate, kReplyBurst}};
    std::vector<TokenBucket> sources_;  // made under the first load: most nodes never need it
};

}  // namespace mesh::wg
