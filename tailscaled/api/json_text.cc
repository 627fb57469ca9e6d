// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/json.h"

namespace mesh::api {
namespace {

/// Printable ASCII without characters that Go escapes: the usual case, copied as it is.
constexpr auto kPlain = [] {
    std::array<bool, 256> out{};
    for (size_t u = 0x20; u < 0x7f; ++u) out[u] = u != '"' && u != '\\' && u != '<' && u != '>' && u != '&';
    return out;
}();
bool is_plain(std::string_view s) {
    return std::all_of(s.begin(), s.end(), [](char c) { return kPlain[static_cast<unsigned char>(c)]; });
}

constexpr bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

constexpr auto kEndsToken = [] {
    std::array<bool, 256> out{};
    for (const char c : std::string_view("\"{}[],: \t\n\r")) out[static_cast<unsigned char>(c)] = true;
    return out;
}();

/// Behind the token at `at`, which is a string, a number or a word; texts without an end end with the text.
size_t end_of_token(std::string_view s, size_t at) {
    size_t i = at;
    if (s[i] == '"') {
        const size_t quote = std::min(s.find('"', ++i), s.size());
        if (std::memchr(s.data() + i, '\\', quote - i) == nullptr) return std::min(quote + 1, s.size());
        for (; i < s.size() && s[i] != '"'; ++i)
            if (s[i] == '\\') ++i;
        return std::min(i + 1, s.size());
    }
    while (i < s.size() && !kEndsToken[static_cast<unsigned char>(s[i])]) ++i;
    return i;
}

/// `line`: line break with the indentation that is due.
void indent_into(std::string& out, std::string_view json, std::string_view indent, std::string line) {
    const auto skip_spaces = [&](size_t i) {
        while (i < json.size() && is_space(json[i])) ++i;
        return i;
    };
    for (size_t i = skip_spaces(0); i < json.size(); i = skip_spaces(i)) {
        const char c = json[i];
        switch (c) {
            case '{':
            case '[': {
                out += c;
                i = skip_spaces(i + 1);
                if (i < json.size() && (json[i] == '}' || json[i] == ']')) {
                    out += json[i++];
                } else {
                    line += indent;
                    out += line;
                }
                break;
            }
            case '}':
            case ']':
                if (line.size() > 1) line.resize(line.size() - indent.size());
                out += line;
                out += c;
                ++i;
                break;
            case ',':
                out += c;
                out += line;
                ++i;
                break;
            case ':':
                out += ": ";
                ++i;
                break;
            default: {
                const size_t end = end_of_token(json, i);
                out += json.substr(i, end - i);
                i = end;
            }
        }
    }
}

}  // namespace

void JsonText::place() {
    const At at = std::exchange(at_, At::kNext);
    if (at == At::kValue) return;
    if (at == At::kNext) out_ += ',';
    out_ += line_;
}

void JsonText::open(char bracket) {
    place();
    out_ += bracket;
    at_ = At::kFirst;
    if (indent_.empty()) return;
    if (line_.empty()) line_ = '\n';
    line_ += indent_;
}

void JsonText::close(char bracket) {
    if (!indent_.empty()) {
        line_.resize(line_.size() - std::min(line_.size(), indent_.size()));
        if (at_ != At::kFirst) out_ += line_;
        if (line_.size() <= 1) line_.clear();
    }
    out_ += bracket;
    at_ = At::kNext;
}

JsonText& JsonText::open_object() {
    open('{');
    return *this;
}
JsonText& JsonText::close_object() {
    close('}');
    return *this;
}
JsonText& JsonText::open_array() {
    open('[');
    return *this;
}
JsonText& JsonText::close_array() {
    close(']');
    return *this;
}

JsonText& JsonText::key(std::string_view name) {
    text(name);
    out_ += indent_.empty() ? ":" : ": ";
    at_ = At::kValue;
    return *this;
}

JsonText& JsonText::text(std::string_view value) {
    place();
    if (is_plain(value)) {
        out_ += '"';
        out_ += value;
        out_ += '"';
    } else {
        out_ += json::dump(Json(std::string(value)));
    }
    return *this;
}

JsonText& JsonText::integer(int64_t value) {
    place();
    out_ += fmt::format_int(value).c_str();
    return *this;
}

JsonText& JsonText::number(double value) {
    place();
    if (!std::isfinite(value)) value = 0;  // JSON has no word for it
    const double size = std::fabs(value);
    const bool exponent = size != 0 && (size < 1e-6 || size >= 1e21);
    char buffer[64];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                                   exponent ? std::chars_format::scientific : std::chars_format::fixed);
    std::string text(buffer, end.ptr);
    // "e-09" is written "e-9".
    const size_t n = text.size();
    if (exponent && n >= 4 && text[n - 4] == 'e' && text[n - 3] == '-' && text[n - 2] == '0') text.erase(n - 2, 1);
    out_ += text;
    return *this;
}

JsonText& JsonText::boolean(bool value) {
    place();
    out_ += value ? "true" : "false";
    return *this;
}

JsonText& JsonText::null() {
    place();
    out_ += "null";
    return *this;
}

JsonText& JsonText::time(WallTime value) { return text(json::time_text(value)); }

JsonText& JsonText::raw(std::string_view json) {
    place();
    if (json.empty())
        out_ += "null";
    else if (indent_.empty())
        out_ += json;
    else
        indent_into(out_, json, indent_, line_.empty() ? "\n" : line_);
    return *this;
}

template <class T>
JsonText& JsonText::list_of(std::string_view name, const std::vector<T>& values, Empty empty) {
    if (values.empty() && empty == Empty::kOmit) return *this;
    key(name);
    if (values.empty() && empty == Empty::kNull) return null();
    open_array();
    for (const T& v : values) {
        if constexpr (std::is_same_v<T, std::string>)
            text(v);
        else
            text(v.str());
    }
    return close_array();
}

JsonText& JsonText::list(std::string_view name, const std::vector<std::string>& values, Empty empty) {
    return list_of(name, values, empty);
}
JsonText& JsonText::list(std::string_view name, const std::vector<Addr>& values, Empty empty) {
    return list_of(name, values, empty);
}
JsonText& JsonText::list(std::string_view name, const std::vector<Prefix>& values, Empty empty) {
    return list_of(name, values, empty);
}
JsonText& JsonText::list(std::string_view name, const std::vector<Endpoint>& values, Empty empty) {
    return list_of(name, values, empty);
}

std::string compact_json(std::string_view json) {
    std::string out;
    out.reserve(json.size());
    for (size_t i = 0; i < json.size();) {
        if (is_space(json[i])) {
            ++i;
            continue;
        }
        const size_t end = std::max(end_of_token(json, i), i + 1);  // a bracket or sign is a token of one
        out += json.substr(i, end - i);
        i = end;
    }
    return out;
}

std::string indent_json(std::string_view json, std::string_view indent) {
    std::string out;
    out.reserve(json.size() + json.size() / 2);
    indent_into(out, json, indent, "\n");
    return out;
}

}  // namespace mesh::api
