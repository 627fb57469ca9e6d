// SPDX-License-Identifier: BSD-3-Clause
// Compressed map text. First byte even: the rest is text that must survive coding and decoding. Odd: the rest is what a
// server calls zstd; it is refused or gives at most what was allowed, with no more memory than that.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "tailscaled/control/map_framing.h"
#include "tests/fuzz/growth.h"

using namespace mesh;
using namespace mesh::control;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    const ByteSpan rest(data + 1, size - 1);
    constexpr size_t kMax = 16U << 10;
    // The decoder's own tables, the same for every input.
    constexpr size_t kTables = 100U << 10;
    if (data[0] % 2 == 0) {
        const Bytes frame = encode_map_frame(as_text(rest), MapFrameReader::Coding::kZstd);
        fuzz::equipment_ready();  // the encoder stands in for the server
        fuzz::allow_growth(kTables);
        CHECK(frame.size() >= 4 && load_le32(frame.data()) == frame.size() - 4);
        const auto back = zstd_decompress(ByteSpan(frame).subspan(4), rest.size());
        CHECK(back && *back == as_text(rest));
        // One byte less is one too few.
        if (!rest.empty()) CHECK(!zstd_decompress(ByteSpan(frame).subspan(4), rest.size() - 1));
        return 0;
    }
    fuzz::allow_growth(kTables);
    if (const auto text = zstd_decompress(rest, kMax)) {
        CHECK(text->size() <= kMax);
        const auto exact = zstd_decompress(rest, text->size());
        CHECK(exact && *exact == *text);
    }
    return 0;
}
