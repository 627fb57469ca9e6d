// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/user/user_stack.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/check.h"
#include "lwip/init.h"
#include "lwip/ip4.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"
#include "netstack/checksum.h"
#include "netstack/icmp.h"
#include "netstack/user/flow_table.h"
#include "netstack/user/lwip_port.h"
#include "netstack/user/out_queue.h"
#include "netstack/user/tcp_packets.h"

namespace mesh::netstack {

namespace {

// What lwIP sees: one peer, one address of its own, one port where everything ends that comes from outside.
const ip4_addr_t kPeerAddr{PP_HTONL(LWIP_MAKEU32(10, 0, 0, 1))};
const ip4_addr_t kOwnAddr{PP_HTONL(LWIP_MAKEU32(10, 0, 0, 2))};
const ip4_addr_t kMask{PP_HTONL(LWIP_MAKEU32(255, 255, 255, 0))};
constexpr uint16_t kListenPort = 1;

constexpr Duration kTick = milliseconds(TCP_TMR_INTERVAL);
constexpr Duration kSlowTick = milliseconds(2 * TCP_TMR_INTERVAL);
constexpr Duration kQuietTick = seconds(1);  // with nothing under way
constexpr uint32_t kKeepIdleMs = 600'000, kKeepIntervalMs = 75'000;
constexpr uint16_t kFirstPort = 32768, kLastPort = 60999;  // as Linux chooses them
constexpr size_t kMaxTcpWrite = 0xFFFF;

static_assert(UserStack::kWindow == TCP_WND);
static_assert(UserStack::kMaxFlows < kFirstPort);

void* g_stack = nullptr;

/// Addresses that no packet may carry. A kernel drops them; here they would become a program's own host: an exit node lets peers go
/// anywhere in the internet, but not to 127.0.0.1, [::1] or 0.0.0.0 of its own.
bool is_martian(const Addr& a) {
    const bool mapped = a.is_v6() && Addr::v6_bytes(a.bytes().data()).is_v4();
    return mapped || a.is_loopback() || a.is_unspecified() || a.is_multicast();
}

}  // namespace

class UserStack::Impl {
   public:
    Impl(Random& random, Listener& listener, size_t mtu) : random_(random), listener_(listener), flows_(random) {
        CHECK(g_stack == nullptr);
        g_stack = this;
        lwip_port::random = &random;
        lwip_port::heap_limit = kMaxHeapBytes;
        static netif& link = start_lwip();
        netif_ = &link;
        netif_->mtu = static_cast<u16_t>(std::clamp(mtu, size_t{576}, size_t{9000}) - (kV6 - kV4));  // room for the longer header
    }
    ~Impl() {
        quiet_ = true;
        for (uint32_t slot = 0; slot < flows_.slots(); ++slot)
            if (flows_[slot].state != FlowState::kFree) drop(slot, true);
        g_stack = nullptr;
        lwip_port::random = nullptr;
    }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    // ---- packets

    void input(ByteSpan bytes, Time now) {
        Parsed p;
        if (!parse(bytes, p) || p.fragment != Fragment::kWhole || p.header_len() > p.total) return bad();
        if (is_martian(p.src) || is_martian(p.dst)) return bad();
        const ByteSpan packet = bytes.first(p.total);
        if (p.proto == kProtoTcp || p.proto == kProtoUdp) {
            const bool without = p.proto == kProtoUdp && p.version == 4 && load_be16(packet.data() + p.ip_len + 6) == 0;
            if (p.l4_len == 0 || (!without && !l4_checksum_ok(packet, p.version, p.ip_len, p.proto))) return bad();
            if (p.proto == kProtoTcp) return tcp(packet, p, now);
            const size_t length = load_be16(packet.data() + p.ip_len + 4);
            if (length < 8 || length > packet.size() - p.ip_len) return bad();
            return listener_.on_datagram({p.src, p.src_port}, {p.dst, p.dst_port}, packet.subspan(p.header_len(), length - 8));
        }
        if (!p.is_echo_request()) return bad();
        if (std::find(self_.begin(), self_.end(), p.dst) == self_.end()) return listener_.on_ping(packet, p);
        Bytes reply = to_bytes(packet);
        make_echo_reply(reply, p);
        emit(reply);
    }

