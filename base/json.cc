// SPDX-License-Identifier: BSD-3-Clause
#include "base/json.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <ctime>

namespace mesh::json {
namespace {

constexpr int kMaxDepth = 64;

bool too_deep(std::string_view text) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\')
                ++i;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > kMaxDepth) return true;
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return false;
}

void write_string(std::string& out, const std::string& s) {
    // nlohmann escapes and repairs UTF-8; Go also escapes <, >, & and the two line separators.
    const std::string quoted = Json(s).dump(-1, ' ', false, Json::error_handler_t::replace);
    for (size_t i = 0; i < quoted.size(); ++i) {
        const char c = quoted[i];
        if (c == '<')
            out += "\\u003c";
        else if (c == '>')
            out += "\\u003e";
        else if (c == '&')
            out += "\\u0026";
        else if (c == '\xe2' && i + 2 < quoted.size() && quoted[i + 1] == '\x80' &&
                 (quoted[i + 2] == '\xa8' || quoted[i + 2] == '\xa9')) {
            out += quoted[i + 2] == '\xa8' ? "\\u2028" : "\\u2029";
            i += 2;
        } else
            out += c;
    }
}

void newline(std::string& out, std::string_view indent, int depth) {
    if (indent.empty()) return;
    out += '\n';
    for (int i = 0; i < depth; ++i) out += indent;
}

void write(std::string& out, const Json& j, std::string_view indent, int depth) {
    if (j.is_object()) {
        out += '{';
        bool first = true;
        for (const auto& [k, v] : j.items()) {
            if (!first) out += ',';
            first = false;
            newline(out, indent, depth + 1);
            write_string(out, k);
            out += indent.empty() ? ":" : ": ";
            write(out, v, indent, depth + 1);
        }
        if (!first) newline(out, indent, depth);
        out += '}';
    } else if (j.is_array()) {
        out += '[';
        bool first = true;
        for (const auto& v : j) {
            if (!first) out += ',';
            first = false;
            newline(out, indent, depth + 1);
            write(out, v, indent, depth + 1);
        }
        if (!first) newline(out, indent, depth);
        out += ']';
    } else if (j.is_string()) {
        write_string(out, j.get_ref<const std::string&>());
    } else {
        out += j.dump();
    }
}

}  // namespace

Result<Json> parse(std::string_view text, size_t max_bytes) {
    if (text.size() > max_bytes) return fail(Code::kLimit, fmt::format("JSON of {} bytes is too large", text.size()));
    // The library takes a zero byte for the end of the text, and a byte order mark for nothing.
    if (text.find('\0') != std::string_view::npos || text.starts_with("\xef\xbb\xbf")) return fail(Code::kInvalid, "malformed JSON");
    if (too_deep(text)) return fail(Code::kLimit, "JSON is nested too deeply");
    Json j = Json::parse(text.begin(), text.end(), nullptr, false);
    if (j.is_discarded()) return fail(Code::kInvalid, "malformed JSON");
    return j;
}

std::string dump(const Json& j, std::string_view indent) {
    std::string out;
    write(out, j, indent, 0);
    return out;
}

const Json* find(const Json& j, const char* key) {
    if (!j.is_object()) return nullptr;
    const auto it = j.find(key);
    return it == j.end() || it->is_null() ? nullptr : &*it;
}

std::string str(const Json& j, const char* key, std::string_view fallback) {
    const Json* v = find(j, key);
    return v && v->is_string() ? v->get<std::string>() : std::string(fallback);
}

int64_t integer(const Json& j, const char* key, int64_t fallback) {
    const Json* v = find(j, key);
    if (v && v->is_number_unsigned() && v->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return fallback;
    return v && v->is_number_integer() ? v->get<int64_t>() : fallback;
}

double number(const Json& j, const char* key, double fallback) {
    const Json* v = find(j, key);
    return v && v->is_number() ? v->get<double>() : fallback;
}

bool boolean(const Json& j, const char* key, bool fallback) {
    const Json* v = find(j, key);
    return v && v->is_boolean() ? v->get<bool>() : fallback;
}

std::optional<bool> opt_bool(const Json& j, const char* key) {
    const Json* v = find(j, key);
    if (v && v->is_boolean()) return v->get<bool>();
    return std::nullopt;
}

std::vector<std::string> strings(const Json& j, const char* key) {
    std::vector<std::string> out;
    const Json* v = find(j, key);
    if (v && v->is_array())
        for (const Json& e : *v)
            if (e.is_string()) out.push_back(e.get<std::string>());
    return out;
}

std::string time_text(WallTime t) {
    if (t.is_zero()) return "0001-01-01T00:00:00Z";
    int64_t sec = t.unix_ns / 1'000'000'000;
    int64_t ns = t.unix_ns % 1'000'000'000;
    if (ns < 0) {
        ns += 1'000'000'000;
        --sec;
    }
    const auto day = std::chrono::floor<std::chrono::days>(std::chrono::sys_seconds(std::chrono::seconds(sec)));
    const std::chrono::year_month_day date(day);
    const int64_t second = sec - std::chrono::seconds(day.time_since_epoch()).count();
    // By hand: a status of 10,000 peers has 30,000 of these.
    std::string out = "0000-00-00T00:00:00";
    const auto put = [&out](size_t at, size_t digits, int64_t value) {
        for (size_t k = at + digits; k-- > at; value /= 10) out[k] = static_cast<char>('0' + value % 10);
    };
    put(0, 4, static_cast<int>(date.year()));
    put(5, 2, static_cast<unsigned>(date.month()));
    put(8, 2, static_cast<unsigned>(date.day()));
    put(11, 2, second / 3600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    if (ns != 0) {
        out += ".000000000";
        put(20, 9, ns);
        while (out.back() == '0') out.pop_back();
    }
    return out + "Z";
}

std::optional<WallTime> parse_time(std::string_view text) {
    const std::string z(text);
    std::tm tm{};
    int consumed = 0;
    if (std::sscanf(z.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
                    &tm.tm_min, &tm.tm_sec, &consumed) != 6)
        return std::nullopt;
    if (tm.tm_year < 1700) return WallTime{};  // year 1 is Go's "never"; nanoseconds since 1970 do not reach much further
    if (tm.tm_year > 2260 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31) return std::nullopt;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int64_t ns = 0;
    auto i = static_cast<size_t>(consumed);
    if (i < z.size() && z[i] == '.') {
        int64_t scale = 100'000'000;
        for (++i; i < z.size() && z[i] >= '0' && z[i] <= '9'; ++i, scale /= 10) ns += (z[i] - '0') * scale;
    }
    int64_t offset = 0;
    if (i < z.size() && (z[i] == '+' || z[i] == '-')) {
        int h = 0, m = 0;
        if (std::sscanf(z.c_str() + i + 1, "%2d:%2d", &h, &m) != 2) return std::nullopt;
        offset = (h * 60 + m) * 60 * (z[i] == '-' ? -1 : 1);
    } else if (i >= z.size() || z[i] != 'Z') {
        return std::nullopt;
    }
    return WallTime{(static_cast<int64_t>(timegm(&tm)) - offset) * 1'000'000'000 + ns};
}

}  // namespace mesh::json
