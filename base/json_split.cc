// SPDX-License-Identifier: BSD-3-Clause
#include "base/json_split.h"

#include <fmt/format.h>

#include <array>

namespace mesh::json {
namespace {

constexpr size_t kMaxDepth = 64;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

tl::unexpected<Error> malformed(size_t at) { return fail(Code::kInvalid, fmt::format("malformed JSON at byte {}", at)); }

/// A place in the text. Every step moves forward.
class Cursor {
   public:
    explicit Cursor(std::string_view text) : text_(text) {}

    void skip_space() {
        while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    }
    [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    [[nodiscard]] size_t at() const { return at_; }
    [[nodiscard]] bool end() const { return at_ >= text_.size(); }
    bool take(char c) {
        skip_space();
        if (peek() != c || end()) return false;
        ++at_;
        return true;
    }
    /// The text of a string without its quotes; false if there is none.
    bool take_string(std::string_view& out) {
        skip_space();
        if (end() || peek() != '"') return false;
        const size_t from = ++at_;
        while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? size_t{2} : size_t{1};
        if (at_ >= text_.size()) return false;
        out = text_.substr(from, at_ - from);
        ++at_;
        return true;
    }
    /// The text of any value: brackets balanced, strings skipped.
    bool take_value(std::string_view& out) {
        skip_space();
        const size_t from = at_;
        size_t depth = 0;
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '"') {
                std::string_view ignored;
                if (!take_string(ignored)) return false;
                if (depth == 0) break;
                continue;
            }
            if (c == '{' || c == '[') {
                ++depth;
            } else if (c == '}' || c == ']') {
                if (depth == 0) break;  // end of the container around a plain value
                if (--depth == 0) {
                    ++at_;
                    break;
                }
            } else if (depth == 0 && (c == ',' || is_space(c))) {
                break;
            }
            ++at_;
        }
        out = text_.substr(from, at_ - from);
        return depth == 0 && !out.empty();
    }

   private:
    std::string_view text_;
    size_t at_ = 0;
};

/// No object with more members than allowed.
bool narrow(std::string_view text, size_t max_members) {
    std::array<size_t, kMaxDepth + 1> commas{};
    std::array<bool, kMaxDepth + 1> object{};
    size_t depth = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"') {
            for (++i; i < text.size() && text[i] != '"'; ++i)
                if (text[i] == '\\') ++i;
        } else if (c == '{' || c == '[') {
            if (++depth > kMaxDepth) return false;
            commas[depth] = 0;
            object[depth] = c == '{';
        } else if (c == '}' || c == ']') {
            if (depth > 0) --depth;
        } else if (c == ',' && object[depth] && ++commas[depth] >= max_members) {
            return false;
        }
    }
    return true;
}

}  // namespace

Status split_object(std::string_view text,
                    const std::function<Status(std::string_view key, std::string_view value)>& member) {
    Cursor c(text);
    if (!c.take('{')) return malformed(c.at());
    if (!c.take('}')) {
        do {
            std::string_view key, value;
            if (!c.take_string(key) || !c.take(':') || !c.take_value(value)) return malformed(c.at());
            TRY(member(key, value));
        } while (c.take(','));
        if (!c.take('}')) return malformed(c.at());
    }
    c.skip_space();
    if (!c.end()) return malformed(c.at());
    return {};
}

Status split_array(std::string_view text, const std::function<Status(std::string_view value)>& element) {
    Cursor c(text);
    if (!c.take('[')) return malformed(c.at());
    if (!c.take(']')) {
        do {
            std::string_view value;
            if (!c.take_value(value)) return malformed(c.at());
            TRY(element(value));
        } while (c.take(','));
        if (!c.take(']')) return malformed(c.at());
    }
    c.skip_space();
    if (!c.end()) return malformed(c.at());
    return {};
}

Result<Json> parse_piece(std::string_view value, const PieceLimits& limits) {
    if (value.size() > limits.bytes)
        return fail(Code::kLimit, fmt::format("a JSON value of {} bytes is too large", value.size()));
    if (!narrow(value, limits.members)) return fail(Code::kLimit, "a JSON object has too many members");
    return json::parse(value, limits.bytes);
}

}  // namespace mesh::json
