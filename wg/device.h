// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The WireGuard engine of one node. Pure: bytes, `now` and randomness in; bytes by Output out. It owns peers, their
/// handshakes, sessions and timers; it knows neither addresses (magicsock does) nor IP packets (dataplane does).
///
/// Straight line, per batch:
///   out: Session* s = send_session(peer, now); if null stage() each packet, else seal() each; once sent_data().
///        Faster for several packets: Session::prepare() each, then Session::seal() all.
///   in:  receive() the datagrams; for kData hand `plain` on (trim by the IP header); once per peer received_data().
///        kDropped with kUnknownIndex: if the source maps to a peer, unknown_index_from(peer, now).
/// These calls do not allocate (stage copies), lock or log.
///
/// Inside Output callbacks the caller may use everything but receive, handle_timeout, set_private_key, add_peer and
/// remove_peer; a handshake asked for there goes out at the next handle_timeout().
/// Source: WireGuard whitepaper (NDSS 2017) sections 5 and 6.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/keys.h"
#include "base/packet.h"
#include "base/random.h"
#include "base/time.h"
#include "wg/cookie.h"
#include "wg/drop.h"
#include "wg/noise.h"
#include "wg/peer.h"
#include "wg/session.h"
#include "wg/stamp.h"
#include "wg/timer_queue.h"

namespace mesh::wg {

/// What the engine asks of its surroundings. Spans are valid during the call only.
class Output {
   public:
    virtual ~Output() = default;
    /// A handshake message or keepalive, by the peer's path(s). False = there is no path at all: the engine then behaves as
    /// if it had not tried, and tries again at path_appeared().
    virtual bool send_to_peer(PeerId peer, ByteSpan datagram, Time now) = 0;
    /// A cookie reply, to exactly where the message came from.
    virtual void reply(const Source& to, ByteSpan datagram, Time now) = 0;
    /// Whether a peer was last seen at that source; asked under load only. Those get their cookie replies even while
    /// strangers flood us.
    [[nodiscard]] virtual bool knows(const Source& source) const = 0;
    /// A session can send (also after every rekey): send what take_staged() yields. Otherwise the engine confirms the
    /// session with a keepalive by itself.
    virtual void session_ready(PeerId peer, Time now) = 0;
    /// A valid initiation, a valid response or the first transport message of a session came from there. Called before
    /// the engine answers, so that the answer can use that path.
    virtual void authenticated(PeerId peer, const Source& from, Time now) = 0;
};

/// A peer as `status` shows it.
struct PeerStats {
    uint64_t rx_bytes = 0;  ///< as told by received_data, plus handshakes and keepalives
    uint64_t tx_bytes = 0;
    WallTime last_handshake;       ///< zero: never (in this process)
    bool has_session = false;      ///< send_session would not be null
    Duration session_age;          ///< of the session in use, if has_session
    bool handshake_pending = false;
};

/// Totals of the whole engine, for metrics.
struct DeviceCounters {
    uint64_t initiations_sent = 0;
    uint64_t responses_sent = 0;
    uint64_t cookie_replies_sent = 0;
    uint64_t sessions = 0;         ///< derived, both roles
    uint64_t handshakes_given_up = 0;
    uint64_t staged_dropped = 0;   ///< packets that waited for a session and were dropped
};

class Device {
   public:
    /// Both must outlive the device.
    Device(Random& random, Output& output);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    // -- configuration -----------------------------------------------------------------------------------------------
    /// A new key ends all sessions; the zero key too, and everything received is dropped until the next. The same key
    /// again changes nothing. The first 20 s after a new key count as "just started" (dead sessions are noticed early).
    void set_private_key(const NodePrivate& key, Time now);
    /// What the wall clock says at `now`. Call at start and whenever it may have been set (say once a minute).
    void set_wall_clock(WallTime wall, Time now);
    /// Stamps of initiations will be later than this (unix ns), whatever the clock says. At start: what a former run
    /// persisted of last_timestamp(). Only ever raises the floor.
    void set_timestamp_floor(uint64_t unix_ns);
    /// The latest stamp sent to anybody (unix ns), or the floor. To persist; a few seconds of slack on top make up for
    /// a crash.
    [[nodiscard]] uint64_t last_timestamp() const;

    /// Cheap: some 200 bytes until there is traffic. An id in use is replaced if the key differs.
    void add_peer(PeerId peer, const NodePublic& key);
    void remove_peer(PeerId peer);
    [[nodiscard]] bool has_peer(PeerId peer) const;

    // -- outbound ----------------------------------------------------------------------------------------------------
    /// The session to seal with, or null: stage the packets then. Starts a new handshake when the session is due for
    /// one. Valid until receive(), handle_timeout(), set_private_key(), add_peer() or remove_peer().
    [[nodiscard]] Session* send_session(PeerId peer, Time now);
    /// Seals in place: `slot` has kDataHeader (16) bytes of room, then `plain_len` bytes of packet, then room for up
    /// to 15 bytes of padding and 16 of tag. Pads with zeros to a multiple of 16, but not beyond `mtu` (0: no limit).
    /// Returns the length of the datagram at `slot`, or 0 if the session is worn out (drop the packet).
    [[nodiscard]] size_t seal(Session& session, uint8_t* slot, size_t plain_len, size_t mtu);
    /// Once per batch and peer after sealing: `bytes` of datagrams went out.
    void sent_data(PeerId peer, size_t bytes, Time now);
    /// Keeps a copy until a session stands and starts a handshake if none is under way. At most 128 packets or 256 KiB
    /// per peer and 8 MiB together; the oldest of the peer go first.
    void stage(PeerId peer, ByteSpan packet, Time now);
    /// The oldest staged packet; false if none.
    [[nodiscard]] bool take_staged(PeerId peer, Bytes& out);
    [[nodiscard]] bool has_staged(PeerId peer) const;

