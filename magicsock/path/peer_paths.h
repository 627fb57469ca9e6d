// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The UDP paths to one peer (direct ones, or those through UDP relays, see via_paths.h): candidates, pings, and which of them carries data. Pure and alone: it knows neither keys
/// nor relays nor other peers; what has to be sent is left in a Todo.
///
/// The rules:
///
///  1. Trust. A pong makes the address it was asked at a proven one, once it carries full packets, too (path_size.h). The best
///     proven address (score.h) is trusted for 6.5 s after its last pong, and only a trusted path carries data alone. While
///     there is none, data goes by the relay, and by the best address that answers too; one that loses full packets comes after all others.
///  2. Discovery starts on send. A send without trust pings every candidate that was not pinged within 5 s and asks for a
///     CallMeMaybe, so that the peer pings too and both NATs open. The first round of a fresh start is repeated to all
///     candidates after 0.5, 1 and 2 s, because the first pings die at a NAT that is not open yet, or at a peer that does
///     not know our key yet; so is CallMeMaybe after 1 and 2 s if nothing at all was heard.
///  3. A valid ping or CallMeMaybe from the peer while we have no trust is answered in kind at once: a ping back to the
///     source (once per second and source), our CallMeMaybe (once per 5 s). So neither side waits for its own timer.
///  4. Heartbeat. While the last send is younger than 45 s, the best address is pinged every 3 s; a full round is due
///     every 5 s without trust, and every 60 s with trust if the path is slower than 5 ms. Later nothing is sent.
///  5. Silence. From the first send or ping that nothing from the best address has answered since, half a second may pass, and
///     half of that if data came from there a moment before (but two round trips, up to 1 s); then it is pinged every 250 ms. A ping without its pong for 250 ms (or two
///     round trips) puts the path in doubt: it stays trusted, but data goes by the relay as well, so that nobody waits for
///     the verdict. A pong ends the doubt and nothing else does, for data may be an answer to what the relay brought. A
///     healthy path with one-way traffic gets its pongs in time and is never doubted; one that lost a ping is for 250 ms.
///     After 2 s without an answer (in doubt: without a pong) trust ends: data goes both ways and a full round starts.
///     If it is proven anew within 30 s, the relay gets copies for 3 s more: one that comes and goes has cost its stall already.
///     Only what comes from the best address counts as an answer, so a path that is dead in one direction is noticed, too.
///     Data by the relay says that the peer has no trust, or doubts: if the best address was silent for half a second by
///     then, it is doubted and pinged at once and has only three round trips (0.3 to 1 s) left; where a pong shows that this
///     meant nothing, data by the relay causes pings, but no doubt for 10 s. A death makes the owner look after our own NAT.
///     A CallMeMaybe that lists the best address no longer (the peer moved to another network) gives way to the first pong
///     from elsewhere at once.
///  6. Candidates live while the network map lists them, until a CallMeMaybe omits those that an earlier one brought, or
///     45 s after the last ping or pong if learnt from a ping. There are at most 48.
///  7. At most 20 pings per second leave; the rest of a round follows in the next second.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ip.h"
#include "base/random.h"
#include "base/time.h"
#include "magicsock/disco/disco.h"
#include "magicsock/path/path_size.h"
#include "magicsock/path/score.h"
#include "magicsock/path/types.h"

namespace mesh::magicsock {

inline constexpr Duration kTrustAfterPong = milliseconds(6500);
inline constexpr Duration kHeartbeat = seconds(3);
inline constexpr Duration kSessionActive = seconds(45);
inline constexpr Duration kProbeInterval = seconds(5);
inline constexpr Duration kPingTimeout = seconds(5);
inline constexpr Duration kUpgradeInterval = seconds(60);
inline constexpr Duration kGoodEnough = milliseconds(5);
inline constexpr Duration kCallMeMaybeInterval = seconds(5);
inline constexpr Duration kPingBackInterval = seconds(1);
inline constexpr Duration kLearntLifetime = seconds(45);
inline constexpr Duration kSilenceProbe = milliseconds(500);
inline constexpr Duration kSilenceProbeTalking = milliseconds(250);
inline constexpr Duration kSilenceProbeSpacing = milliseconds(250);
inline constexpr Duration kSilenceLeave = seconds(2);
inline constexpr Duration kHintRest = seconds(10);
inline constexpr Duration kProbation = seconds(3);
inline constexpr Duration kDeathRemembered = seconds(30);
inline constexpr size_t kMaxCandidates = 48;
inline constexpr size_t kMaxPingsPerSecond = 20;
inline constexpr size_t kMaxPathEvents = 24;

/// What the owner has to do after a call, in this order.
struct Todo {
    struct Probe {
        disco::TxId tx{};
        Endpoint to;
        size_t size = 0;  ///< bytes of the IP packet; 0 = smallest ping
    };
    std::vector<Probe> probes;
    bool call_me_maybe = false;
    bool path_changed = false;  ///< always set if check_network is
    bool check_network = false; ///< a proven path died: our own NAT may have lost its memory

