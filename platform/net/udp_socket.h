// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A UDP socket that reads and writes in batches: recvmmsg with UDP_GRO, sendmmsg with UDP_SEGMENT. It knows nothing of
/// what the datagrams mean. No allocation per datagram. TS_DEBUG_DISABLE_UDP_GSO / _GRO turn the offloads off.

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <span>

#include "base/packet.h"
#include "base/result.h"
#include "platform/fd.h"
#include "platform/loop/loop.h"
#include "platform/net/socket_mark.h"

namespace mesh::platform {

class UdpSocket {
   public:
    struct Options {
        Addr::Family family = Addr::Family::kV4;
        /// 0 = any. A port that is taken is replaced by any other unless `exact_port`.
        uint16_t port = 0;
        bool exact_port = false;
        bool shared = false;  ///< others may have the port too; of use for what is sent to a group
        Addr bind_addr;  ///< invalid = all addresses of the family
        Protect protect = Protect::kYes;
        /// Bulk sockets get 7 MiB kernel buffers, offloads and 512 KiB to read into; small ones 64 KiB and no offloads.
        bool bulk = true;
        /// nullptr = the system's. Tests put a network card without checksums, or a full buffer, in its place.
        int (*sendmmsg)(int, mmsghdr*, unsigned, int) = nullptr;
    };
    class SendErrors {
       public:
        virtual ~SendErrors() = default;
        /// Called from inside send(), so keep it short and do not send from it. `err` is an errno.
        virtual void on_send_error(const Endpoint& to, int err) = 0;
    };
    /// Must outlive the socket.
    class Listener : public SendErrors {
       public:
        /// The spans are valid, and may be written to, until this returns. May destroy the socket.
        virtual void on_datagrams(std::span<UdpReceive> batch) = 0;
        /// All of one wakeup has been delivered: flush what was gathered.
        virtual void on_batch_end() {}
    };
    struct Counters {
        uint64_t rx_datagrams = 0, rx_bytes = 0;
        uint64_t rx_truncated = 0;      ///< larger than a buffer, dropped
        uint64_t rx_kernel_drops = 0;   ///< SO_RXQ_OVFL: the socket's queue was full
        uint64_t tx_datagrams = 0, tx_bytes = 0;
        uint64_t tx_full = 0;           ///< messages dropped because the kernel's buffer stayed full
        uint64_t tx_errors = 0;         ///< messages the kernel refused
        uint64_t gso_turned_off = 0;    ///< 0 or 1
    };

    [[nodiscard]] static Result<std::unique_ptr<UdpSocket>> open(const Options& options);
    ~UdpSocket();

    /// Starts reading on `loop`. Until then, and after detach(), only send() works.
    void attach(Loop& loop, Listener& listener);
    void detach();

    /// Sends all messages or drops them (counted, reported). A UdpSend with bytes.size() ≤ segment or segment 0 is one
    /// datagram. Consecutive sends to one endpoint with equal segment are joined. Waits at most 2 ms for buffer space.
    void send(std::span<const UdpSend> batch) { send(batch, listener_); }
    /// The same, and `errors` (may be null) hears of failures instead of the listener. May run on another thread beside
    /// reading, never beside another send().
    void send(std::span<const UdpSend> batch, SendErrors* errors);
    /// One datagram.
    void send(const Endpoint& to, ByteSpan datagram);

    [[nodiscard]] uint16_t local_port() const { return local_port_; }
    [[nodiscard]] Endpoint local_endpoint() const;
    [[nodiscard]] Addr::Family family() const { return family_; }
    [[nodiscard]] bool gso() const { return gso_; }
    [[nodiscard]] bool gro() const { return gro_; }
    [[nodiscard]] const Counters& counters() const { return counters_; }
    [[nodiscard]] int fd() const { return fd_.get(); }
    /// After a change of the default route (only matters without SO_MARK).
    void protect_again();

   private:
    struct Buffers;
    UdpSocket();
    void on_readable();
    [[nodiscard]] int receive_batch();
    void flush_messages(size_t count);
    void send_uncoalesced(size_t message);
    [[nodiscard]] bool wait_writable();
    void note_error(const Endpoint& to, int err);

    UniqueFd fd_;
    Addr::Family family_ = Addr::Family::kNone;
    uint16_t local_port_ = 0;
    bool gso_ = false;
    bool gro_ = false;
    Protect protect_ = Protect::kNo;
    bool waited_ = false;
    int (*sendmmsg_)(int, mmsghdr*, unsigned, int) = nullptr;
    Counters counters_;
    Listener* listener_ = nullptr;
    SendErrors* errors_ = nullptr;  // of the send() under way
    std::unique_ptr<Buffers> buffers_;
    bool* gone_ = nullptr;  // set to true by the destructor when on_readable is on the stack
    std::unique_ptr<FdPoll> poll_;
};

}  // namespace mesh::platform
