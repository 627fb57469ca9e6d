// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/portmap/upnp.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <pugixml.hpp>

#include "base/http1.h"

namespace mesh::portmap::upnp {
namespace {

constexpr int kMaxDepth = 24;
constexpr size_t kMaxText = 256;

/// Best first. The last two are what gateways of the DSL Forum's time call themselves.
constexpr std::string_view kTypes[] = {
    "urn:schemas-upnp-org:service:WANIPConnection:2", "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1", "urn:dslforum-org:service:WANPPPConnection:1",
    "urn:dslforum-org:service:WANIPConnection:1"};

size_t rank(std::string_view type) {
    return static_cast<size_t>(std::find(std::begin(kTypes), std::end(kTypes), type) - std::begin(kTypes));
}

/// "u:Envelope" → "Envelope": prefixes are the sender's choice.
std::string_view local_name(pugi::xml_node n) {
    const std::string_view name = n.name();
    const size_t colon = name.find(':');
    return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

std::string_view text_of(pugi::xml_node n) {
    std::string_view text = n.text().get();
    while (!text.empty() && static_cast<unsigned char>(text.front()) <= ' ') text.remove_prefix(1);
    while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.remove_suffix(1);
    return text.substr(0, kMaxText);
}

pugi::xml_node child(pugi::xml_node n, std::string_view name) {
    for (pugi::xml_node c : n.children())
        if (local_name(c) == name) return c;
    return {};
}

/// Visits every element down to kMaxDepth; without recursion, as the sender chooses the depth.
template <class Visit>
void walk(pugi::xml_node root, const Visit& visit) {
    pugi::xml_node n = root;
    int depth = 0;
    while (n) {
        if (n.type() == pugi::node_element) visit(n);
        if (depth < kMaxDepth && n.first_child()) {
            n = n.first_child();
            ++depth;
            continue;
        }
        while (depth > 0 && !n.next_sibling()) {
            n = n.parent();
            --depth;
        }
        if (depth == 0) return;
        n = n.next_sibling();
    }
}

Status load(pugi::xml_document& doc, std::string_view xml, std::string_view root) {
    if (xml.size() > kMaxXml) return fail(Code::kLimit, fmt::format("its XML is larger than {} KiB", kMaxXml >> 10));
    const pugi::xml_parse_result r = doc.load_buffer(xml.data(), xml.size(), pugi::parse_cdata | pugi::parse_escapes | pugi::parse_eol);
    if (!r) return fail(Code::kInvalid, fmt::format("it is not XML ({})", r.description()));
    if (local_name(doc.document_element()) != root) return fail(Code::kInvalid, fmt::format("it is not a <{}>", root));
    return {};
}

/// The path of a URL, which may be absolute, or relative to the host; "" if it is unusable.
std::string path_of(std::string_view url) {
    std::string path;
    if (const auto absolute = http1::parse_url(url))
        path = absolute->path;
    else
        path = url.starts_with('/') ? std::string(url) : "/" + std::string(url);
    if (url.empty() || std::any_of(path.begin(), path.end(), [](char c) { return c <= ' ' || c > '~'; })) return "";
    return path;
}

}  // namespace

Result<std::vector<Service>> parse_description(std::string_view xml) {
    pugi::xml_document doc;
    TRY(load(doc, xml, "root"));
    std::vector<Service> out;
    walk(doc.document_element(), [&](pugi::xml_node n) {
        if (local_name(n) != "service" || out.size() >= kMaxServices) return;
        Service s{std::string(text_of(child(n, "serviceType"))), path_of(text_of(child(n, "controlURL")))};
        if (rank(s.type) == std::size(kTypes) || s.control_path.empty()) return;
        if (std::find(out.begin(), out.end(), s) == out.end()) out.push_back(std::move(s));
    });
    std::stable_sort(out.begin(), out.end(), [](const Service& a, const Service& b) { return rank(a.type) < rank(b.type); });
    return out;
}

Call make_call(const Service& service, std::string_view action, const Args& args) {
    std::string inner;
    for (const auto& [name, value] : args) inner += fmt::format("<{0}>{1}</{0}>", name, value);
    return {fmt::format("\"{}#{}\"", service.type, action),
            fmt::format("<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
                        "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{0} xmlns:u=\"{1}\">{2}</u:{0}></s:Body>"
                        "</s:Envelope>\r\n",
                        action, service.type, inner)};
}

Call add_mapping(const Service& service, uint16_t external, const Endpoint& internal, uint32_t lease_s) {
    return make_call(service, service.is_v2() ? "AddAnyPortMapping" : "AddPortMapping",
                     {{"NewRemoteHost", ""},
                      {"NewExternalPort", std::to_string(external)},
                      {"NewProtocol", "UDP"},
                      {"NewInternalPort", std::to_string(internal.port)},
                      {"NewInternalClient", internal.addr.str()},
                      {"NewEnabled", "1"},
                      {"NewPortMappingDescription", "tailscale-portmap"},
                      {"NewLeaseDuration", std::to_string(lease_s)}});
}

Call delete_mapping(const Service& service, uint16_t external) {
    return make_call(service, "DeletePortMapping",
                     {{"NewRemoteHost", ""}, {"NewExternalPort", std::to_string(external)}, {"NewProtocol", "UDP"}});
}

Result<Reply> parse_reply(std::string_view xml) {
    pugi::xml_document doc;
    TRY(load(doc, xml, "Envelope"));
    Reply out;
    bool fault = false;
    walk(doc.document_element(), [&](pugi::xml_node n) {
        const std::string_view name = local_name(n);
        const auto keep = [&](std::string& field) { field = text_of(n); };
        if (name == "Fault") fault = true;
        if (name == "errorDescription") keep(out.error_text);
        if (name == "NewExternalIPAddress") keep(out.external_ip);
        if (name == "NewConnectionStatus") keep(out.status);
        if (name == "NewReservedPort") keep(out.reserved_port);
        if (name != "errorCode") return;
        const std::string_view text = text_of(n);
        std::from_chars(text.data(), text.data() + text.size(), out.error);
    });
    if (fault && out.error == 0) out.error = -1;
    if (!fault) out.error = 0;
    return out;
}

}  // namespace mesh::portmap::upnp