    void emit(ByteSpan packet) {
        uint8_t* at = reserve(packet.size());
        if (at != nullptr) std::memcpy(at, packet.data(), packet.size());
    }

    std::span<TunRead> take() { return out_.take(); }

    /// From lwIP: IPv4, without checksums.
    err_t output(const pbuf* chain) {
        std::array<uint8_t, kV4 + 60> head;
        const size_t have = pbuf_copy_partial(chain, head.data(), head.size(), 0);
        if (have < kV4 + 20) return ERR_VAL;
        const uint32_t slot = uint32_t{load_be16(head.data() + kV4 + 2)} - 1;
        if (slot >= flows_.slots() || flows_[slot].state == FlowState::kFree) return ERR_OK;
        const FlowKey& key = flows_[slot].key;
        const auto l4 = static_cast<u16_t>(chain->tot_len - kV4);
        const size_t ip_len = key.remote.addr.is_v4() ? kV4 : kV6;
        uint8_t* at = reserve(ip_len + l4);
        if (at == nullptr) return ERR_OK;  // as a network would
        pbuf_copy_partial(chain, at + ip_len, l4, kV4);
        finish_tcp(at, key.local, key.remote, l4);
        return ERR_OK;
    }

    // ---- connections

    std::optional<FlowId> connect(const Addr& self, const Endpoint& to, Time now) {
        if (self.is_v4() != to.addr.is_v4() || !self.is_valid()) return std::nullopt;
        FlowKey key{to, {self, 0}};
        for (int i = 0; i < 64 && (key.local.port == 0 || flows_.contains(key)); ++i)
            key.local.port = static_cast<uint16_t>(kFirstPort + random_.below(kLastPort - kFirstPort + 1));
        if (flows_.contains(key)) return std::nullopt;
        const auto slot = make(key);
        if (!slot) return std::nullopt;
        Flow& f = flows_[*slot];
        f.state = FlowState::kOpening;
        stir(now);
        tcp_pcb* pcb = tcp_new();
        if (pcb == nullptr) {
            ++counters_.out_of_memory;
            drop(*slot, false);
            return std::nullopt;
        }
        adopt(*slot, pcb);
        ip_addr_t peer;
        ip_addr_copy_from_ip4(peer, kPeerAddr);
        if (tcp_connect(pcb, &peer, port_of(*slot), [](void* arg, tcp_pcb*, err_t) { return current().told_connected(arg); }) != ERR_OK) {
            drop(*slot, true);
            return std::nullopt;
        }
        return flows_.id(*slot);
    }

    bool accept(FlowId flow, Time now) {
        Flow* f = flows_.find(flow);
        if (f == nullptr || f->state != FlowState::kHeld) return false;
        f->state = FlowState::kOpening;
        --held_;
        const Bytes syn = std::exchange(f->syn, {});
        stir(now);
        feed(flow.slot, syn);
        if (f->pcb != nullptr) return true;
        drop(flow.slot, false);  // no memory; the peer's next SYN asks again
        return false;
    }

    void refuse(FlowId flow) {
        Flow* f = flows_.find(flow);
        if (f == nullptr || f->state != FlowState::kHeld) return;
        reset_for(f->syn);
        drop(flow.slot, false);
    }

    size_t write(FlowId flow, ByteSpan bytes, Time now) {
        Flow* f = open(flow);
        if (f == nullptr) return 0;
        stir(now);
        size_t done = 0;
        while (done < bytes.size()) {
            const size_t n = std::min({bytes.size() - done, size_t{tcp_sndbuf(f->pcb)}, kMaxTcpWrite});
            if (n == 0 || tcp_write(f->pcb, bytes.data() + done, static_cast<u16_t>(n), TCP_WRITE_FLAG_COPY) != ERR_OK) break;
            done += n;
        }
        f->wants_room = done < bytes.size();
        tcp_output(f->pcb);
        return done;
    }

