// SPDX-License-Identifier: BSD-3-Clause
// The relay map of a control server, whole and as a change to an earlier one (first line, second line). A map written and
// read is the same map; what its nodes say about ports and addresses is in range.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "magicsock/derp/derp_map_json.h"

using namespace mesh;

namespace {

void check_map(const derp::DerpMap& map) {
    const Json j = derp::derp_map_json(map);
    const auto again = derp::parse_derp_map(j);
    CHECK(again && *again == map);
    const auto text = json::parse(json::dump(j));
    CHECK(text);
    const auto from_text = derp::parse_derp_map(*text);
    CHECK(from_text && *from_text == map);
    CHECK(map.regions.size() <= 1024);
    for (const auto& [id, region] : map.regions) {
        CHECK(id > 0 && region.id == id && region.nodes.size() <= 64);
        CHECK(map.region(id) == &region && map.score(id) > 0);
        for (const derp::DerpNode& n : region.nodes) {
            CHECK(n.effective_derp_port() != 0);
            if (const auto port = n.effective_stun_port()) CHECK(*port != 0);
            CHECK(!n.literal_v4().is_valid() || n.literal_v4().is_v4());
            CHECK(!n.literal_v6().is_valid() || n.literal_v6().is_v6());
            if (n.reach_v4() == derp::Reach::kNever) CHECK(!n.literal_v4().is_valid());
            if (n.reach_v6() == derp::Reach::kNever) CHECK(!n.literal_v6().is_valid());
            CHECK(n.http_host().starts_with(n.host_name) || n.http_host().starts_with("[" + n.host_name));
            if (n.cert_pin()) CHECK(n.cert_name.starts_with(derp::kCertPinPrefix));
            (void)n.needs_name();
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text = as_text({data, size});
    const size_t newline = std::min(text.find('\n'), size);
    if (const auto key = derp::parse_meta_cert(text.substr(0, newline), 2)) {
        CHECK(derp::parse_meta_cert(derp::meta_cert_name(*key), 2) == key);
    }
    derp::DerpMap map;
    if (const auto first = json::parse(text.substr(0, newline))) {
        const auto parsed = derp::parse_derp_map(*first);
        if (!parsed) return 0;
        map = *parsed;
        check_map(map);
    }
    if (newline == size) return 0;
    if (const auto second = json::parse(text.substr(newline + 1)))
        if (const auto changed = derp::apply_derp_map_delta(map, *second)) {
            check_map(*changed);
            if (!json::find(*second, "Regions")) CHECK(changed->regions == map.regions);
        }
    return 0;
}
