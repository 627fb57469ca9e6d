// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/json.h"

namespace mesh::api {
namespace {

/// Printable ASCII without characters that Go escapes: the usual case, copied as it is.
bool is_plain(std::string_view s) {
    return std::all_of(s.begin(), s.end(), [](char c) {
        const auto u = static_cast<unsigned char>(c);
        return u >= 0x20 && u < 0x7f && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
    });
}

}  // namespace

void JsonText::comma() {
    if (!first_) out_ += ',';
    first_ = false;
}

JsonText& JsonText::open_object() {
    comma();
    out_ += '{';
    first_ = true;
    return *this;
}
JsonText& JsonText::close_object() {
    out_ += '}';
    first_ = false;
    return *this;
}
JsonText& JsonText::open_array() {
    comma();
    out_ += '[';
    first_ = true;
    return *this;
}
JsonText& JsonText::close_array() {
    out_ += ']';
    first_ = false;
    return *this;
}

JsonText& JsonText::key(std::string_view name) {
    text(name);
    out_ += ':';
    first_ = true;
    return *this;
}

JsonText& JsonText::text(std::string_view value) {
    comma();
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
    comma();
    out_ += fmt::format("{}", value);
    return *this;
}

JsonText& JsonText::number(double value) {
    comma();
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
    comma();
    out_ += value ? "true" : "false";
    return *this;
}

JsonText& JsonText::null() {
    comma();
    out_ += "null";
    return *this;
}

JsonText& JsonText::time(WallTime value) { return text(json::time_text(value)); }

JsonText& JsonText::raw(std::string_view json) {
    comma();
    out_ += json.empty() ? std::string_view("null") : json;
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
    bool in_string = false;
    for (size_t i = 0; i < json.size(); ++i) {
        const char c = json[i];
        if (!in_string && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) continue;
        out += c;
        if (in_string && c == '\\' && i + 1 < json.size())
            out += json[++i];
        else if (c == '"')
            in_string = !in_string;
    }
    return out;
}

std::string indent_json(std::string_view compact, std::string_view indent) {
    std::string out;
    out.reserve(compact.size() * 2);
    size_t depth = 0;
    bool in_string = false;
    const auto newline = [&] {
        out += '\n';
        for (size_t i = 0; i < depth; ++i) out += indent;
    };
    for (size_t i = 0; i < compact.size(); ++i) {
        const char c = compact[i];
        if (in_string) {
            out += c;
            if (c == '\\' && i + 1 < compact.size())
                out += compact[++i];
            else if (c == '"')
                in_string = false;
            continue;
        }
        switch (c) {
            case '"':
                in_string = true;
                out += c;
                break;
            case '{':
            case '[':
                out += c;
                if (i + 1 < compact.size() && (compact[i + 1] == '}' || compact[i + 1] == ']')) {
                    out += compact[++i];
                    break;
                }
                ++depth;
                newline();
                break;
            case '}':
            case ']':
                if (depth > 0) --depth;
                newline();
                out += c;
                break;
            case ',':
                out += c;
                newline();
                break;
            case ':':
                out += ": ";
                break;
            default:
                out += c;
        }
    }
    return out;
}

}  // namespace mesh::api
