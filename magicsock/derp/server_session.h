// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The server's end of one DERP connection, without its socket, after the HTTP upgrade. It logs the client in, cuts
/// frames, answers pings, keeps alive, and bounds what waits for a slow reader. Who is reachable and where packets
/// go is the business of its owner.
///
///     constructor → ServerKey is queued
///     feed()/reserve+commit, next_event(): kLogin → owner checks → accept() or destroys the session
///     kPacket, kNotePreferred, … ; deliver(), peer_gone() … ; writable()/wrote(); next_timeout()/handle_timeout()

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "base/time.h"
#include "magicsock/derp/frame.h"
#include "magicsock/derp/login.h"
#include "magicsock/derp/send_queue.h"

namespace mesh::derp {

struct ServerSessionConfig {
    NodePrivate server_key{};
    LockedKey mesh_key{};                   ///< zero: no client is a mesh peer
    Duration write_timeout = seconds(2);  ///< no progress for that long ends the session; 0 = never
    size_t data_queue_bytes = 192U << 10;
    size_t disco_queue_bytes = 64U << 10;
    size_t queue_packets = 32;            ///< so many wait in each in any case; the original's depth, on which probers rely
};

struct ServerEvent {
    enum class Kind : uint8_t {
        kLogin,          ///< `key`: proven (info() says more); answer with accept(); nothing further is read before
        kPacket,         ///< for `key` (destination): `packet`
        kForward,        ///< mesh: `packet` from `source` for `key`
        kNotePreferred,  ///< `preferred`
        kWatchConns,     ///< mesh
        kClosePeer,      ///< mesh: `key`
        kAlive,          ///< a ping, pong or unknown frame: counts as activity (duplicate clients)
        kError,          ///< `error`; the session is dead
    };
    Kind kind{};
    NodePublic key;
    NodePublic source;
    ByteSpan packet;  ///< in the session's buffer, until the next reading call
    bool preferred = false;
    std::unique_ptr<const Error> error;  ///< set with kError, and only then: there are as many of these as clients
};

/// A count of packets: of those that look like disco, and of the others; `…_bytes` of what they carried.
struct ByKind {
    uint64_t disco = 0, other = 0;
    uint64_t disco_bytes = 0, other_bytes = 0;
    [[nodiscard]] uint64_t total() const { return disco + other; }
    void add(bool is_disco, uint64_t packets, uint64_t bytes) {
        (is_disco ? disco : other) += packets;
        (is_disco ? disco_bytes : other_bytes) += bytes;
    }
    void add(ByteSpan packet) { add(looks_like_disco(packet), 1, packet.size()); }
    ByKind& operator+=(const ByKind& more) {
        disco += more.disco;
        other += more.other;
        disco_bytes += more.disco_bytes;
        other_bytes += more.other_bytes;
        return *this;
    }
};

struct ServerSessionStats {
    uint64_t rx_packets = 0, rx_bytes = 0;
    uint64_t tx_packets = 0, tx_bytes = 0;
    ByKind dropped_full;
    ByKind dropped_gone;  ///< still waited when the connection ended; see ServerSession::waiting()
    uint64_t pings = 0, pongs = 0;  ///< of the client; a ping that comes before the pong of the last has left gets none
    uint64_t write_timeouts = 0;    ///< 1 = the client took nothing for too long
    uint64_t unknown_frames = 0;
    ServerSessionStats& operator+=(const ServerSessionStats& more) {
        rx_packets += more.rx_packets;
        rx_bytes += more.rx_bytes;
        tx_packets += more.tx_packets;
        tx_bytes += more.tx_bytes;
        dropped_full += more.dropped_full;
        dropped_gone += more.dropped_gone;
        pings += more.pings;
        pongs += more.pongs;
        write_timeouts += more.write_timeouts;
        unknown_frames += more.unknown_frames;
        return *this;
    }
};

class ServerSession {
   public:
    ServerSession(Random& random, ServerSessionConfig config, Time now);

    [[nodiscard]] MutByteSpan reserve() { return reader_.reserve(); }
    void commit(size_t n) { reader_.commit(n); }
    void feed(ByteSpan bytes) { reader_.append(bytes); }
    /// As feed(), without a copy: next_event() until nullptr, then settle(); the bytes must stay until then.
    void lend(MutByteSpan bytes) { reader_.lend(bytes); }
    void settle() { reader_.settle(); }
    [[nodiscard]] const ServerEvent* next_event(Time now);
    /// After kLogin: the client is in; queues ServerInfo.
    void accept(Time now);
    /// For clients that deserve more patience (mesh peers).
    void set_write_timeout(Duration d) { config_.write_timeout = d; }

    /// True: a TLS record is full, so it is worth writing now; else there is time until the turn ends.
    bool deliver(const NodePublic& from, ByteSpan packet, Time now);
    void peer_gone(const NodePublic& key, GoneReason reason, Time now);
    void peer_present(const NodePublic& key, const Endpoint& where, uint8_t flags, Time now);  ///< to mesh watchers
    void health(std::string_view text, Time now);
    void restarting(Duration reconnect_in, Duration try_for, Time now);

    /// Several frames merged, at most one TLS record unless a frame is larger. Whatever was returned stays as it is until
    /// wrote() has taken all of it.
    [[nodiscard]] ByteSpan writable(Time now);
    void wrote(size_t n, Time now);
    /// Gives back the memory of a connection that is quiet.
    void release_idle();

    [[nodiscard]] bool logged_in() const { return phase_ == Phase::kOpen; }
    [[nodiscard]] bool failed() const { return phase_ == Phase::kDead; }
    [[nodiscard]] const NodePublic& key() const { return key_; }
    /// What the client said at login; without its mesh key.
    [[nodiscard]] const ClientInfo& info() const { return info_; }
    [[nodiscard]] bool is_mesh_peer() const { return mesh_peer_; }
    [[nodiscard]] bool is_prober() const { return info_.is_prober; }
    /// Packets that the client has not taken yet, as counted when the connection ends.
    [[nodiscard]] ByKind waiting() const;
    [[nodiscard]] ServerSessionStats stats() const {
        ServerSessionStats s = stats_;
        s.unknown_frames = reader_.skipped_frames();
        return s;
    }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

   private:
    enum class Phase : uint8_t { kLogin, kChecking, kOpen, kDead };

    const ServerEvent* die(Code code, std::string what);
    bool handle_login(const Frame& f);
    bool handle_frame(const Frame& f);
    void control(FrameType type, ByteSpan a, ByteSpan b, Time now);
    void note_pending(Time now);

    Random& random_;
    ServerSessionConfig config_;
    Phase phase_ = Phase::kLogin;
    NodePublic key_;
    ClientInfo info_;
    bool mesh_peer_ = false;
    FrameReader reader_{FrameReader::Side::kServer};
    ServerEvent event_;
    bool error_reported_ = false;

    Bytes login_out_;           // ServerKey, ServerInfo
    SendQueue control_;         // PeerGone, PeerPresent, Health …
    SendQueue disco_;
    SendQueue data_;
    std::optional<uint64_t> pong_;  // one pending; faster pings are ignored
    bool keepalive_due_ = false;
    Bytes out_;                 // gathers frames until writable() hands it out
    size_t out_sent_ = 0;
    bool handed_out_ = false;

    Time deadline_;        // of the login
    Time next_keepalive_ = Time::never();
    Time stalled_since_;   // zero: nothing waits for the socket
    ServerSessionStats stats_;
};

}  // namespace mesh::derp
