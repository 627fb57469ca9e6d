// SPDX-License-Identifier: BSD-3-Clause
// Any datagram from port 5351 as NAT-PMP: never PCP too, whole only if long enough, refusals have words.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "magicsock/portmap/natpmp.h"
#include "magicsock/portmap/pcp.h"

using namespace mesh;
using namespace mesh::portmap;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const ByteSpan datagram(data, size);
    const auto answer = natpmp::decode(datagram);
    if (!answer) return 0;
    CHECK(!pcp::decode(datagram));
    CHECK(size >= 8);
    uint16_t result = 0;
    if (const auto* a = std::get_if<natpmp::AddressAnswer>(&*answer)) {
        result = a->result;
        CHECK(a->external.is_valid() == (result == 0) && (result != 0 || size >= 12));
        CHECK(a->epoch == load_be32(data + 4));
    } else {
        const auto& m = std::get<natpmp::MapAnswer>(*answer);
        result = m.result;
        CHECK(result != 0 || size >= 16);
        if (size >= 16) CHECK(m.internal == load_be16(data + 8) && m.external == load_be16(data + 10) && m.lifetime_s == load_be32(data + 12));
    }
    CHECK(natpmp::result_text(result).empty() == (result == 0));
    return 0;
}
