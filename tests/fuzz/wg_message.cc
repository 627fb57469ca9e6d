// SPDX-License-Identifier: BSD-3-Clause
// Anything may arrive from the wire. The first byte chooses how deep the bytes get: as they are; with a correct mac1,
// so that the handshake code sees them; or laid over a genuine message of a running handshake or session. A node in
// full operation must neither crash nor accept what it did not get from its peer, and must still work afterwards.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "tests/fuzz/growth.h"
#include "wg/testing.h"

using mesh::ByteSpan;
using mesh::Bytes;
using mesh::wg::CookieJar;
using mesh::wg::Device;
using mesh::wg::testing::Pair;
using mesh::wg::testing::source_of;

namespace {

void demand(bool ok) {
    if (!ok) std::abort();
}

/// XORs the input over a genuine message; false if nothing changes.
bool overlay(Bytes& genuine, ByteSpan input) {
    bool changed = false;
    for (size_t i = 0; i < genuine.size() && i < input.size(); ++i) {
        changed = changed || input[i] != 0;
        genuine[i] ^= input[i];
    }
    return changed;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1 || size > 65'536) return 0;
    const ByteSpan input(data + 1, size - 1);
    Pair p;
    p.connect();
    p.b.transmit(0, "more", p.now);
    Bytes transport = p.b.take();
    p.b.device.set_private_key(mesh::NodePrivate{}, p.now);  // b starts over, and its initiation is a genuine one
    p.b.device.set_private_key(p.b.key, p.now);
    p.b.device.set_wall_clock(mesh::wg::testing::kWallStart + mesh::seconds(60), p.now);
    p.b.transmit(0, "again", p.now);
    Bytes initiation = p.b.take();

    mesh::fuzz::equipment_ready();  // two devices and a session between them
    switch (data[0] % 4) {
        case 0:
            demand(p.a.deliver(mesh::to_bytes(input), p.now).kind == Device::Opened::kDropped);
            break;
        case 1: {
            Bytes m = mesh::to_bytes(input);
            if (m.size() < 32) break;
            CookieJar jar;
            jar.write_macs(m, p.a.key.public_key(), p.now);
            demand(p.a.deliver(m, p.now).kind == Device::Opened::kDropped);
            break;
        }
        case 2:
            if (overlay(transport, input)) demand(p.a.deliver(transport, p.now).kind == Device::Opened::kDropped);
            break;
        default: {
            // Without load mac2 is not looked at, so only what stands before it counts.
            const bool changed = overlay(initiation, input.first(std::min<size_t>(input.size(), 132)));
            if (changed) demand(p.a.deliver(initiation, p.now).kind == Device::Opened::kDropped);
            break;
        }
    }
    p.a.forget_sent();
    p.advance(mesh::seconds(30));  // the wire is good again
    p.b.received.clear();
    p.a.transmit(0, "still alive", p.now);
    p.settle();
    demand(!p.b.received.empty() && p.b.received.back() == "still alive");
    return 0;
}
