// SPDX-License-Identifier: BSD-3-Clause
// Any datagram: decoded requests and responses must encode back to what they say.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "magicsock/stun/stun.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace mesh;
    const ByteSpan datagram(data, size);
    if (const auto tx = stun::decode_request(datagram)) {
        const auto again = stun::decode_request(stun::encode_request(*tx));
        if (!again || *again != *tx) std::abort();
    }
    if (const auto r = stun::decode_response(datagram)) {
        if (!stun::looks_like_stun(datagram)) std::abort();
        uint8_t out[stun::kMaxResponseLen];
        const size_t n = stun::encode_response(r->tx, r->mapped, out);
        const auto again = stun::decode_response(ByteSpan(out, n));
        if (!again || again->mapped != r->mapped || again->tx != r->tx) std::abort();
    }
    return 0;
}
