// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// TCP/IP of a node without a TUN: packets of the tunnel in and out on one side, connections and datagrams on the other.
/// Pure: bytes and time in, bytes and events out.
///
/// lwIP does TCP. It sees one peer and one address of its own; each connection has a slot here, and its number is the port that
/// lwIP takes for the peer's. Real addresses and ports (IPv4 and IPv6 alike) are put back on the way out, and checksums are
/// checked and made here. So connections to any destination can be taken, and those of a client cannot collide.
///
/// lwIP is one per process, and so is an object of this class at a time.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/ip.h"
#include "base/packet.h"
#include "base/random.h"
#include "base/time.h"
#include "netstack/packet.h"

namespace mesh::netstack {

/// A connection. Never means another one, even after its slot was given anew.
struct FlowId {
    uint32_t slot = 0;
    uint32_t generation = 0;  ///< 0: none
    bool operator==(const FlowId&) const = default;
};

class UserStack {
   public:
    static constexpr size_t kMaxFlows = 4096;
    /// Connections that wait for accept() or refuse().
    static constexpr size_t kMaxHeld = 1024;
    /// Of one peer address, of either kind; two thirds, so that nobody can shut the others out.
    static constexpr size_t kMaxFlowsPerPeer = kMaxFlows * 2 / 3;
    static constexpr size_t kMaxHeldPerPeer = kMaxHeld * 2 / 3;
    static constexpr size_t kMaxHeapBytes = size_t{64} << 20;   ///< all of lwIP's memory
    static constexpr size_t kMaxOutBytes = size_t{4} << 20;     ///< packets not taken yet; more are dropped
    static constexpr size_t kWindow = size_t{1} << 20;          ///< bytes of one connection not yet consumed()

    enum class Gone : uint8_t { kClosed, kReset, kTimeout };

    /// Called from inside input(), dispatch() and handle_timeout(); every function but these three may be called from inside.
    class Listener {
       public:
        virtual ~Listener() = default;
        /// Somebody in the tunnel wants to connect. Its SYN is held until accept() or refuse(), one of which must follow.
        virtual void on_flow(FlowId flow, const Endpoint& remote, const Endpoint& local) = 0;
        /// A connect() has succeeded, or an accept()ed peer has confirmed.
        virtual void on_connected(FlowId flow) = 0;
        /// All of `bytes` is the listener's; consumed() opens the window again.
        virtual void on_bytes(FlowId flow, ByteSpan bytes) = 0;
        /// After write() took less than it was given.
        virtual void on_writable(FlowId flow) = 0;
        /// Nothing more comes from the peer; writing is still possible.
        virtual void on_peer_finished(FlowId flow) = 0;
        /// The connection is no more and `flow` is void. Not called after close(), reset() or refuse().
        virtual void on_gone(FlowId flow, Gone why) = 0;
        virtual void on_datagram(const Endpoint& remote, const Endpoint& local, ByteSpan payload) = 0;
        /// An echo request to an address that is not our own, checksum not looked at.
        virtual void on_ping(ByteSpan packet, const Parsed& parsed) = 0;
        /// take() has something. Comes from inside any function, so only take a note.
        virtual void on_output() = 0;
    };

    struct Counters {
        uint64_t malformed = 0;    ///< packets that no one can use: checksums, fragments, unknown protocols
        uint64_t refused = 0;      ///< connections for want of room
        uint64_t out_full = 0;     ///< packets dropped because nobody took them
        uint64_t out_of_memory = 0;
    };

    /// Both must outlive this object. `mtu`: of the tunnel, 576..9000.
    UserStack(Random& random, Listener& listener, size_t mtu);
    ~UserStack();
    UserStack(const UserStack&) = delete;
    UserStack& operator=(const UserStack&) = delete;

    /// Our own addresses: pings to them are answered here.
    void set_self(std::vector<Addr> self);
    /// One packet from the tunnel. After the last of a batch: dispatch().
    void input(ByteSpan packet, Time now);
    /// What the packets brought is told.
    void dispatch();
    /// The packets for the tunnel, in order. Valid until the next call of take().
    [[nodiscard]] std::span<TunRead> take();
    /// One packet for the tunnel as it is.
    void emit(ByteSpan packet);

    /// From `self` to `to`, same family. nullopt: no room.
    [[nodiscard]] std::optional<FlowId> connect(const Addr& self, const Endpoint& to, Time now);
    /// Answers the SYN. False if the peer has given up meanwhile; `flow` is void then.
    bool accept(FlowId flow, Time now);
    /// Answers it by RST.
    void refuse(FlowId flow);
    /// How much of `bytes` was taken; if not all, on_writable() follows.
    size_t write(FlowId flow, ByteSpan bytes, Time now);
    void consumed(FlowId flow, size_t bytes);
    /// After what was written: FIN. Reading goes on.
    void finish(FlowId flow, Time now);
    /// Orderly end; what was written is still delivered. What comes from the peer from now on resets the connection.
    void close(FlowId flow, Time now);
    void reset(FlowId flow);
    [[nodiscard]] bool is_open(FlowId flow) const;

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

    [[nodiscard]] size_t flows() const;  ///< all slots in use, those of ended connections (some seconds) included
    [[nodiscard]] const Counters& counters() const;
    [[nodiscard]] static size_t heap_bytes();  ///< of lwIP, now

   private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mesh::netstack
