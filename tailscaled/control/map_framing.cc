// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/map_framing.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>

#include "base/check.h"

namespace mesh::control {
namespace {

constexpr int kMaxWindowLog = 26;  // 64 MiB, as large as the largest JSON
constexpr size_t kStep = 128U << 10;

struct FreeContext {
    void operator()(ZSTD_DCtx* c) const { ZSTD_freeDCtx(c); }
};
using Context = std::unique_ptr<ZSTD_DCtx, FreeContext>;

Context make_context() {
    Context c(ZSTD_createDCtx());
    CHECK(c != nullptr);
    ZSTD_DCtx_setParameter(c.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
    return c;
}

Result<std::string> decompress(ZSTD_DCtx* context, ByteSpan compressed, size_t max_json) {
    ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
    std::string out;
    // Reserving costs address space only: pages are touched as text really comes out, so a bomb that announces much and
    // holds little gains nothing, and a large map is not copied while the string grows.
    const unsigned long long announced = ZSTD_getFrameContentSize(compressed.data(), compressed.size());
    if (announced != ZSTD_CONTENTSIZE_UNKNOWN && announced != ZSTD_CONTENTSIZE_ERROR) {
        if (announced > max_json)
            return fail(Code::kLimit, fmt::format("a map message announces {} bytes, which is too long", announced));
        out.reserve(std::min(max_json, static_cast<size_t>(announced) + kStep));
    }
    ZSTD_inBuffer in{compressed.data(), compressed.size(), 0};
    size_t filled = 0;
    for (;;) {
        if (filled == max_json) return fail(Code::kLimit, "a map message is too long when decompressed");
        out.resize(std::min(max_json, filled + kStep));
        ZSTD_outBuffer dst{out.data() + filled, out.size() - filled, 0};
        const size_t r = ZSTD_decompressStream(context, &dst, &in);
        if (ZSTD_isError(r)) return fail(Code::kInvalid, fmt::format("map message: zstd: {}", ZSTD_getErrorName(r)));
        filled += dst.pos;
        const bool room_left = dst.pos < dst.size;
        if (r == 0 && in.pos == in.size) break;
        if (in.pos == in.size && room_left) return fail(Code::kInvalid, "map message: zstd text is cut short");
    }
    out.resize(filled);
    return out;
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
    TRY_ASSIGN(const std::string text, decompress(zstd_->context.get(), frame, max_json_));
    frame = {};
    return on_json(text);
}

Result<std::string> zstd_decompress(ByteSpan compressed, size_t max_json) {
    return decompress(make_context().get(), compressed, max_json);
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
