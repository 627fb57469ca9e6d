// SPDX-License-Identifier: BSD-3-Clause
// Any texts, one per line, as messages of a map poll. The changes told must turn the map before into the map after, and
// every node must survive being written and read again.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/log.h"
#include "tailscaled/control/map_session.h"
#include "tailscaled/netmap/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace mesh;
    using namespace mesh::control;
    static const bool quiet = [] {
        log::set_sink([](std::string_view) {});
        return true;
    }();
    (void)quiet;
    std::string_view rest = as_text({data, size});
    MapSession session;
    constexpr Time now{1'000'000'000};
    constexpr WallTime wall{1'800'000'000LL * 1'000'000'000};
    session.begin_poll(now);
    if (!session.handle_message(R"({"Node":{"ID":1,"Name":"self."},"Peers":[{"ID":2,"Name":"a."},{"ID":3,"Name":"b."}]})", wall, now))
        std::abort();
    netmap::PeerTable mirror = session.map()->peers;
    while (!rest.empty()) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), line.size() + 1));
        const auto u = session.handle_message(line, wall, now);
        if (!u) {
            session.begin_poll(now);
            (void)session.handle_message(R"({"Node":{"ID":1}})", wall, now);
            mirror = session.map()->peers;
            continue;
        }
        for (const auto& n : u->changes.removed)
            if (!mirror.erase(n->id)) std::abort();
        for (const auto& n : u->changes.added)
            if (mirror.upsert(n)) std::abort();
        for (const auto& c : u->changes.changed)
            if (mirror.upsert(c.after) != c.before) std::abort();
        if (mirror.size() != session.map()->peers.size()) std::abort();
        for (const auto& n : session.map()->peers) {
            if (mirror.find(n->id) != n) std::abort();
            const auto again = netmap::parse_node(netmap::to_json(*n));
            if (!again || again->id != n->id || again->allowed_ips != n->allowed_ips || again->key != n->key) std::abort();
        }
    }
    return 0;
}
