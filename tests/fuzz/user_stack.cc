// SPDX-License-Identifier: BSD-3-Clause
// Packets from a peer to the stack without a TUN: a connection is open, and the input is a list of segments of it or of others, as
// fields that are made right (lengths, checksums) or not. Nothing may break, and the tables stay bounded.

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "netstack/user/tcp_packets.h"
#include "netstack/user/user_stack.h"
#include "tests/fuzz/growth.h"

using namespace mesh;
using namespace mesh::netstack;

namespace {

const Endpoint kPeer{Addr::v4(100, 64, 0, 2), 40000}, kOwn{Addr::v4(100, 64, 0, 1), 80};

struct Program final : UserStack::Listener {
    UserStack* stack = nullptr;
    Time now{1'000'000'000};
    void on_flow(FlowId flow, const Endpoint& remote, const Endpoint&) override {
        if (remote.port % 3 == 0)
            stack->refuse(flow);
        else
            (void)stack->accept(flow, now);
    }
    void on_connected(FlowId flow) override { (void)stack->write(flow, as_bytes("hello, who is there?"), now); }
    void on_bytes(FlowId flow, ByteSpan bytes) override {
        CHECK(!bytes.empty());
        stack->consumed(flow, bytes.size());
        (void)stack->write(flow, bytes, now);
    }
    void on_writable(FlowId) override {}
    void on_peer_finished(FlowId flow) override { stack->close(flow, now); }
    void on_gone(FlowId flow, UserStack::Gone) override { CHECK(!stack->is_open(flow)); }
    void on_datagram(const Endpoint&, const Endpoint&, ByteSpan) override {}
    void on_ping(ByteSpan, const Parsed&) override {}
    void on_output() override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static Program program;
    static SeededRandom random(1);
    UserStack stack(random, program, 1280);
    program.stack = &stack;
    stack.set_self({kOwn.addr});
    fuzz::equipment_ready();
    uint32_t seq = 1000, ack = 0;
    WireReader r({data, size});
    for (int i = 0; i < 64 && r.remaining() > 0; ++i) {
        const uint8_t how = r.u8();
        if (how == 0xFF) {  // bytes as they are
            stack.input(r.take(std::min<size_t>(r.u8(), r.remaining())), program.now);
            stack.dispatch();
            continue;
        }
        const uint8_t flags = r.u8();
        const size_t options = std::min<size_t>((how & 3U) * 4U, r.remaining() & ~size_t{3}), payload = std::min<size_t>(how >> 4U, r.remaining());
        Bytes packet(kV4 + kTcpHeader);
        uint8_t* t = packet.data() + kV4;
        store_be32(t + 4, seq + ((how & 4U) != 0 ? r.u8() - 128U : 0));
        store_be32(t + 8, ack + ((how & 8U) != 0 ? r.u8() - 128U : 0));
        t[13] = flags & 0x3F;
        store_be16(t + 14, r.u8() * 257U & 0xFFFFU);
        const ByteSpan opt = r.take(std::min(options, r.remaining() & ~size_t{3})), body = r.take(std::min(payload, r.remaining()));
        packet.insert(packet.end(), opt.begin(), opt.end());
        packet.insert(packet.end(), body.begin(), body.end());
        packet[kV4 + 12] = static_cast<uint8_t>((kTcpHeader + opt.size()) / 4 * 16);
        Endpoint from = kPeer;
        from.port = static_cast<uint16_t>(from.port + (flags >> 6));
        finish_tcp(packet.data(), from, kOwn, packet.size() - kV4);
        seq += static_cast<uint32_t>(body.size()) + ((flags & (kTcpSyn | kTcpFin)) != 0 ? 1U : 0U);
        stack.input(packet, program.now);
        stack.dispatch();
        for (const TunRead& out : stack.take()) {
            Parsed p;
            CHECK(parse(out.bytes, p) && p.proto == kProtoTcp && p.src == kOwn.addr);
            ack = load_be32(out.bytes.data() + p.ip_len + 4) + p.payload_len() + ((p.tcp_flags & (kTcpSyn | kTcpFin)) != 0 ? 1U : 0U);
        }
        program.now = program.now + milliseconds(how);
        stack.handle_timeout(program.now);
    }
    CHECK(stack.flows() <= 5);
    return 0;
}
