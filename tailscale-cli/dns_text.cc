// SPDX-License-Identifier: BSD-3-Clause
#include "tailscale-cli/dns_text.h"

#include <fmt/format.h>

#include "base/log.h"
#include "tailscale-cli/flags.h"
#include "tailscale-cli/table_text.h"

namespace mesh::cli {
namespace {

std::string shown(std::string_view text) { return log::printable(text); }

std::string without_dot(std::string name) {
    if (name.ends_with('.')) name.pop_back();
    return shown(name);
}

std::vector<std::string> addresses(const Json* resolvers) {
    std::vector<std::string> out;
    if (resolvers && resolvers->is_array())
        for (const Json& r : *resolvers) out.push_back(shown(json::str(r, "Addr")));
    return out;
}

/// Suffix → servers; those answered here are left out.
std::vector<std::pair<std::string, std::vector<std::string>>> split_routes(const Json& config) {
    std::vector<std::pair<std::string, std::vector<std::string>>> out;
    if (const Json* routes = json::find(config, "Routes"); routes && routes->is_object())
        for (const auto& [suffix, resolvers] : routes->items())
            if (auto list = addresses(&resolvers); !list.empty()) out.emplace_back(shown(suffix), std::move(list));
    return out;
}

void bullets(std::string& out, const std::vector<std::string>& items, const char* none) {
    if (items.empty()) out += fmt::format("  ({})\n", none);
    for (const std::string& i : items) out += fmt::format("  - {}\n", shown(i));
}

Json resolver_list(const std::vector<std::string>& list) {
    Json out = Json::array();
    for (const std::string& a : list) {
        Json r = Json::object();
        r["Addr"] = a;
        out.push_back(std::move(r));
    }
    return out;
}

std::string rcode_name(uint8_t rcode) {
    switch (rcode) {
        case dns::kNoError: return "RCodeSuccess";
        case dns::kFormErr: return "RCodeFormatError";
        case dns::kServFail: return "RCodeServerFailure";
        case dns::kNxDomain: return "RCodeNameError";
        case dns::kNotImp: return "RCodeNotImplemented";
        case dns::kRefused: return "RCodeRefused";
        default: return fmt::format("{}", rcode);
    }
}

std::string class_name(uint16_t cls) { return cls == dns::kClassIn ? "ClassINET" : fmt::format("{}", cls); }
std::string type_word(uint16_t type) {
    const std::string name = dns::type_name(type);
    return name.starts_with("TYPE") ? name.substr(4) : "Type" + name;
}

}  // namespace

std::string dns_status_text(const DnsStatus& s, bool all) {
    std::string out = "\n=== 'Use Tailscale DNS' status ===\n\n";
    if (s.accept_dns)
        out += "Tailscale DNS: enabled.\n\nThis node handles the DNS queries of this host.\n"
               "Run 'tailscale set --accept-dns=false' to go back to the host's own resolver.\n";
    else
        out += "Tailscale DNS: disabled.\n\nThe host's own resolver is left as it is.\n"
               "Run 'tailscale set --accept-dns=true' to use the DNS settings of the control server.\n";
    out += "\n=== MagicDNS configuration ===\n\nWhat the control server tells this node.\n\n";
    const auto& tailnet = s.status.current_tailnet;
    if (!tailnet) {
        out += "No tailnet information available; make sure that this node is logged in and running.\n";
    } else {
        out += tailnet->magic_dns_enabled ? fmt::format("MagicDNS: enabled tailnet-wide (suffix = {})\n", shown(tailnet->magic_dns_suffix))
                                          : std::string("MagicDNS: disabled tailnet-wide.\n");
        if (tailnet->magic_dns_enabled)
            out += fmt::format("\nOther devices in your tailnet can reach this device at {}.\n", without_dot(s.status.self.dns_name));
    }
    out += "\nResolvers (in preference order):\n";
    bullets(out, addresses(json::find(s.config, "Resolvers")), "no resolvers configured, system default will be used: see 'System DNS configuration' below");
    out += "\nSplit DNS Routes:\n";
    const auto routes = split_routes(s.config);
    if (routes.empty()) out += "  (no routes configured: split DNS disabled)\n";
    for (const auto& [suffix, servers] : routes)
        for (const std::string& server : servers) out += fmt::format("  - {:<30} -> {}\n", suffix, server);
    if (all) {
        out += "\nFallback Resolvers:\n";
        bullets(out, addresses(json::find(s.config, "FallbackResolvers")), "no fallback resolvers configured");
    }
    out += "\nSearch Domains:\n";
    bullets(out, json::strings(s.config, "Domains"), "no search domains configured");
    if (all) {
        out += "\nCertificate Domains:\n";
        bullets(out, json::strings(s.config, "CertDomains"), "no certificate domains are configured");
        out += "\nAdditional DNS Records:\n";
        std::vector<std::string> records;
        if (const Json* list = json::find(s.config, "ExtraRecords"); list && list->is_array())
            for (const Json& r : *list) {
                const std::string type = json::str(r, "Type");
                records.push_back(fmt::format("{:<50} -> {:<5} {}", json::str(r, "Name"), type.empty() ? "A" : type, json::str(r, "Value")));
            }
        bullets(out, records, "no extra records are configured");
    }
    out += "\n=== System DNS configuration ===\n\nWhat this host uses, or would use without this node.\n\nNameservers:\n";
    if (!s.os) return out + fmt::format("  (not known: {})\n", shown(s.os_error)) + "\n";
    bullets(out, json::strings(*s.os, "Nameservers"), "no nameservers found, DNS queries might fail\nunless the coordination server is providing a nameserver");
    out += "\nSearch domains:\n";
    bullets(out, json::strings(*s.os, "SearchDomains"), "no search domains found");
    if (all) {
        out += "\nMatch domains:\n";
        bullets(out, json::strings(*s.os, "MatchDomains"), "no match domains found");
    }
    return out + "\n";
}

std::string dns_status_json(const DnsStatus& s) {
    Json j = Json::object();
    j["TailscaleDNS"] = s.accept_dns;
    if (const auto& t = s.status.current_tailnet) {
        j["CurrentTailnet"]["MagicDNSEnabled"] = t->magic_dns_enabled;
        j["CurrentTailnet"]["MagicDNSSuffix"] = t->magic_dns_suffix;
        j["CurrentTailnet"]["SelfDNSName"] = s.status.self.dns_name;
    }
    const auto some = [&](const char* key) {
        if (auto list = addresses(json::find(s.config, key)); !list.empty()) j[key] = resolver_list(list);
    };
    some("Resolvers");
    j["SplitDNSRoutes"] = Json::object();
    for (const auto& [suffix, servers] : split_routes(s.config)) j["SplitDNSRoutes"][suffix] = resolver_list(servers);
    some("FallbackResolvers");
    j["SearchDomains"] = json::strings(s.config, "Domains");
    if (const auto list = json::strings(s.config, "Nameservers"); !list.empty()) j["Nameservers"] = list;
    if (const auto list = json::strings(s.config, "CertDomains"); !list.empty()) j["CertDomains"] = list;
    if (const Json* list = json::find(s.config, "ExtraRecords"); list && list->is_array() && !list->empty()) j["ExtraRecords"] = *list;
    if (s.os)
        j["SystemDNS"] = *s.os;
    else
        j["SystemDNSError"] = s.os_error;
    return json::dump(j, "  ") + "\n";
}

std::string dns_query_text(const DnsQueryAnswer& a, const dns::Message& m) {
    std::string out = fmt::format("DNS query for {} ({}) using internal resolver:\n\n", in_quotes(a.name), a.type);
    if (a.resolvers.size() == 1) {
        out += fmt::format("Forwarding to resolver: {}\n\n", shown(a.resolvers[0]));
    } else if (!a.resolvers.empty()) {
        out += "Multiple resolvers available:\n";
        for (const std::string& r : a.resolvers) out += fmt::format("  - {}\n", shown(r));
        out += "\n";
    }
    out += fmt::format("Response code: {}\n\n", rcode_name(m.header.rcode));
    if (m.answers.empty()) return out + "No answers found.\n";
    std::vector<std::vector<std::string>> rows{{"Name", "TTL", "Class", "Type", "Body"}, {"----", "---", "-----", "----", "----"}};
    for (const dns::Record& r : m.answers)
        rows.push_back({shown(r.name + "."), fmt::format("{}", r.ttl), class_name(r.cls), type_word(r.type), shown(dns::data_text(a.message, r))});
    return out + table_text(rows, 2, LastColumn::kBare) + "\n";
}

std::string dns_query_json(const DnsQueryAnswer& a, const dns::Message& m) {
    Json j = Json::object();
    j["Name"] = a.name;
    j["QueryType"] = a.type;
    if (!a.resolvers.empty()) j["Resolvers"] = resolver_list(a.resolvers);
    j["ResponseCode"] = rcode_name(m.header.rcode);
    j["Answers"] = Json::array();
    for (const dns::Record& r : m.answers) {
        Json row = Json::object();
        row["Name"] = r.name + ".";
        row["TTL"] = r.ttl;
        row["Class"] = class_name(r.cls);
        row["Type"] = type_word(r.type);
        row["Body"] = dns::data_text(a.message, r);
        j["Answers"].push_back(std::move(row));
    }
    return json::dump(j, "  ") + "\n";
}

}  // namespace mesh::cli
