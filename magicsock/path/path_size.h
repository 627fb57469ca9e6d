// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// How long packets one address carries: whether a full packet of the tunnel gets there, or only small ones do. Sizes are bytes
/// of the IP packet. Pure; PeerPaths owns one per candidate and sends what it asks for.
///
/// Where a link on the way is too narrow and nobody says so (PPPoE or nested tunnels with ICMP filtered, providers that drop
/// fragments), pings and handshakes pass and everything else hangs. Such a path is worse than none, so:
///
///  1. An address that answered a small ping is asked by one as long as a full packet. The answer settles it; the usual price of
///     a new path is this one ping and its round trip. The sockets treat it like data, so where the kernel learns the MTU
///     and fragments, and fragments pass, it is answered too: what counts is what arrives, not how.
///  2. Unanswered, it is repeated, now beside a small and a middle ping: five tries, three round trips (0.25 to 1 s) apart.
///     Small and middle ones answered and no full one: the path is too small. If the small ones did not come back either, nothing
///     is known and the next answer begins anew: loss alone condemns no path.
///  3. No padded ping answered, but small ones: the peer does not know padding, and the path counts as one that carries all.
///  4. Such a path is mostly too small both ways, and a peer that never pads its pings (the original does not) goes on sending its
///     full packets into the hole as long as we answer its small ones. So after some seconds these are not answered there any more,
///     until a full packet arrives or the peer shows that it measures by itself.
///  5. Full size is asked for again every minute; a path once found wanting gets that one ping after 1, 2, 4, 8 and then every 16
///     minutes, so that none flaps. EMSGSIZE from the socket makes it be asked at once.
///
/// A path too small carries no data as long as there is another way (PeerPaths, Magicsock::path_now): all of it takes the
/// relay. To send only the large packets by the relay would let the small ones of each flow overtake them, which TCP
/// takes for loss, and would make every packet a decision; a rule for the whole path is simple and cannot be half right.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/time.h"

namespace mesh::magicsock {

class PathSize {
   public:
    enum class Verdict : uint8_t {
        kUnknown,
        kWhole,     ///< a full packet arrived
        kTooSmall,  ///< small ones arrive, full ones do not
        kUntold,    ///< the peer does not answer padded pings
    };
    static constexpr unsigned kTries = 5;
    static constexpr Duration kAgain = seconds(60);
    static constexpr Duration kAnswerStill = seconds(3);

    [[nodiscard]] Verdict verdict() const { return verdict_; }
    /// Data may go there.
    [[nodiscard]] bool good() const { return verdict_ == Verdict::kWhole || verdict_ == Verdict::kUntold; }
    [[nodiscard]] bool too_small() const { return verdict_ == Verdict::kTooSmall; }
    /// Rule 4: pings of a peer that sends none with padding are not answered there.
    [[nodiscard]] bool mute(Time now) const { return too_small() && now - since_ >= kAnswerStill; }
    /// The longest ping answered; 0: none with padding.
    [[nodiscard]] size_t carries() const { return carries_; }

    /// Begins; the first try is due now. Nothing happens while one is under way.
    void ask(Duration latency, Time now);
    void stop() { next_ = Time::never(); }
    [[nodiscard]] bool asking() const { return !next_.is_never(); }
    [[nodiscard]] Time next_timeout() const { return next_; }
    [[nodiscard]] bool all_tried() const { return tries_ >= kTries; }
    /// The pings of the try that is due; 0: a small one.
    [[nodiscard]] std::vector<size_t> pings(size_t full) const;
    void tried(Time now);
    /// Rule 7 of PeerPaths had no room for them.
    void postpone(Time now) { next_ = now + spacing_; }
    /// After the last try.
    void conclude(Time now);

    /// A ping of that size came back (0: a small one). True if a full packet arrived and that is news.
    bool answered(size_t size, size_t full, Time now);
    /// It is time to look again, and somebody is there.
    [[nodiscard]] bool due(Time now) const { return verdict_ != Verdict::kUnknown && !asking() && now >= again_; }
    /// For those that are asked by a single ping.
    void asked_once(Time now) { put_off(now); }

   private:
    void put_off(Time now);

    Verdict verdict_ = Verdict::kUnknown;
    uint8_t tries_ = 0, small_ = 0, patience_ = 0;
    size_t carries_ = 0, middle_ = 0;
    Duration spacing_;
    Time next_ = Time::never();
    Time again_;
    Time since_;  // of kTooSmall
};

}  // namespace mesh::magicsock
