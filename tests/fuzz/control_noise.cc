// SPDX-License-Identifier: BSD-3-Clause
// Any bytes where the control connection expects a handshake, records, an early payload or HTTP/2, in pieces whose sizes
// the first byte chooses.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "tailscaled/control/h2.h"
#include "tailscaled/control/noise.h"
#include "tailscaled/control/upgrade.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace mesh;
    using namespace mesh::control;
    if (size < 2) return 0;
    const size_t piece = size_t{data[0]} + 1;
    const ByteSpan input(data + 1, size - 1);
    static SeededRandom random(1);
    static const MachinePrivate machine = MachinePrivate::generate(random);
    static const MachinePrivate server = MachinePrivate::generate(random);

    (void)noise_accept(input, server, random);
    {
        static NoiseInitiator noise = [] {
            NoiseInitiator n(machine, server.public_key(), 142);
            (void)n.start(random);
            return n;
        }();
        UpgradeReader reader(noise);
        for (size_t at = 0; at < input.size(); at += piece)
            if (const auto r = reader.feed(input.subspan(at, std::min(piece, input.size() - at))); !r || *r) break;
    }
    {
        // Whole and in pieces must give the same plaintext or the same failure.
        NoiseKeys keys;
        keys.receive.bytes().fill(7);
        NoiseStream whole(keys), parts(keys);
        Bytes a, b;
        const bool a_ok = whole.open(input, a).has_value();
        bool b_ok = true;
        for (size_t at = 0; at < input.size() && b_ok; at += piece)
            b_ok = parts.open(input.subspan(at, std::min(piece, input.size() - at)), b).has_value();
        if (a_ok != b_ok || (a_ok && a != b)) std::abort();
    }
    {
        EarlyPayload whole, parts;
        Bytes a, b;
        const bool a_ok = whole.feed(input, a).has_value();
        bool b_ok = true;
        for (size_t at = 0; at < input.size() && b_ok; at += piece)
            b_ok = parts.feed(input.subspan(at, std::min(piece, input.size() - at)), b).has_value();
        if (a_ok != b_ok || (a_ok && a != b)) std::abort();
    }
    for (const auto role : {H2Session::Role::kClient, H2Session::Role::kServer}) {
        H2Session h2(role);
        Bytes out;
        if (role == H2Session::Role::kClient) (void)h2.request("POST", "h", "/machine/map", {}, "{}");
        else if (!h2.receive(as_bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))) std::abort();
        bool ok = true;
        for (size_t at = 0; at < input.size() && ok; at += piece) {
            ok = h2.receive(input.subspan(at, std::min(piece, input.size() - at))).has_value();
            H2Event e;
            while (h2.next_event(e))
                if (e.kind == H2Event::Kind::kEnd && role == H2Session::Role::kServer) h2.respond(e.stream, 200, {}, "x");
            ok = ok && h2.take_output(out).has_value();
            out.clear();
        }
    }
    return 0;
}