    // -- inbound -----------------------------------------------------------------------------------------------------
    struct Opened {
        enum Kind : uint8_t { kData, kKeepalive, kHandshake, kDropped };
        Kind kind = kDropped;
        DropReason drop = DropReason::kNone;  ///< if kDropped
        PeerId peer = kNoPeer;                ///< known for all but most drops
        MutByteSpan plain;                    ///< kData: inside the datagram, padding included
    };
    /// Transport is opened in place; handshake messages are answered by Output. A failed opening destroys the bytes.
    [[nodiscard]] Opened receive(MutByteSpan datagram, const Source& from, Time now);
    /// The same for several datagrams from one source, in order: out[i] tells of datagrams[i]. Transport messages of one
    /// session that follow each other are opened together.
    void receive(std::span<const MutByteSpan> datagrams, const Source& from, Time now, std::span<Opened> out);
    /// Once per batch and peer for kData: `bytes` of datagrams came in.
    void received_data(PeerId peer, size_t bytes, Time now);
    /// Transport data of a session we do not have came from a place that belongs to this peer: we probably restarted
    /// and it has not noticed. Initiates, and repeats the keepalive that confirms a session on which nothing came yet,
    /// rarely enough that forged datagrams do no harm.
    void unknown_index_from(PeerId peer, Time now);

    // -- facts from other rooms --------------------------------------------------------------------------------------
    /// The peer can be reached now: a handshake that is wanted goes out at once.
    void path_appeared(PeerId peer, Time now);
    /// The peer's disco key changed. Keys stay for receiving; if there was traffic lately a handshake starts at once.
    void peer_restarted(PeerId peer, Time now);
    /// After our own start: handshake with a recently active peer before there is traffic, with quick retries.
    void initiate_early(PeerId peer, Time now);

    /// When to call handle_timeout(); may be earlier than needed, or past while work is left over from a busy turn.
    [[nodiscard]] Time next_timeout() const;
    /// Does what is due, at most a slice of it (16 handshakes) per call.
    void handle_timeout(Time now);

    [[nodiscard]] PeerStats stats(PeerId peer, Time now) const;
    [[nodiscard]] const DeviceCounters& counters() const;

   private:
    struct IndexEntry {
        PeerId peer;
        Session* session;  // null: our initiation in flight
    };
    class Calling;

    [[nodiscard]] Peer* find(PeerId peer);
    [[nodiscard]] const Peer* find(PeerId peer) const;
    [[nodiscard]] bool have_key() const { return !identity_.key.is_zero(); }
    PeerState& state_of(PeerId id, Peer& p, Time now);
    void reset_state(PeerId id, Peer& p);
    void arm(PeerId id, const PeerState& s) { queue_.arm(id, s.deadline()); }

    uint32_t new_index(PeerId id, Session* session);
    void drop_session(std::unique_ptr<Session>& session);
    void drop_initiation(PeerState& s);

    // handshakes (handshake.cc)
    void want_session(PeerId id, Peer& p, Attempt::Kind kind, Time now);
    void try_now(PeerId id, Peer& p, Time now);
    void try_initiation(PeerId id, Peer& p, Time now);
    [[nodiscard]] bool send_initiation(PeerId id, Peer& p, Time now);
    [[nodiscard]] DropReason answer(PeerId id, Peer& p, const OpenedInitiation& opened, Time now);
    void give_up(Peer& p);
    void established(PeerState& s, Peer& p, Time now);
    [[nodiscard]] bool nervous(const PeerState& s, Time now) const;

    // inbound (receive.cc)
    [[nodiscard]] DropReason pass_gate(MutByteSpan datagram, const Source& from, Time now);
    [[nodiscard]] size_t receive_run(std::span<const MutByteSpan> datagrams, const Source& from, Time now,
                                     std::span<Opened> out);
    void transport_accepted(const Session& session, size_t size, const Source& from, Time now);
    [[nodiscard]] DropReason receive_initiation(MutByteSpan datagram, const Source& from, Time now, PeerId& who);
    [[nodiscard]] DropReason receive_response(MutByteSpan datagram, const Source& from, Time now, PeerId& who);
    [[nodiscard]] DropReason receive_cookie(ByteSpan datagram, Time now, PeerId& who);
    [[nodiscard]] bool hold(const Peer& p, Time now) const;

    // timers (timers.cc)
    void run_timers(PeerId id, Peer& p, Time now);
    void send_keepalive(PeerId id, Peer& p, Time now);
    void call_session_ready(PeerId id, Time now);

    Random& random_;
    Output& output_;
    Identity identity_;
    HandshakeGate gate_;
    StampClock stamps_;
    std::vector<Peer> peers_;                             // by PeerId
    std::unordered_map<NodePublic, PeerId> by_key_;       // looked up only, never walked
    std::unordered_map<uint32_t, IndexEntry> by_index_;   // looked up only, never walked
    TimerQueue queue_;
    TokenBucket initiations_{milliseconds(1), 32};        // beyond it they wait for handle_timeout()'s slices
    size_t staged_bytes_ = 0;
    Time nervous_until_{};
    DeviceCounters counters_;
    uint64_t handshake_work_ = 0;                         // handshake messages computed, for the slice
    int calling_ = 0;                                     // > 0: inside an Output callback
};

}  // namespace mesh::wg