    [[nodiscard]] bool empty() const { return probes.empty() && !call_me_maybe && !path_changed; }
    void clear() {
        probes.clear();
        call_me_maybe = path_changed = check_network = false;
    }
};

class PeerPaths {
   public:
    PeerPaths(Random& random, Time now) : random_(random), created_(now) {}

    /// Length of the datagram around a full packet of the tunnel. 0, as in the beginning: any path will do.
    void set_full_datagram(size_t bytes) { full_datagram_ = bytes; }

    /// The addresses of the network map, already filtered; replaces the earlier list.
    void set_netmap(std::span<const Endpoint> endpoints, Time now, Todo& todo);

    // ---- straight line
    [[nodiscard]] bool trusted(Time now) const { return best_.ep.is_valid() && now < trust_until_; }
    /// Best proven address, trusted or not; invalid if none.
    [[nodiscard]] const Endpoint& best() const { return best_.ep; }
    /// Trusted, but an answer is overdue, or it died a moment ago: the relay should get a copy of what goes there. Ends by itself
    /// after some seconds.
    [[nodiscard]] bool in_doubt(Time now) const { return (silence_.doubt || now < probation_until_) && trusted(now); }
    /// It answers there, but full packets get lost. Never true of a trusted one.
    [[nodiscard]] bool too_small(const Endpoint& e) const;
    /// A datagram goes to the peer now. Returns true if the deadline may have moved.
    bool note_sent(Time now, Todo& todo);
    /// Authenticated data came from this endpoint; an invalid one stands for a relay. Returns as note_sent does.
    bool note_received(const Endpoint& from, Time now);

    // ---- disco
    /// A valid ping came from there, with so much padding. False: it is not to be answered (a repetition, or see path_size.h).
    bool heard_ping(const Endpoint& from, const disco::TxId& tx, size_t padding, Time now, Todo& todo);
    /// The round trip, if the pong answers a ping of ours.
    std::optional<Duration> heard_pong(const disco::TxId& tx, Time now, Todo& todo);
    /// Where the ping with this id went, if it is outstanding.
    [[nodiscard]] std::optional<Endpoint> target_of(const disco::TxId& tx) const;
    void heard_call_me_maybe(std::span<const Endpoint> endpoints, Time now, Todo& todo);
    void call_me_maybe_sent(Time now);

    // ---- events
    /// WireGuard authenticated a handshake from there: worth a ping.
    void learn(const Endpoint& from, Time now, Todo& todo);
    /// An address that is worth a ping whatever is known; it is a candidate from now on.
    void propose(const Endpoint& e, Time now, Todo& todo);
    /// It is no candidate any more, whatever it was.
    void forget(const Endpoint& e, Time now, Todo& todo);
    /// Pings for `tailscale ping`: the trusted path alone, else all candidates.
    void cli_probe(size_t size, Time now, Todo& todo);
    void send_failed(const Endpoint& to, Time now, Todo& todo);
    /// EMSGSIZE.
    void too_long(const Endpoint& to, Time now, Todo& todo);
    /// The peer has a new disco key: paths stay, but are proven again soon.
    void peer_restarted(Time now, Todo& todo);
    /// Our own network changed: all proofs are void, candidates stay.
    void reset(Time now, Todo& todo);
    /// A relay to the peer became known: what rule 2 could not send is due.
    void relay_appeared(Time now, Todo& todo);

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now, Todo& todo);

    /// The last send is younger than 45 s.
    [[nodiscard]] bool active(Time now) const { return !last_send_.is_zero() && now - last_send_ < kSessionActive; }
    /// Last sign of life in any direction: for the owner to drop this object after a while.
    [[nodiscard]] Time last_activity() const { return max(created_, max(last_send_, last_heard_)); }
    void fill(PeerPathStatus& status, Time now) const;

