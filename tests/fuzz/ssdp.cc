// SPDX-License-Identifier: BSD-3-Clause
// Any answer to a search for Internet gateways: what is taken from it can stand in a request line, and leads to an address.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/http1.h"
#include "magicsock/portmap/ssdp.h"

using namespace mesh;
using namespace mesh::portmap;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto answer = ssdp::parse({data, size});
    if (!answer) return 0;
    CHECK(size <= ssdp::kMaxAnswer && answer->at.addr.is_v4() && answer->at.port != 0);
    CHECK(answer->path.starts_with('/') || answer->path.starts_with('?'));
    for (const char c : answer->path) CHECK(c > ' ' && c <= '~');
    const auto url = http1::parse_url("http://" + answer->at.str() + answer->path);
    CHECK(url && url->host == answer->at.addr.str() && url->port == answer->at.port);
    return 0;
}
