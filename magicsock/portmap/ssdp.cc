// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/portmap/ssdp.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/http1.h"

namespace mesh::portmap::ssdp {
namespace {

std::string_view trim(std::string_view s) {
    constexpr std::string_view kBlank = " \t\r";
    const size_t first = s.find_first_not_of(kBlank);
    if (first == std::string_view::npos) return {};
    return s.substr(first, s.find_last_not_of(kBlank) - first + 1);
}

bool same_name(std::string_view a, std::string_view lower) {
    return std::equal(a.begin(), a.end(), lower.begin(), lower.end(),
                      [](char x, char y) { return (x >= 'A' && x <= 'Z' ? static_cast<char>(x + 32) : x) == y; });
}

}  // namespace

Endpoint multicast() { return {Addr::v4(239, 255, 255, 250), kPort}; }

std::string search(std::string_view target) {
    return fmt::format("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: {}\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\r\n", target);
}

// By hand, as routers end their lines in every way there is, which a strict HTTP parser refuses.
std::optional<Answer> parse(ByteSpan datagram) {
    if (datagram.size() > kMaxAnswer) return std::nullopt;
    std::string_view text = as_text(datagram);
    const auto next_line = [&text] {
        const size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = trim(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        return line;
    };
    const std::string_view first = next_line();
    if (!first.starts_with("HTTP/1.") || first.find(" 200") == std::string_view::npos) return std::nullopt;
    bool gateway = false;
    std::string_view location;
    for (std::string_view line = next_line(); !line.empty(); line = next_line()) {
        const size_t colon = line.find(':');
        if (colon == std::string_view::npos) continue;
        const std::string_view name = trim(line.substr(0, colon)), value = trim(line.substr(colon + 1));
        if (same_name(name, "st") || same_name(name, "usn"))
            gateway = gateway || value.find(":InternetGatewayDevice:") != std::string_view::npos;
        else if (same_name(name, "location"))
            location = value;
    }
    if (!gateway) return std::nullopt;
    const auto url = http1::parse_url(location);
    if (!url || url->scheme != "http" || url->port == 0) return std::nullopt;
    const auto addr = Addr::parse(url->host);
    if (!addr || !addr->is_v4()) return std::nullopt;
    // It goes into a request line of ours.
    if (std::any_of(url->path.begin(), url->path.end(), [](char c) { return c <= ' ' || c > '~'; })) return std::nullopt;
    return Answer{{*addr, url->port}, url->path};
}

}  // namespace mesh::portmap::ssdp
