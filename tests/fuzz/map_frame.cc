// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as the body of a map response, plain and zstd: whole and in pieces must give the same messages, and nothing
// larger than the limits may come out.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <vector>

#include "tailscaled/control/map_framing.h"
#include "tests/fuzz/growth.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace mesh;
    using namespace mesh::control;
    if (size < 2) return 0;
    constexpr size_t kMaxFrame = 1U << 16, kMaxJson = 1U << 14;
    const size_t piece = size_t{data[0]} + 1;
    const ByteSpan input(data + 1, size - 1);
    for (const auto coding : {MapFrameReader::Coding::kPlain, MapFrameReader::Coding::kZstd}) {
        std::vector<size_t> a, b;  // hashes: a small input may hold many messages of the largest size
        const auto keep_in = [](std::vector<size_t>& list) {
            return [&list](std::string_view text) -> Status {
                if (text.size() > kMaxJson) std::abort();
                list.push_back(std::hash<std::string_view>()(text));
                return {};
            };
        };
        MapFrameReader whole(coding, kMaxFrame, kMaxJson), parts(coding, kMaxFrame, kMaxJson);
        fuzz::equipment_ready();  // two decoders with their tables
        const bool a_ok = whole.feed(input, keep_in(a)).has_value();
        bool b_ok = true;
        for (size_t at = 0; at < input.size() && b_ok; at += piece)
            b_ok = parts.feed(input.subspan(at, std::min(piece, input.size() - at)), keep_in(b)).has_value();
        if (a_ok != b_ok || a != b) std::abort();
    }
    return 0;
}
