// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/map_framing.h"

#include <fmt/format.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>

#include "base/check.h"

namespace mesh::control {
namespace {

/// Room for the text at the first try: maps shrink to about a tenth.
constexpr size_t kFirstRoom = 16U << 10;
constexpr size_t kUsualRatio = 16;

struct FreeContext {
    void operator()(ZSTD_DCtx* c) const { ZSTD_freeDCtx(c); }
};
using Context = std::unique_ptr<ZSTD_DCtx, FreeContext>;

Context make_context() {
    Context c(ZSTD_createDCtx());
    CHECK(c != nullptr);
    return c;
}

struct Text {
    std::unique_ptr<char[]> bytes;
    size_t size = 0;
    [[nodiscard]] std::string_view view() const { return {bytes.get(), size}; }
};

/// In one step into memory that grows with what is really there. Decoding in steps would take a buffer as large as the
/// frame's header demands, and believing the announced length would give as much to a frame of twenty bytes.
Result<Text> decompress(ZSTD_DCtx* context, ByteSpan compressed, size_t max_json) {
    // One frame of today's format: the library would also take its predecessors', with decoders of their own.
    if (compressed.size() < 4 || load_le32(compressed.data()) != ZSTD_MAGICNUMBER ||
        ZSTD_findFrameCompressedSize(compressed.data(), compressed.size()) != compressed.size())
        return fail(Code::kInvalid, "map message: not one whole zstd frame");
    const unsigned long long announced = ZSTD_getFrameContentSize(compressed.data(), compressed.size());
    const bool known = announced != ZSTD_CONTENTSIZE_UNKNOWN && announced != ZSTD_CONTENTSIZE_ERROR;
    if (known && announced > max_json)
        return fail(Code::kLimit, fmt::format("a map message announces {} bytes, which is too long", announced));
    size_t room = std::min(max_json, std::max(kFirstRoom, kUsualRatio * compressed.size()));
    if (known) room = std::min(room, static_cast<size_t>(announced));
    for (;;) {
        Text out{std::make_unique_for_overwrite<char[]>(room)};
        const size_t n = ZSTD_decompressDCtx(context, out.bytes.get(), room, compressed.data(), compressed.size());
        if (!ZSTD_isError(n)) {
            out.size = n;
            return out;
        }
        if (ZSTD_getErrorCode(n) != ZSTD_error_dstSize_tooSmall)
            return fail(Code::kInvalid, fmt::format("map message: zstd: {}", ZSTD_getErrorName(n)));
        if (room == max_json) return fail(Code::kLimit, "a map message is too long when decompressed");
        room = std::min(max_json, std::max(kFirstRoom, 4 * room));
    }
}

}  // namespace

struct MapFrameReader::Zstd {
    Context context = make_context();
};

MapFrameReader::MapFrameReader(Coding coding, size_t max_frame, size_t max_json)
    : zstd_(coding == Coding::kZstd ? std::make_unique<Zstd>() : nullptr), max_frame_(max_frame), max_json_(max_json) {}
MapFrameReader::~MapFrameReader() = default;

Status MapFrameReader::feed(ByteSpan bytes, const std::function<Status(std::string_view)>& on_json) {
    if (dead_) return fail(Code::kUnavailable, "the map stream ended with an error");
    while (!bytes.empty()) {
        if (head_.size() < 4) {
            head_.push_back(bytes[0]);
            bytes = bytes.subspan(1);
            if (head_.size() < 4) continue;
            left_ = load_le32(head_.data());
            if (left_ > max_frame_) {
                dead_ = true;
                return fail(Code::kLimit, fmt::format("a map message of {} bytes is too long", left_));
            }
        } else {
            const size_t take = std::min(left_, bytes.size());
            frame_.insert(frame_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
            bytes = bytes.subspan(take);
            left_ -= take;
        }
        if (left_ == 0) {
            if (Status s = frame_done(on_json); !s) {
                dead_ = true;
                return s;
            }
        }
    }
    return {};
}

Status MapFrameReader::frame_done(const std::function<Status(std::string_view)>& on_json) {
    head_.clear();
    Bytes frame = std::move(frame_);  // large frames do not stay in memory
    frame_ = {};
    if (!zstd_) {
        if (frame.size() > max_json_) return fail(Code::kLimit, "a map message is too long");
        return on_json(as_text(frame));
    }
    TRY_ASSIGN(const Text text, decompress(zstd_->context.get(), frame, max_json_));
    frame = {};
    return on_json(text.view());
}

Result<std::string> zstd_decompress(ByteSpan compressed, size_t max_json) {
    TRY_ASSIGN(const Text text, decompress(make_context().get(), compressed, max_json));
    return std::string(text.view());
}

Bytes encode_map_frame(std::string_view json, MapFrameReader::Coding coding) {
    Bytes body;
    ByteSpan content = as_bytes(json);
    if (coding == MapFrameReader::Coding::kZstd) {
        body.resize(ZSTD_compressBound(json.size()));
        const size_t n = ZSTD_compress(body.data(), body.size(), json.data(), json.size(), 1);
        CHECK(!ZSTD_isError(n));
        content = ByteSpan(body).first(n);
    }
    Bytes out;
    WireWriter w(out);
    w.le32(static_cast<uint32_t>(content.size()));
    w.bytes(content);
    return out;
}

}  // namespace mesh::control
