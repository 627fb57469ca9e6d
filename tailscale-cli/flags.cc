// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "magicsock/netcheck/format.h"

namespace mesh::cli {
namespace {

constexpr std::string_view kUsageIndent = "    \t";

std::optional<double> unit_ns(std::string_view unit) {
    if (unit == "ns") return 1;
    if (unit == "us" || unit == "µs" || unit == "μs") return 1e3;
    if (unit == "ms") return 1e6;
    if (unit == "s") return 1e9;
    if (unit == "m") return 60e9;
    if (unit == "h") return 3600e9;
    return std::nullopt;
}

}  // namespace

std::optional<Duration> parse_duration(std::string_view text) {
    bool negative = false;
    if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
        negative = text[0] == '-';
        text.remove_prefix(1);
    }
    if (text == "0") return Duration{};
    if (text.empty()) return std::nullopt;
    double total = 0;
    while (!text.empty()) {
        const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
        double value = 0;
        const auto [end, ec] = std::from_chars(text.data(), text.data() + digits, value, std::chars_format::fixed);
        if (digits == 0 || ec != std::errc() || end != text.data() + digits) return std::nullopt;
        text.remove_prefix(digits);
        const size_t letters = std::min(text.find_first_of("0123456789."), text.size());
        const auto unit = unit_ns(text.substr(0, letters));
        if (!unit) return std::nullopt;
        total += value * *unit;
        text.remove_prefix(letters);
    }
    if (!(total < 9.2e18)) return std::nullopt;
    const auto ns = static_cast<int64_t>(total);
    return Duration{negative ? -ns : ns};
}

std::optional<bool> parse_bool(std::string_view text) {
    for (const std::string_view t : {"1", "t", "T", "true", "TRUE", "True"})
        if (text == t) return true;
    for (const std::string_view f : {"0", "f", "F", "false", "FALSE", "False"})
        if (text == f) return false;
    return std::nullopt;
}

FlagSet::FlagSet(std::string command, std::string usage, std::string summary, std::string about)
    : command_(std::move(command)), usage_(std::move(usage)), summary_(std::move(summary)), about_(std::move(about)) {}

void FlagSet::insert(std::string name, Target target, std::string help, Show show) {
    std::string initial = text_of(target);
    flags_.push_back({std::move(name), target, std::move(help), std::move(initial), show});
}
void FlagSet::add(std::string name, bool* t, std::string help, Show show) {
    insert(std::move(name), t, std::move(help), show);
}
void FlagSet::add(std::string name, std::string* t, std::string help, Show show) {
    insert(std::move(name), t, std::move(help), show);
}
void FlagSet::add(std::string name, int64_t* t, std::string help, Show show) {
    insert(std::move(name), t, std::move(help), show);
}
void FlagSet::add(std::string name, Duration* t, std::string help, Show show) {
    insert(std::move(name), t, std::move(help), show);
}
void FlagSet::alias(std::string other, std::string name) { aliases_.emplace_back(std::move(other), std::move(name)); }

const FlagSet::Flag* FlagSet::find(std::string_view name) const {
    for (const auto& [other, target] : aliases_)
        if (other == name) name = target;
    for (const Flag& f : flags_)
        if (f.name == name) return &f;
    return nullptr;
}

std::string FlagSet::text_of(const Target& target) {
    if (const auto* b = std::get_if<bool*>(&target)) return **b ? "true" : "false";
    if (const auto* s = std::get_if<std::string*>(&target)) return **s;
    if (const auto* i = std::get_if<int64_t*>(&target)) return fmt::format("{}", **i);
    return duration_text(*std::get<Duration*>(target));
}

bool FlagSet::assign(const Flag& flag, const std::string& value) {
    if (const auto* b = std::get_if<bool*>(&flag.target)) {
        const auto v = parse_bool(value);
        if (v) **b = *v;
        return v.has_value();
    }
    if (const auto* s = std::get_if<std::string*>(&flag.target)) {
        **s = value;
        return true;
    }
    if (const auto* i = std::get_if<int64_t*>(&flag.target)) {
        int64_t v = 0;
        const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), v);
        if (ec != std::errc() || end != value.data() + value.size()) return false;
        **i = v;
        return true;
    }
    const auto v = parse_duration(value);
    if (v) *std::get<Duration*>(flag.target) = *v;
    return v.has_value();
}

