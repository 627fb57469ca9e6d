// SPDX-License-Identifier: BSD-3-Clause
#include "derper/bootstrap_dns.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "derper/pages.h"

namespace mesh::derper {
namespace {

constexpr size_t kMaxNames = 100;
constexpr size_t kMaxNameLen = 253;
constexpr Duration kRefresh = minutes(10);

bool is_name(std::string_view s) {
    return !s.empty() && s.size() <= kMaxNameLen && std::all_of(s.begin(), s.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    });
}

void put(Json& out, const NameTable& table, const std::string& name) {
    const auto it = table.find(name);
    if (it == table.end() || it->second.empty()) return;
    Json addrs = Json::array();
    for (const Addr& a : it->second) addrs.push_back(a.str());
    out[name] = std::move(addrs);
}

/// Value of q in the query; names need no percent signs.
std::string asked_name(const http1::Request& request) {
    std::string_view rest = request.target;
    rest = rest.substr(std::min(rest.find('?'), rest.size()));
    while (!rest.empty()) {
        rest.remove_prefix(1);
        const size_t end = std::min(rest.find('&'), rest.size());
        if (rest.substr(0, end).starts_with("q=")) return std::string(rest.substr(2, end - 2));
        rest.remove_prefix(end);
    }
    return "";
}

}  // namespace

Result<std::vector<std::string>> parse_names(std::string_view text) {
    std::vector<std::string> out;
    while (!text.empty()) {
        const size_t comma = std::min(text.find(','), text.size());
        const std::string_view one = text.substr(0, comma);
        text.remove_prefix(std::min(comma + 1, text.size()));
        if (one.find('/') != std::string_view::npos)
            return fail(Code::kUnsupported, fmt::format("\"{}\": a share of clients by TXT record is not built in; write {}",
                                                        log::printable(one, 80), log::printable(one.substr(0, one.find('/')), 80)));
        if (!is_name(one)) return fail(Code::kInvalid, fmt::format("\"{}\" is no host name", log::printable(one, 80)));
        if (out.size() >= kMaxNames) return fail(Code::kLimit, fmt::format("more than {} names", kMaxNames));
        out.emplace_back(one);
    }
    return out;
}

http1::Response answer_bootstrap(const http1::Request& request, const NameTable& open, const NameTable& hidden) {
    http1::Response r;
    r.headers = {{"Content-Type", "application/json"}};
    r.keep_alive = false;
    Json body = Json::object();
    if (const std::string q = asked_name(request); !q.empty()) put(body, hidden, q);
    if (body.empty())
        for (const auto& [name, addrs] : open) put(body, open, name);
    if (!open.empty() || !body.empty()) r.body = json::dump(body, "\t");
    return r;
}

BootstrapDns::BootstrapDns(platform::Loop& loop, platform::Resolver& resolver, Random& random,
                           const std::vector<std::string>& open, const std::vector<std::string>& hidden)
    : resolver_(resolver), random_(random), timer_(loop, [this] { refresh(); }) {
    for (const std::string& name : open) open_[name];
    for (const std::string& name : hidden) hidden_[name];
    refresh();
}

void BootstrapDns::refresh() {
    timer_.set_after(kRefresh);
    lookups_.clear();
    for (NameTable* table : {&open_, &hidden_})
        for (const auto& [name, addrs] : *table) look_up(*table, name);
}

void BootstrapDns::look_up(NameTable& table, const std::string& name) {
    lookups_.push_back(resolver_.resolve(name, {}, [this, &table, name](Result<std::vector<Addr>> found) {
        if (!found) return log::info("bootstrap DNS lookup \"{}\": {}", name, log::printable(found.error().message()));
        // Clients take the first one: shuffled, so that it is not always IPv6.
        for (size_t i = found->size(); i > 1; --i) std::swap((*found)[i - 1], (*found)[random_.below(static_cast<uint32_t>(i))]);
        table[name] = std::move(*found);
    }));
}

}  // namespace mesh::derper