    void consumed(FlowId flow, size_t bytes) {
        Flow* f = flows_.find(flow);
        if (f == nullptr || f->pcb == nullptr || f->state == FlowState::kClosing) return;
        give_credit(*f, std::min(bytes, f->unconsumed));
    }

    void finish(FlowId flow, Time now) {
        Flow* f = open(flow);
        if (f == nullptr) return;
        stir(now);
        tcp_shutdown(f->pcb, 0, 1);  // without memory lwIP tries again
    }

    void close(FlowId flow, Time now) {
        Flow* f = flows_.find(flow);
        if (f == nullptr || f->state == FlowState::kClosing) return;
        if (f->state == FlowState::kHeld) return refuse(flow);
        stir(now);
        give_credit(*f, f->unconsumed);  // lwIP would reset what has not read all
        f->state = FlowState::kClosing;
        forget_received(*f);
        if (f->pcb != nullptr) tcp_close(f->pcb);
        if (f->pcb == nullptr) drop(flow.slot, false);
    }

    void reset(FlowId flow) {
        Flow* f = flows_.find(flow);
        if (f == nullptr) return;
        if (f->state == FlowState::kHeld) return refuse(flow);
        drop(flow.slot, true);
    }

    bool is_open(FlowId flow) const {
        const Flow* f = flows_.find(flow);
        return f != nullptr && f->state != FlowState::kClosing;
    }

    // ---- time

    Time next_timeout() const { return next_tick_; }

    void handle_timeout(Time now) {
        if (next_tick_.is_never() || now < next_tick_) return;
        set_now(now);
        count_ticks(now, 1);
        for (tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr; pcb = pcb->next) stop_persisting(*pcb);
        tcp_fasttmr();
        if ((ticks_++ % 2) == 0 || coarse_) tcp_slowtmr();
        last_tick_ = now;
        // Writers that memory failed are told nothing by lwIP.
        for (uint32_t slot = 0; slot < flows_.slots(); ++slot) {
            Flow& f = flows_[slot];
            if (f.wants_room && f.pcb != nullptr && f.pcb->unsent == nullptr && f.pcb->unacked == nullptr) {
                f.writable = true;
                touch(slot);
            }
        }
        arm(now);
        dispatch();
    }

    /// Tells the listener what lwIP has told.
    void dispatch() {
        for (size_t i = 0; i < touched_.size(); ++i) {
            const uint32_t slot = touched_[i];
            flows_[slot].touched = false;
            tell(slot, flows_.id(slot));
        }
        touched_.clear();
    }

    // ---- from lwIP; nothing here calls the listener but on_output()

    static Impl& current() { return *static_cast<Impl*>(g_stack); }

    err_t told_passive(tcp_pcb* pcb) {
        const uint32_t slot = uint32_t{pcb->remote_port} - 1;
        if (slot >= flows_.slots() || flows_[slot].state != FlowState::kOpening || flows_[slot].pcb != nullptr) return ERR_ABRT;
        adopt(slot, pcb);
        return ERR_OK;
    }
    err_t told_connected(void* arg) {
        const uint32_t slot = slot_of(arg);
        flows_[slot].connected = true;
        touch(slot);
        return ERR_OK;
    }
    err_t told_received(void* arg, pbuf* bytes) {
        const uint32_t slot = slot_of(arg);
        Flow& f = flows_[slot];
        if (bytes == nullptr)
            f.finished = true;
        else
            f.received.push_back(bytes);
        touch(slot);
        return ERR_OK;
    }
    err_t told_sent(void* arg) {
        const uint32_t slot = slot_of(arg);
        Flow& f = flows_[slot];
        if (f.wants_room && f.pcb->snd_buf >= TCP_SNDLOWAT) {  // tcp_sndbuf() ends at 65,535
            f.writable = true;
            touch(slot);
        }
        return ERR_OK;
    }
    void told_error(void* arg, err_t err) { flows_[slot_of(arg)].why = err == ERR_RST ? Gone::kReset : err == ERR_ABRT ? Gone::kTimeout : Gone::kClosed; }
    void told_destroyed(void* arg) {
        const uint32_t slot = slot_of(arg);
        flows_[slot].pcb = nullptr;
        flows_[slot].gone = true;
        touch(slot);
    }
    std::vector<Addr> self_;
    Counters counters_;
    [[nodiscard]] size_t used() const { return flows_.used(); }

