// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The body of a map response is a sequence of: 4 bytes length, LITTLE endian, then one JSON text, by itself compressed
/// with zstd if that was asked for. Frames do not respect any other border. Pure, both directions.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace mesh::control {

/// Before and after decompression. A map of 10,000 peers has about 15 MB of JSON.
inline constexpr size_t kMaxMapFrame = 32U << 20;
inline constexpr size_t kMaxMapJson = 64U << 20;

class MapFrameReader {
   public:
    enum class Coding : uint8_t { kPlain, kZstd };
    explicit MapFrameReader(Coding coding, size_t max_frame = kMaxMapFrame, size_t max_json = kMaxMapJson);
    ~MapFrameReader();
    MapFrameReader(const MapFrameReader&) = delete;
    MapFrameReader& operator=(const MapFrameReader&) = delete;

    /// Takes bytes in any split; `on_json` gets each whole message, valid during the call. The first error (of the
    /// framing or returned by `on_json`) is final. Memory: one frame as far as it has arrived, and its JSON.
    [[nodiscard]] Status feed(ByteSpan bytes, const std::function<Status(std::string_view json)>& on_json);

   private:
    [[nodiscard]] Status frame_done(const std::function<Status(std::string_view)>& on_json);
    struct Zstd;
    std::unique_ptr<Zstd> zstd_;  // null: plain
    size_t max_frame_;
    size_t max_json_;
    Bytes head_;
    size_t left_ = 0;
    Bytes frame_;
    bool dead_ = false;
};

/// zstd text of at most `max_json` bytes, however it was made; bombs and other formats are errors.
[[nodiscard]] Result<std::string> zstd_decompress(ByteSpan compressed, size_t max_json);
/// One frame, for the sending side.
[[nodiscard]] Bytes encode_map_frame(std::string_view json, MapFrameReader::Coding coding);

}  // namespace mesh::control
