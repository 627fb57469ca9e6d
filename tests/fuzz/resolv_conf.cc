// SPDX-License-Identifier: BSD-3-Clause
// Files of other programs that decide how this host resolves names (first line nsswitch, the rest resolv.conf). Our file is
// known for ours whatever it was made from, and says nothing but what was asked for.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "platform/linux/dns_plan.h"

using namespace mesh;
using namespace mesh::platform;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    std::string_view rest = as_text({data + 1, size - 1});
    DnsHostFacts facts;
    const size_t newline = std::min(rest.find('\n'), rest.size());
    facts.nsswitch = std::string(rest.substr(0, newline));
    rest.remove_prefix(std::min(newline + 1, rest.size()));
    facts.resolv_conf = std::string(rest);
    facts.resolved_answers = (data[0] & 1) != 0;
    facts.nm_running = (data[0] & 2) != 0;
    facts.nm_uses_resolved = (data[0] & 4) != 0;
    facts.resolvconf = static_cast<ResolvconfKind>((data[0] >> 3) % 3);
    const DnsChoice choice = choose_dns_mode(facts);
    CHECK(!dns_mode_name(choice.mode).empty());
    if (choice.mode == DnsMode::kResolved) CHECK(facts.resolved_answers);

    const OsDnsConfig config{{Addr::v4(100, 100, 100, 100)}, {"t.example"}, {}};
    const std::string ours = resolv_conf_text(config, rest);
    CHECK(is_our_resolv_conf(ours) && ours.size() <= rest.size() + 2048);
    size_t servers = 0;
    for (std::string_view text = ours; !text.empty();) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        if (!line.starts_with("nameserver")) continue;
        ++servers;
        CHECK(line == "nameserver 100.100.100.100");
    }
    CHECK(servers == 1);
    return 0;
}