   private:
    struct Candidate {
        Endpoint ep;
        bool netmap = false;
        bool call = false;
        Time learnt{};  // last ping or pong of a learnt one; zero: not learnt
        Time last_probe{}, last_ping_back{}, last_pong{};
        Duration latency{}, best_latency{};
        uint32_t pings = 0, pongs = 0;
        uint16_t lost_bits = 0;  // of the last `outcomes` pings, newest in bit 0; 1: no answer
        uint8_t outcomes = 0;
        disco::TxId last_tx{};  // of the last ping received from there
        PathSize size{};

        // True if the first of a row of lost ones.
        bool outcome(bool lost);
    };
    struct Outstanding {
        disco::TxId tx;
        Endpoint to;
        Time sent;
        size_t size;
    };
    // Rule 5, about the best address while it is trusted.
    struct Silence {
        Time since;  // the first send or ping that nothing has answered; zero: nothing is waited for
        Time asked;  // the first small ping after the last pong; zero: none
        Time next_probe;
        bool doubt = false;
    };
    enum class Ask : uint8_t { kNo, kCallMeMaybe };

    Candidate* find(const Endpoint& e);
    Candidate* add(const Endpoint& e);
    void prune(Time now);
    /// Pings that rule 7 allows now.
    [[nodiscard]] size_t room(Time now) const;
    bool take_token(Time now);
    bool probe(Candidate& c, Time now, Todo& todo, size_t size = 0);
    void probe_due(Time now, Todo& todo);
    void round(Time now, Ask ask, Todo& todo);
    void start_burst(Time now);
    void run_burst(Time now, Todo& todo);
    void force_all();
    void ask_call_me_maybe(Time now, Todo& todo);
    [[nodiscard]] bool round_wanted(Time now) const;
    [[nodiscard]] size_t full_size(const Endpoint& e) const;
    void measure(Candidate& c, size_t answered, Time now, Todo& todo);
    void ask_sizes(Time now, Todo& todo);
    void conclude_size(Candidate& c, Time now, Todo& todo);
    [[nodiscard]] bool would_be_chosen(const Candidate& c, Time now) const;
    void choose(const Candidate& c, Time now, Todo& todo);
    void keep_for_want_of_better(const Candidate& c, Todo& todo);
    void set_best(const ScoredAddr& a, Time now, Todo& todo);
    void lose_best(PathEvent::Kind why, Time now, Todo& todo);
    [[nodiscard]] Duration patience(Time now) const;
    [[nodiscard]] Duration pong_time() const;
    void note_unanswered(Time now);
    void note_asked(Time now);
    void note_pong(Time now);
    bool heard_by_relay(Time now);
    [[nodiscard]] Time silence_timeout() const;
    void watch_silence(Time now, Todo& todo);
    void leave(Time now, Todo& todo);
    void heartbeat(Time now, Todo& todo);
    void expire_outstanding(Time now, Todo& todo);
    void note(PathEvent::Kind kind, Time now, const Endpoint& e = {}, Duration latency = {}, size_t size = 0);

    Random& random_;
    Time created_;
    std::vector<Candidate> candidates_;
    std::vector<Outstanding> outstanding_;  // oldest first
    std::vector<PathEvent> events_;         // ring, see event_next_
    size_t event_next_ = 0;

    size_t full_datagram_ = 0;
    bool peer_measures_ = false;  // it sent a ping with padding
    ScoredAddr best_;
    bool withdrawn_ = false;    // the peer lists it no longer
    Time trust_until_;
    bool trust_told_ = false;   // the owner knows of this trust
    Time last_send_, last_heard_, last_disco_;
    Silence silence_;
    Time last_answer_, last_data_;  // from the best address
    Time last_hint_;            // data by the relay put it in doubt
    Time fell_silent_, probation_until_;
    Time heartbeat_at_ = Time::never();
    Time last_round_, next_round_;
    Time last_call_me_maybe_;
    Time last_burst_;
    size_t burst_step_ = SIZE_MAX;  // index into the table of rule 2; past its end: none
    Time backlog_at_ = Time::never();  // a round cut by rule 7 goes on
    Time window_;                   // rule 7: start of the current second
    size_t window_pings_ = 0;
};

}  // namespace mesh::magicsock