   private:
    static constexpr size_t kGather = size_t{64} << 10;

    static const tcp_ext_arg_callbacks* of_connection() {
        static const tcp_ext_arg_callbacks all{[](u8_t, void* arg) { current().told_destroyed(arg); }, nullptr};
        return &all;
    }
    static const tcp_ext_arg_callbacks* of_listener() {
        static const tcp_ext_arg_callbacks all{nullptr, [](u8_t, tcp_pcb_listen*, tcp_pcb* pcb) { return current().told_passive(pcb); }};
        return &all;
    }

    /// Once per process.
    static netif& start_lwip() {
        static netif link;
        lwip_init();
        netif_add(&link, &kOwnAddr, &kMask, &kPeerAddr, nullptr,
                  [](netif* n) {
                      n->name[0] = 'u';
                      n->name[1] = 's';
                      n->output = [](netif*, pbuf* p, const ip4_addr_t*) { return current().output(p); };
                      return err_t{ERR_OK};
                  },
                  ip4_input);
        netif_set_default(&link);
        netif_set_up(&link);
        netif_set_link_up(&link);
        tcp_pcb* listener = tcp_new();
        CHECK(listener != nullptr);
        CHECK(tcp_ext_arg_alloc_id() == 0);
        tcp_ext_arg_set_callbacks(listener, 0, of_listener());
        CHECK(tcp_bind(listener, IP_ADDR_ANY, kListenPort) == ERR_OK);
        listener = tcp_listen(listener);
        CHECK(listener != nullptr);
        tcp_accept(listener, [](void* arg, tcp_pcb*, err_t err) { return err == ERR_OK ? current().told_connected(arg) : err_t{ERR_OK}; });
        return link;
    }

