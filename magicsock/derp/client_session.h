// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One client connection to a DERP server, without its socket: bytes in, events and bytes out. TLS is below it.
///
///     start()  → HTTP upgrade (or fast start: request and ClientInfo in one flight)
///     loop:      reserve()/commit() or feed() what the stream gave, then next_event() until nullptr
///                while !writable().empty(): write some of it, wrote(n)
///                re-arm one timer at next_timeout(), then handle_timeout()
///
/// Packets may be queued by send() at any time, also before start(); they leave as soon as our ClientInfo has been
/// sent, without waiting for ServerInfo. After an error event the session is dead: make a new one.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/http1.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "base/time.h"
#include "magicsock/derp/frame.h"
#include "magicsock/derp/login.h"
#include "magicsock/derp/send_queue.h"

namespace mesh::derp {

struct ClientConfig {
    NodePrivate node_key{};
    bool can_ack_pings = true;
    bool is_prober = false;
    LockedKey mesh_key{};  ///< zero: none
    size_t data_queue_bytes = 512 << 10;  ///< more than one read of the TUN (320 KiB), so that none overflows it by itself
    size_t disco_queue_bytes = 32 << 10;
};

/// How to greet the server.
struct ClientStart {
    std::string host{};        ///< HTTP Host header (DerpNode::http_host())
    std::string ideal_node{};  ///< name of the region's first node if we are not talking to it, else ""
    /// The server's key if TLS 1.3 was negotiated and the chain ended in its meta certificate (parse_meta_cert):
    /// saves the round trip of the HTTP answer.
    std::optional<NodePublic> fast_start_key{};
};

struct Event {
    enum class Kind : uint8_t {
        kConnected,   ///< ServerInfo came: `server_info`
        kPacket,      ///< `key` sent `packet`
        kPeerGone,    ///< `key`, `reason`
        kPeerPresent, ///< mesh only: `key`
        kHealth,      ///< `text`, "" = healthy again; from the network: pass through log::printable()
        kRestarting,  ///< `reconnect_in`, `try_for`
        kPong,        ///< answer to ping(): `round_trip`
        kError,       ///< `error`; the session is dead
    };
    Kind kind{};
    NodePublic key;
    /// In the session's buffer, free to be changed in place; valid until the next reserve() or feed().
    MutByteSpan packet;
    GoneReason reason{};
    ServerInfo server_info;
    std::string text{};
    Duration reconnect_in;
    Duration try_for;
    Duration round_trip;
    uint64_t ping_id = 0;
    Error error;
};

struct ClientStats {
    uint64_t rx_packets = 0, rx_bytes = 0;      ///< packet payloads
    uint64_t tx_packets = 0, tx_bytes = 0;      ///< queued
    uint64_t dropped_full = 0;                  ///< oldest dropped because the queue was full
    uint64_t dropped_rate = 0;                  ///< the server's rate limit
    uint64_t dropped_oversize = 0;
    uint64_t bad_frames = 0;                    ///< malformed, ignored
};

class ClientSession {
   public:
    ClientSession(Random& random, ClientConfig config);

    void start(const ClientStart& start, Time now);

    /// Room for at least 16 KiB of stream bytes; invalidates earlier packet spans.
    [[nodiscard]] MutByteSpan reserve() { return reader_.reserve(); }
    void commit(size_t n, Time now);
    void feed(ByteSpan bytes, Time now);
    /// The stream ended; `why` "" = closed by the other side. What came before is still delivered by next_event().
    void closed(std::string why);
    /// nullptr: nothing more for now. The event is owned by the session and valid until the next call.
    [[nodiscard]] const Event* next_event(Time now);

    /// Bytes for the stream: several frames merged, usually ≤ 16 KiB (one TLS record). Empty: nothing to do.
    [[nodiscard]] ByteSpan writable(Time now);
    void wrote(size_t n, Time now);

    /// Queues a packet. False: dropped (too large, rate limit, dead session). `packet` ≤ 65,536 bytes.
    bool send(const NodePublic& to, ByteSpan packet, Time now);
    /// Tells the server whether this is our home. Remembered until connected; sent only on change.
    void note_preferred(bool preferred);
    /// Mesh only (a matching mesh_key): be told of every client of that server, now and later; remembered until connected.
    void watch_connections();
    /// Mesh only: a packet of our client `from` for the server's client `to`. False: dropped.
    bool forward(const NodePublic& from, const NodePublic& to, ByteSpan packet, Time now);
    /// Asks for a Pong; the id comes back in the event. One is under way at a time; a second call joins it.
    uint64_t ping(Time now);

    [[nodiscard]] bool connected() const { return phase_ == Phase::kOpen && got_server_info_; }
    [[nodiscard]] bool failed() const { return phase_ == Phase::kDead; }
    [[nodiscard]] const NodePublic& server_key() const { return server_key_; }
    [[nodiscard]] Time last_received() const { return last_rx_; }
    /// We sent something and asked, and for 2.5 s nothing at all came back. It may still be slow; at 11.5 s it is dead.
    [[nodiscard]] bool silent() const { return silent_; }
    [[nodiscard]] size_t queued_bytes() const;
    [[nodiscard]] const ClientStats& stats() const { return stats_; }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

   private:
    enum class Phase : uint8_t { kIdle, kHttp, kServerKey, kOpen, kDead };

    bool send_client_info();
    void fill(Time now);
    const Event* die(Code code, std::string what);
    const Event* read_http();
    bool handle_frame(const Frame& f, Time now);
    bool handle_login(const Frame& f, Time now);
    bool take_tokens(size_t bytes, Time now);
    bool queue_packet(FrameType type, ByteSpan keys, ByteSpan packet, Time now);
    void queue_ping(Time now);
    [[nodiscard]] bool can_send() const { return phase_ == Phase::kOpen; }

    Random& random_;
    ClientConfig config_;
    Phase phase_ = Phase::kIdle;
    NodePublic server_key_;
    FrameReader reader_{FrameReader::Side::kClient};
    std::unique_ptr<http1::Parser> http_;  // only while the upgrade is under way
    bool info_sent_ = false;
    bool first_frame_seen_ = false;
    bool got_server_info_ = false;
    bool closed_ = false;
    bool error_reported_ = false;
    std::string closed_why_;
    Event event_;

    Bytes control_;        // frames that go before all packets (login, pongs, pings)
    SendQueue disco_;
    SendQueue data_;
    Bytes out_;            // being written
    size_t out_sent_ = 0;

    std::optional<bool> preferred_wanted_;
    bool preferred_sent_ = false;
    bool watch_wanted_ = false;

    Time started_;
    Time last_rx_;
    Time first_unanswered_tx_;  // zero: heard something since we last sent
    Time ping_sent_;            // zero: none under way
    bool silent_ = false;
    uint64_t ping_id_ = 0;

    double tokens_ = 0;
    double token_rate_ = 0;  // bytes/s, 0 = no limit
    double token_burst_ = 0;
    Time tokens_at_;

    ClientStats stats_;
};

}  // namespace mesh::derp
