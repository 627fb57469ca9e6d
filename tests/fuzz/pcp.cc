// SPDX-License-Identifier: BSD-3-Clause
// Any datagram from port 5351 as PCP: what is read of a mapping is written back as the same bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "magicsock/portmap/pcp.h"

using namespace mesh;
using namespace mesh::portmap;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const ByteSpan datagram(data, size);
    const auto answer = pcp::decode(datagram);
    if (!answer) return 0;
    CHECK(size >= 24 && size <= 1100 && size % 4 == 0 && data[0] == 2 && data[1] >= 0x80);
    CHECK(pcp::result_text(answer->result).empty() == (answer->result == 0));
    if (!answer->map) return 0;
    CHECK(answer->op == pcp::kOpMap && size >= 60);
    CHECK(!answer->map->external_addr.is_valid() || answer->map->external_addr.is_v4());
    const Bytes again = pcp::encode_map(Addr::v4(10, 0, 0, 1), *answer->map, answer->lifetime_s);
    CHECK(again.size() == 60);
    CHECK(std::equal(again.begin() + 24, again.begin() + 37, data + 24));  // nonce and protocol
    CHECK(std::equal(again.begin() + 40, again.begin() + 44, data + 40));  // ports
    if (answer->map->external_addr.is_valid()) CHECK(std::equal(again.begin() + 56, again.end(), data + 56));
    return 0;
}