    static uint16_t port_of(uint32_t slot) { return static_cast<uint16_t>(slot + 1); }
    static uint32_t slot_of(void* arg) { return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg)); }
    void bad() { ++counters_.malformed; }

    Flow* open(FlowId flow) {
        Flow* f = flows_.find(flow);
        return f != nullptr && f->state == FlowState::kOpen && f->pcb != nullptr ? f : nullptr;
    }

    void adopt(uint32_t slot, tcp_pcb* pcb) {
        flows_[slot].pcb = pcb;
        void* arg = reinterpret_cast<void*>(uintptr_t{slot});
        tcp_arg(pcb, arg);
        tcp_ext_arg_set_callbacks(pcb, 0, of_connection());
        tcp_ext_arg_set(pcb, 0, arg);
        tcp_recv(pcb, [](void* a, tcp_pcb*, pbuf* p, err_t) { return current().told_received(a, p); });
        tcp_sent(pcb, [](void* a, tcp_pcb*, u16_t) { return current().told_sent(a); });
        tcp_err(pcb, [](void* a, err_t err) { current().told_error(a, err); });
        ip_set_option(pcb, SOF_KEEPALIVE);
        pcb->keep_idle = kKeepIdleMs;
        pcb->keep_intvl = kKeepIntervalMs;
        tcp_nagle_disable(pcb);  // whoever writes here has done its own waiting
    }

    std::optional<uint32_t> make(const FlowKey& key) {
        const Addr& peer = key.remote.addr;
        // What only waits for stray packets makes room.
        if (flows_.of_peer(peer) >= kMaxFlowsPerPeer)
            end_waiting(&peer);
        else if (flows_.used() >= kMaxFlows)
            end_waiting(nullptr);
        if (flows_.used() >= kMaxFlows || flows_.of_peer(peer) >= kMaxFlowsPerPeer) {
            ++counters_.refused;
            return std::nullopt;
        }
        return flows_.add(key);
    }

    void end_waiting(const Addr* peer) {
        for (uint32_t slot = 0; slot < flows_.slots(); ++slot) {
            const Flow& f = flows_[slot];
            if (f.state == FlowState::kClosing && f.pcb != nullptr && f.pcb->state == TIME_WAIT && (peer == nullptr || f.key.remote.addr == *peer))
                drop(slot, true);
        }
    }

    static void forget_received(Flow& f) {
        for (pbuf* b : f.received) pbuf_free(b);
        f.received.clear();
    }

    /// The slot is free afterwards, and nobody is told.
    void drop(uint32_t slot, bool abort) {
        Flow& f = flows_[slot];
        if (f.state == FlowState::kHeld) --held_;
        if (f.pcb != nullptr && abort) {
            tcp_err(f.pcb, nullptr);
            tcp_abort(f.pcb);
        }
        CHECK(f.pcb == nullptr);
        forget_received(f);
        flows_.remove(slot);
    }

    void give_credit(Flow& f, size_t bytes) {
        f.unconsumed -= bytes;
        while (bytes > 0 && f.pcb != nullptr) {
            const size_t n = std::min(bytes, size_t{0xFFFF});
            tcp_recved(f.pcb, static_cast<u16_t>(n));
            bytes -= n;
        }
    }

    void tcp(ByteSpan packet, const Parsed& p, Time now) {
        if (!tcp_options_ok(packet.subspan(p.ip_len, p.l4_len))) return bad();
        const FlowKey key{{p.src, p.src_port}, {p.dst, p.dst_port}};
        auto known = flows_.find(key);
        if (known && p.is_tcp_syn()) {
            // The peer has long done with what still waits here for stray packets.
            const Flow& f = flows_[*known];
            if (f.pcb != nullptr && f.pcb->state == TIME_WAIT && f.state == FlowState::kClosing) {
                drop(*known, true);
                known.reset();
            }
        }
        if (!known) return p.is_tcp_syn() && (p.tcp_flags & kTcpRst) == 0 ? hold(key, packet) : reset_for(packet);
        const uint32_t slot = *known;
        Flow& f = flows_[slot];
        if (f.state == FlowState::kHeld) {
            if ((p.tcp_flags & kTcpRst) == 0) return;  // its SYN once more
            const FlowId flow = flows_.id(slot);
            drop(slot, false);
            return listener_.on_gone(flow, Gone::kReset);
        }
        stir(now);
        feed(slot, packet);
    }

    void hold(const FlowKey& key, ByteSpan packet) {
        size_t of_peer = 0;
        if (held_ >= kMaxHeldPerPeer)
            for (const Flow& f : flows_) of_peer += f.state == FlowState::kHeld && f.key.remote.addr == key.remote.addr ? 1U : 0U;
        const auto slot = held_ < kMaxHeld && of_peer < kMaxHeldPerPeer ? make(key) : std::nullopt;
        if (!slot) {
            ++counters_.refused;
            return;  // the peer asks again
        }
        Flow& f = flows_[*slot];
        f.state = FlowState::kHeld;
        ++held_;
        f.syn = to_bytes(packet);
        listener_.on_flow(flows_.id(*slot), key.remote, key.local);
    }

    /// A packet of this flow to lwIP.
    void feed(uint32_t slot, ByteSpan packet) {
        Parsed p;
        if (!parse(packet, p)) return bad();
        const size_t l4 = p.total - p.ip_len;
        const Flow& f = flows_[slot];
        pbuf* b = pbuf_alloc(PBUF_RAW, static_cast<u16_t>(kV4 + l4), PBUF_RAM);
        if (b == nullptr || kV4 + l4 > 0xFFFF) {
            if (b != nullptr) pbuf_free(b);
            ++counters_.out_of_memory;
            return;
        }
        auto* at = static_cast<uint8_t*>(b->payload);
        std::memset(at, 0, kV4);
        at[0] = 0x45;
        store_be16(at + 2, static_cast<uint16_t>(kV4 + l4));
        at[8] = 64;
        at[9] = kProtoTcp;
        std::memcpy(at + 12, &kPeerAddr, 4);
        std::memcpy(at + 16, &kOwnAddr, 4);
        std::memcpy(at + kV4, packet.data() + p.ip_len, l4);
        store_be16(at + kV4, port_of(slot));
        store_be16(at + kV4 + 2, f.pcb != nullptr ? f.pcb->local_port : kListenPort);
        ip4_input(b, netif_);
    }

    void reset_for(ByteSpan packet) {
        std::array<uint8_t, kV6 + kTcpHeader> rst;
        if (const size_t n = build_reset(packet, rst); n > 0) emit(ByteSpan(rst).first(n));
    }

    /// Room for one packet in the queue; null if it is full.
    uint8_t* reserve(size_t bytes) {
        const bool first = out_.empty();
        uint8_t* at = quiet_ ? nullptr : out_.reserve(bytes);
        if (at == nullptr)
            ++counters_.out_full;
        else if (first)
            listener_.on_output();
        return at;
    }

    void touch(uint32_t slot) {
        if (std::exchange(flows_[slot].touched, true)) return;
        touched_.push_back(slot);
    }

    void tell(uint32_t slot, FlowId flow) {
        // The listener may do anything in between, so nothing is held over a call.
        const auto here = [&] { return flows_.find(flow) != nullptr && flows_[slot].state != FlowState::kClosing; };
        const auto due = [&](bool Flow::*what) { return here() && std::exchange(flows_[slot].*what, false); };
        if (due(&Flow::connected)) {
            flows_[slot].state = FlowState::kOpen;
            listener_.on_connected(flow);
        }
        if (here() && !flows_[slot].received.empty()) {
            const std::vector<pbuf*> all = std::exchange(flows_[slot].received, {});
            const auto give = [&](ByteSpan bytes) {
                if (bytes.empty() || !here()) return;
                flows_[slot].unconsumed += bytes.size();
                listener_.on_bytes(flow, bytes);
            };
            // Many small pieces become one, for the sake of whoever writes them to a socket.
            gathered_.clear();
            for (pbuf* chain : all) {
                for (const pbuf* b = chain; b != nullptr; b = b->next) {
                    const ByteSpan piece{static_cast<const uint8_t*>(b->payload), b->len};
                    if (gathered_.size() + piece.size() > kGather) {
                        give(gathered_);
                        gathered_.clear();
                    }
                    gathered_.insert(gathered_.end(), piece.begin(), piece.end());
                }
                pbuf_free(chain);
            }
            give(gathered_);
        }
        if (due(&Flow::finished)) listener_.on_peer_finished(flow);
        if (due(&Flow::writable) && flows_[slot].wants_room) {
            flows_[slot].wants_room = false;
            listener_.on_writable(flow);
        }
        if (flows_.find(flow) == nullptr || flows_[slot].pcb != nullptr || !flows_[slot].gone) return;
        const bool told = flows_[slot].state != FlowState::kClosing;
        const Gone why = flows_[slot].why;
        drop(slot, false);
        if (told) listener_.on_gone(flow, why);
    }

    // ---- time

    /// A peer that acknowledges a probe of its closed window, and all else, leaves lwIP's persist timer running with nothing to send, or with
    /// data on its way; an assertion of lwIP's would end this program.
    static void stop_persisting(tcp_pcb& pcb) {
        if (pcb.persist_backoff == 0 || (pcb.unsent != nullptr && pcb.unacked == nullptr)) return;
        pcb.persist_backoff = 0;
        if (pcb.unacked != nullptr && pcb.rtime < 0) pcb.rtime = 0;
    }

    static void set_now(Time now) { lwip_port::now_ms = static_cast<uint32_t>(now.ns / 1'000'000); }

    /// Slow ticks that lwIP was not told of while nothing was under way; `own`: how many it will count itself.
    void count_ticks(Time now, uint32_t own) {
        if (!coarse_ || last_tick_.is_zero()) return;
        const int64_t passed = (now - last_tick_).ns / kSlowTick.ns;
        if (passed > own) tcp_ticks += static_cast<uint32_t>(passed) - own;
    }

    /// Something is under way from now on.
    void stir(Time now) {
        set_now(now);
        if (!next_tick_.is_never() && !coarse_) return;
        if (next_tick_.is_never()) coarse_ = true;
        count_ticks(now, 0);
        last_tick_ = now;
        coarse_ = false;
        next_tick_ = now + kTick;
    }

    void arm(Time now) {
        bool busy = false;
        for (const tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr && !busy; pcb = pcb->next)
            busy = pcb->state != ESTABLISHED || pcb->unacked != nullptr || pcb->unsent != nullptr || pcb->ooseq != nullptr ||
                   (pcb->flags & (TF_ACK_DELAY | TF_ACK_NOW | TF_CLOSEPEND)) != 0;
        for (const Flow& f : flows_) busy = busy || f.wants_room;
        coarse_ = !busy;
        if (busy)
            next_tick_ = now + kTick;
        else
            next_tick_ = tcp_active_pcbs != nullptr || tcp_tw_pcbs != nullptr ? now + kQuietTick : Time::never();
    }

    Random& random_;
    Listener& listener_;
    netif* netif_ = nullptr;
    FlowTable flows_;
    std::vector<uint32_t> touched_;
    size_t held_ = 0;
    bool quiet_ = false;  // the end: nothing leaves any more
    OutQueue out_{kMaxOutBytes};
    Bytes gathered_;
    Time next_tick_ = Time::never(), last_tick_;
    bool coarse_ = false;
    uint32_t ticks_ = 0;
};

