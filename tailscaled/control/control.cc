// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/control.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"

namespace mesh::control {
namespace {

void put(Json& j, const char* key, const std::string& v) {
    if (!v.empty()) j[key] = v;
}
void put(Json& j, const char* key, bool v) {
    if (v) j[key] = true;
}
void put(Json& j, const char* key, const std::optional<bool>& v) {
    if (v) j[key] = *v;
}
void put(Json& j, const char* key, const std::vector<std::string>& v) {
    if (!v.empty()) j[key] = v;
}

Json net_info_json(const NetInfo& n) {
    Json j = Json::object();
    put(j, "MappingVariesByDestIP", n.mapping_varies_by_dest_ip);
    put(j, "WorkingIPv6", n.working_ipv6);
    put(j, "OSHasIPv6", n.os_has_ipv6);
    put(j, "WorkingUDP", n.working_udp);
    put(j, "WorkingICMPv4", n.working_icmpv4);
    put(j, "HavePortMap", n.have_port_map);
    put(j, "UPnP", n.upnp);
    put(j, "PMP", n.pmp);
    put(j, "PCP", n.pcp);
    if (n.preferred_derp != 0) j["PreferredDERP"] = n.preferred_derp;
    put(j, "LinkType", n.link_type);
    if (!n.derp_latency.empty()) j["DERPLatency"] = n.derp_latency;
    put(j, "FirewallMode", n.firewall_mode);
    return j;
}

Json hostinfo_json(const Hostinfo& h) {
    Json j = Json::object();
    put(j, "IPNVersion", h.ipn_version);
    put(j, "BackendLogID", h.backend_log_id);
    put(j, "OS", h.os);
    put(j, "OSVersion", h.os_version);
    put(j, "Container", h.container);
    put(j, "Env", h.env);
    put(j, "Distro", h.distro);
    put(j, "DistroVersion", h.distro_version);
    put(j, "DistroCodeName", h.distro_code_name);
    put(j, "App", h.app);
    put(j, "Desktop", h.desktop);
    put(j, "Package", h.package);
    put(j, "DeviceModel", h.device_model);
    put(j, "Hostname", h.hostname);
    put(j, "ShieldsUp", h.shields_up);
    put(j, "NoLogsNoSupport", h.no_logs_no_support);
    put(j, "WireIngress", h.wire_ingress);
    put(j, "IngressEnabled", h.ingress_enabled);
    put(j, "AllowsUpdate", h.allows_update);
    put(j, "Machine", h.machine);
    put(j, "GoArch", h.arch);
    put(j, "GoArchVar", h.arch_var);
    put(j, "GoVersion", h.language_version);
    if (!h.routable_ips.empty()) {
        Json list = Json::array();
        for (const Prefix& p : h.routable_ips) list.push_back(p.str());
        j["RoutableIPs"] = std::move(list);
    }
    put(j, "RequestTags", h.request_tags);
    put(j, "WoLMACs", h.wol_macs);
    if (!h.services.empty()) {
        Json list = Json::array();
        for (const netmap::Service& s : h.services) {
            Json e = Json::object();
            e["Proto"] = s.proto;
            e["Port"] = s.port;
            put(e, "Description", s.description);
            list.push_back(std::move(e));
        }
        j["Services"] = std::move(list);
    }
    if (h.net_info) j["NetInfo"] = net_info_json(*h.net_info);
    put(j, "sshHostKeys", h.ssh_host_keys);
    put(j, "Cloud", h.cloud);
    put(j, "Userspace", h.userspace);
    put(j, "UserspaceRouter", h.userspace_router);
    put(j, "AppConnector", h.app_connector);
    put(j, "PeerRelay", h.peer_relay);
    put(j, "ExitNodeID", h.exit_node_id);
    put(j, "StateEncrypted", h.state_encrypted);
    return j;
}

}  // namespace

bool is_web_url(std::string_view url) {
    return (url.starts_with("https://") || url.starts_with("http://")) && log::printable(url, 2048) == url;
}

bool NetInfo::basically_equal(const NetInfo& o) const {
    NetInfo a = *this;
    a.derp_latency = o.derp_latency;
    return a == o;
}

bool Hostinfo::basically_equal(const Hostinfo& o) const {
    if (net_info.has_value() != o.net_info.has_value()) return false;
    if (net_info && !net_info->basically_equal(*o.net_info)) return false;
    Hostinfo a = *this;
    a.net_info = o.net_info;
    return a == o;
}

std::string to_text(const Hostinfo& h) { return json::dump(hostinfo_json(h)); }

std::string to_text(const RegisterRequest& r) {
    Json j = Json::object();
    j["Version"] = r.version;
    j["NodeKey"] = r.node_key.text();
    j["OldNodeKey"] = r.old_node_key.text();
    if (!r.auth_key.empty()) {
        Json auth = Json::object();
        auth["AuthKey"] = r.auth_key;
        j["Auth"] = std::move(auth);
    }
    j["Expiry"] = json::time_text(r.expiry.value_or(WallTime{}));
    j["Followup"] = r.followup;
    j["Hostinfo"] = r.hostinfo ? hostinfo_json(*r.hostinfo) : Json();
    put(j, "Ephemeral", r.ephemeral);
    j["NodeKeySignature"] = Json();
    return json::dump(j);
}

Result<RegisterResponse> parse_register_response(std::string_view body) {
    TRY_ASSIGN(const Json j, json::parse(body, kMaxRegisterResponse));
    if (!j.is_object()) return fail(Code::kInvalid, "the answer to the registration is not a JSON object");
    RegisterResponse r;
    r.error = json::str(j, "Error");
    if (const Json* u = json::find(j, "User")) {
        r.user.id = json::integer(*u, "ID");
        r.user.display_name = json::str(*u, "DisplayName");
        r.user.profile_pic_url = json::str(*u, "ProfilePicURL");
    }
    if (const Json* l = json::find(j, "Login")) {
        r.login_provider = json::str(*l, "Provider");
        r.user.login_name = json::str(*l, "LoginName");
        if (r.user.display_name.empty()) r.user.display_name = json::str(*l, "DisplayName");
        if (r.user.profile_pic_url.empty()) r.user.profile_pic_url = json::str(*l, "ProfilePicURL");
        if (r.user.id == 0) r.user.id = json::integer(*l, "ID");
    }
    r.node_key_expired = json::boolean(j, "NodeKeyExpired");
    r.machine_authorized = json::boolean(j, "MachineAuthorized");
    r.auth_url = json::str(j, "AuthURL");
    r.has_key_signature = !json::str(j, "NodeKeySignature").empty();
    return r;
}

std::string to_text(const MapRequest& r) {
    Json j = Json::object();
    j["Version"] = r.version;
    if (r.compress_zstd) j["Compress"] = "zstd";
    j["KeepAlive"] = true;
    j["NodeKey"] = r.node_key.text();
    j["DiscoKey"] = r.disco_key.text();
    put(j, "Stream", r.stream);
    j["Hostinfo"] = hostinfo_json(r.hostinfo);
    if (!r.endpoints.empty()) {
        Json list = Json::array();
        Json types = Json::array();
        for (const TypedEndpoint& e : r.endpoints) {
            list.push_back(e.endpoint.str());
            types.push_back(static_cast<int>(e.type));
        }
        j["Endpoints"] = std::move(list);
        j["EndpointTypes"] = std::move(types);
    }
    put(j, "OmitPeers", r.omit_peers);
    return json::dump(j);
}

Result<MachinePublic> parse_server_key(std::string_view body) {
    const auto j = json::parse(body, 64U << 10);
    if (!j || !j->is_object()) return fail(Code::kInvalid, "the answer is not that of a control server");
    const auto key = MachinePublic::parse(json::str(*j, "publicKey"));
    if (!key || key->is_zero()) return fail(Code::kUnsupported, "the control server offers no key for the Noise protocol");
    return *key;
}

}  // namespace mesh::control
