// SPDX-License-Identifier: BSD-3-Clause
// Any bytes at a relay server with a bound pair: nothing moves a leg, nothing is answered that no client sealed, and what is
// forwarded came from one leg with the right header. First byte: where it comes from.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "magicsock/relay/handshake.h"
#include "magicsock/relay/server.h"
#include "tests/fuzz/growth.h"

namespace {

using namespace mesh;

struct World {
    SeededRandom random{3};
    DiscoPrivate key = DiscoPrivate::generate(random), a = DiscoPrivate::generate(random), b = DiscoPrivate::generate(random);
    relay::Server server{random, key};
    Endpoint at[3] = {*Endpoint::parse("192.0.2.1:1"), *Endpoint::parse("192.0.2.2:2"), *Endpoint::parse("192.0.2.3:3")};
    Time now{1'000'000'000};
    uint32_t vni = 0;

    World() {
        server.set_addrs({*Endpoint::parse("192.0.2.9:9")});
        const auto e = server.allocate(a.public_key(), b.public_key(), now);
        vni = e->vni;
        bind(a, b.public_key(), *e, at[0]);
        bind(b, a.public_key(), *e, at[1]);
        if (server.open() != 1) std::abort();
    }
    void bind(const DiscoPrivate& me, const DiscoPublic& other, const disco::RelayEndpoint& e, const Endpoint& from) {
        const auto shared = disco::SharedKey::derive(me, key.public_key());
        std::vector<relay::Handshake::Out> out;
        relay::Handshake h(e, other, 1, now, out);
        const auto send = [&](const disco::RelayBind& m) {
            const Bytes box = shared->seal(me.public_key(), disco::encode(m), random);
            (void)server.receive(relay::Geneve{relay::Geneve::kDisco, true, e.vni}.around(box), from, now);
        };
        send(out[0].message);
        const auto challenge = disco::parse(*shared->open(server.reply().subspan(relay::kGeneveLen)));
        h.heard_challenge(std::get<disco::RelayBind>(*challenge), e.addrs[0], e.vni, now, out);
        send(out.back().message);
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static World world;
    mesh::fuzz::equipment_ready();
    if (size == 0) return 0;
    const size_t from = data[0] % 3;
    const ByteSpan bytes(data + 1, size - 1);
    const auto header = relay::Geneve::parse(bytes);
    if (header) {
        uint8_t again[relay::kGeneveLen];
        header->write(again);
        if (std::memcmp(again, bytes.data(), relay::kGeneveLen) != 0) std::abort();
    }
    const auto r = world.server.receive(bytes, world.at[from], world.now);
    const bool passes = header && !header->control && header->vni == world.vni && from < 2;
    if ((r.verdict == relay::Server::Verdict::kForward) != passes) std::abort();
    if (passes && r.to != world.at[1 - from]) std::abort();
    if (r.verdict == relay::Server::Verdict::kReply) std::abort();
    return 0;
}