FlagSet::Outcome FlagSet::parse(const std::vector<std::string>& args) {
    size_t i = 0;
    for (; i < args.size(); ++i) {
        const std::string& arg = args[i];
        if (arg.size() < 2 || arg[0] != '-') break;
        const size_t dashes = arg[1] == '-' ? 2 : 1;
        if (arg.size() == dashes) {  // "--"
            ++i;
            break;
        }
        std::string name = arg.substr(dashes);
        if (name[0] == '-' || name[0] == '=') {
            error_ = "bad flag syntax: " + arg;
            return Outcome::kBad;
        }
        const size_t eq = name.find('=');
        const bool has_value = eq != std::string::npos;
        std::string value = has_value ? name.substr(eq + 1) : "";
        if (has_value) name.resize(eq);
        const Flag* flag = find(name);
        if (!flag) {
            if (name == "help" || name == "h") return Outcome::kHelp;
            error_ = "flag provided but not defined: -" + name;
            return Outcome::kBad;
        }
        const bool is_boolean = std::holds_alternative<bool*>(flag->target);
        if (!has_value && is_boolean) value = "true";
        if (!has_value && !is_boolean) {
            if (i + 1 >= args.size()) {
                error_ = "flag needs an argument: -" + name;
                return Outcome::kBad;
            }
            value = args[++i];
        }
        const bool repeated = given_.count(flag->name) > 0;
        if (repeated || !assign(*flag, value)) {
            const char* why = repeated ? "flag provided multiple times" : "parse error";
            error_ = is_boolean && has_value ? fmt::format("invalid boolean value {} for -{}: {}", in_quotes(value), flag->name, why)
                     : is_boolean            ? fmt::format("invalid boolean flag {}: {}", flag->name, why)
                                  : fmt::format("invalid value {} for flag -{}: {}", in_quotes(value), flag->name, why);
            return Outcome::kBad;
        }
        given_.insert(flag->name);
    }
    rest_.assign(args.begin() + static_cast<std::ptrdiff_t>(i), args.end());
    return Outcome::kOk;
}

std::vector<std::string> FlagSet::names() const {
    std::vector<std::string> out;
    for (const Flag& f : flags_) out.push_back(f.name);
    std::sort(out.begin(), out.end());
    return out;
}

bool FlagSet::is_bool(std::string_view name) const {
    const Flag* f = find(name);
    return f && std::holds_alternative<bool*>(f->target);
}

std::string FlagSet::value_text(std::string_view name) const {
    const Flag* f = find(name);
    return f ? text_of(f->target) : std::string();
}

std::string FlagSet::usage() const {
    std::string out = fmt::format("{}\n\nUSAGE\n  {} {}\n", summary_, command_, usage_);
    if (!about_.empty()) out += "\n" + about_ + "\n";
    std::vector<const Flag*> listed;
    for (const Flag& f : flags_)
        if (f.show == Show::kListed) listed.push_back(&f);
    std::sort(listed.begin(), listed.end(), [](const Flag* a, const Flag* b) { return a->name < b->name; });
    if (!listed.empty()) out += "\nFLAGS\n";
    for (const Flag* f : listed) {
        const bool boolean = std::holds_alternative<bool*>(f->target);
        out += boolean ? fmt::format("  --{0}, --{0}=false\n", f->name) : fmt::format("  --{} value\n", f->name);
        out += fmt::format("{}{}{}\n", kUsageIndent, f->help,
                           f->initial.empty() ? std::string() : fmt::format(" (default {})", f->initial));
    }
    return out;
}

std::string in_quotes(std::string_view word) {
    std::string out = "\"";
    for (const char c : word) {
        const auto u = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\')
            out += std::string("\\") + c;
        else if (u < 0x20 || u == 0x7f)
            out += fmt::format("\\x{:02x}", u);
        else
            out += c;
    }
    return out + "\"";
}

std::string quoted_list(const std::vector<std::string>& words) {
    std::string out = "[";
    for (const std::string& w : words) out += (out.size() > 1 ? " " : "") + in_quotes(w);
    return out + "]";
}

std::string shell_quoted(std::string_view word) {
    const bool safe = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view("-_./:,@%+=").find(c) != std::string_view::npos;
    });
    if (safe) return std::string(word);
    std::string out = "'";
    for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out + "'";
}

std::string duration_text(Duration d) { return netcheck::duration_text(d); }

std::vector<std::string> split(std::string_view text, char separator) {
    std::vector<std::string> out;
    while (true) {
        const size_t at = text.find(separator);
        out.emplace_back(text.substr(0, at));
        if (at == std::string_view::npos) return out;
        text.remove_prefix(at + 1);
    }
}

}  // namespace mesh::cli