UserStack::UserStack(Random& random, Listener& listener, size_t mtu) : impl_(std::make_unique<Impl>(random, listener, mtu)) {}
UserStack::~UserStack() = default;
void UserStack::set_self(std::vector<Addr> self) { impl_->self_ = std::move(self); }
void UserStack::input(ByteSpan packet, Time now) { impl_->input(packet, now); }
void UserStack::dispatch() { impl_->dispatch(); }
std::span<TunRead> UserStack::take() { return impl_->take(); }
void UserStack::emit(ByteSpan packet) { impl_->emit(packet); }
std::optional<FlowId> UserStack::connect(const Addr& self, const Endpoint& to, Time now) { return impl_->connect(self, to, now); }
bool UserStack::accept(FlowId flow, Time now) { return impl_->accept(flow, now); }
void UserStack::refuse(FlowId flow) { impl_->refuse(flow); }
size_t UserStack::write(FlowId flow, ByteSpan bytes, Time now) { return impl_->write(flow, bytes, now); }
void UserStack::consumed(FlowId flow, size_t bytes) { impl_->consumed(flow, bytes); }
void UserStack::finish(FlowId flow, Time now) { impl_->finish(flow, now); }
void UserStack::close(FlowId flow, Time now) { impl_->close(flow, now); }
void UserStack::reset(FlowId flow) { impl_->reset(flow); }
bool UserStack::is_open(FlowId flow) const { return impl_->is_open(flow); }
Time UserStack::next_timeout() const { return impl_->next_timeout(); }
void UserStack::handle_timeout(Time now) { impl_->handle_timeout(now); }
size_t UserStack::flows() const { return impl_->used(); }
const UserStack::Counters& UserStack::counters() const { return impl_->counters_; }
size_t UserStack::heap_bytes() { return lwip_port::heap; }

}  // namespace mesh::netstack
