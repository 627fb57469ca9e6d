// SPDX-License-Identifier: BSD-3-Clause
#include "derper/check.h"

#include <fmt/format.h>

#include "derper/mesh.h"
#include "relaycheck/relay_check.h"

namespace mesh::derper {

Result<CheckTarget> parse_check_target(const std::string& text) {
    const auto parsed = parse_mesh_with(text);
    if (!parsed || parsed->size() != 1 || !parsed->front().dial.empty() || !parsed->front().cert_name.empty())
        return fail(Code::kInvalid, "-check takes HOST or HOST:PORT, for example -check derp.example.com:443");
    return CheckTarget{parsed->front().host, parsed->front().port};
}

bool check_relay(const CheckTarget& target, int stun_port) {
    SystemRandom random;
    platform::Loop loop;
    platform::ResolverConfig resolvers = platform::system_resolver_config();
    resolvers.protect = platform::Protect::kNo;
    platform::Resolver resolver(loop, resolvers);
    platform::Dialer dialer(loop, resolver);
    relaycheck::Target t;
    t.host = target.host;
    t.port = target.port;
    t.stun_port = stun_port < 0 ? uint16_t{0} : static_cast<uint16_t>(stun_port);
    t.pin_is_fine = true;
    relaycheck::RelayCheck check(
        dialer, random, std::move(t),
        [](const relaycheck::Step& s) {
            using relaycheck::Kind;
            fmt::print("{} {}\n", s.kind == Kind::kGood ? "ok  " : s.kind == Kind::kNote ? "note" : "FAIL", s.text);
        },
        [&] { loop.stop(); });
    loop.run();
    return check.good();
}

}  // namespace mesh::derper
