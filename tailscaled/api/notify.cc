// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/api/notify.h"

#include <algorithm>
#include <map>

#include "base/json.h"

namespace mesh::api {
namespace {

void write_health(JsonText& out, const std::vector<HealthWarning>& warnings) {
    out.open_object().key("Warnings");
    if (warnings.empty()) {
        out.null();
    } else {
        std::map<std::string, const HealthWarning*> sorted;
        for (const HealthWarning& w : warnings) sorted.emplace(w.code, &w);
        out.open_object();
        for (const auto& [code, w] : sorted) {
            out.key(code).open_object();
            out.field("WarnableCode", w->code).field("Severity", w->severity).field("Title", w->title);
            out.field("Text", w->text);
            if (!w->broken_since.is_zero()) out.field("BrokenSince", w->broken_since);
            if (w->impacts_connectivity) out.field("ImpactsConnectivity", true);
            if (!w->etag.empty()) out.field("ETag", w->etag);
            out.close_object();
        }
        out.close_object();
    }
    out.close_object();
}

}  // namespace

bool Notify::empty() const {
    return !err_message && !login_finished && !state && !prefs && self_change_json.empty() &&
           initial_status_json.empty() && net_map_json.empty() && !engine && !browse_to_url && !drive_shares &&
           peers_changed_json.empty() && peers_removed.empty() && !health && !files_waiting && !outgoing_files;
}

void write_notify(JsonText& out, const Notify& n) {
    out.open_object().field("Version", n.version);
    if (!n.session_id.empty()) out.field("SessionID", n.session_id);
    out.key("ErrMessage");
    n.err_message ? out.text(*n.err_message) : out.null();
    out.raw_field("LoginFinished", n.login_finished ? "{}" : "null");
    out.key("State");
    n.state ? out.integer(static_cast<int64_t>(*n.state)) : out.null();
    out.key("Prefs");
    if (n.prefs)
        write_prefs(out, *n.prefs, Secrets::kRedacted);
    else
        out.null();
    if (!n.self_change_json.empty()) out.raw_field("SelfChange", n.self_change_json);
    if (!n.initial_status_json.empty()) out.raw_field("InitialStatus", n.initial_status_json);
    out.raw_field("NetMap", n.net_map_json);
    out.key("Engine");
    if (n.engine) {
        out.open_object().field("RBytes", n.engine->rx_bytes).field("WBytes", n.engine->tx_bytes);
        out.field("NumLive", n.engine->num_live).field("LiveDERPs", n.engine->live_derps);
        out.raw_field("LivePeers", "{}").close_object();
    } else {
        out.null();
    }
    out.key("BrowseToURL");
    n.browse_to_url ? out.text(*n.browse_to_url) : out.null();
    out.raw_field("DriveShares", n.drive_shares ? "[]" : "null");
    if (!n.peers_changed_json.empty()) out.raw_field("PeersChanged", n.peers_changed_json);
    if (!n.peers_removed.empty()) {
        out.key("PeersRemoved").open_array();
        for (const int64_t id : n.peers_removed) out.integer(id);
        out.close_array();
    }
    if (n.files_waiting) out.raw_field("FilesWaiting", "{}");
    if (n.outgoing_files) {
        out.key("OutgoingFiles").open_array();
        for (const OutgoingFile& f : *n.outgoing_files) {
            out.open_object().field("ID", f.id).field("PeerID", f.peer_id).field("Name", f.name).field("Started", f.started);
            out.field("DeclaredSize", f.declared_size).field("Sent", f.sent).field("Finished", f.finished).field("Succeeded", f.succeeded).close_object();
        }
        out.close_array();
    }
    if (n.health) {
        out.key("Health");
        write_health(out, *n.health);
    }
    out.close_object();
}

std::string notify_json(const Notify& n) {
    JsonText out;
    write_notify(out, n);
    return out.take();
}

Result<NotifySummary> parse_notify(std::string_view text) {
    TRY_ASSIGN(const Json j, json::parse(text));
    if (!j.is_object()) return fail(Code::kInvalid, "bus message is no JSON object");
    NotifySummary n;
    if (json::find(j, "ErrMessage")) n.err_message = json::str(j, "ErrMessage");
    n.login_finished = json::find(j, "LoginFinished") != nullptr;
    if (const Json* s = json::find(j, "State"); s && s->is_number_integer())
        n.state = static_cast<State>(std::clamp<int64_t>(json::integer(j, "State"), 0, 6));
    if (json::find(j, "BrowseToURL")) n.browse_to_url = json::str(j, "BrowseToURL");
    if (const Json* self = json::find(j, "SelfChange")) n.self_key = NodePublic::parse(json::str(*self, "Key"));
    return n;
}

}  // namespace mesh::api
