// SPDX-License-Identifier: BSD-3-Clause
#include "derper/metrics.h"

#include <fmt/format.h>

namespace mesh::derper {

std::string metrics_text(const Metrics& m) {
    std::string out;
    const auto type = [&out](const char* name, const char* kind) { out += fmt::format("# TYPE {} {}\n", name, kind); };
    const auto one = [&](const char* name, const char* kind, auto value) {
        type(name, kind);
        out += fmt::format("{} {}\n", name, value);
    };
    const auto counter = [&](const char* name, auto value) { one(name, "counter", value); };
    const auto gauge = [&](const char* name, auto value) { one(name, "gauge", value); };
    const RelayStats& r = m.relay;
    counter("derp_accepts", r.accepts);
    counter("derp_bytes_received", r.bytes_in);
    counter("derp_bytes_sent", r.bytes_out);
    counter("derp_packets_received", r.packets_in);
    counter("derp_packets_sent", r.packets_out);
    counter("derp_packets_forwarded_in", r.forwarded_in);
    counter("derp_packets_forwarded_out", r.forwarded_out);
    const auto by_kind = [&out](const char* name, const std::string& more, const derp::ByKind& value) {
        out += fmt::format("{0}{{{1}kind=\"disco\"}} {2}\n{0}{{{1}kind=\"other\"}} {3}\n", name, more, value.disco, value.other);
    };
    type("derp_packets_received_kind", "counter");
    by_kind("derp_packets_received_kind", "", r.received);
    for (const bool bytes : {true, false}) {
        const char* name = bytes ? "derp_bytes_dropped" : "derp_packets_dropped";
        type(name, "counter");
        const auto dropped = [&](const char* reason, const derp::ByKind& k) {
            by_kind(name, fmt::format("reason=\"{}\",", reason), bytes ? derp::ByKind{.disco = k.disco_bytes, .other = k.other_bytes} : k);
        };
        dropped("gone_disconnected", m.sessions.dropped_gone);
        derp::ByKind full = m.sessions.dropped_full;
        full += r.dropped_between;
        dropped("queue_head", full);
        dropped("unknown_dest", r.dropped_unknown);
        dropped("unknown_dest_on_fwd", r.dropped_unknown_forward);
    }
    counter("derp_got_ping", m.sessions.pings);
    counter("derp_sent_pong", m.sessions.pongs);
    counter("derp_unknown_frames", m.sessions.unknown_frames);
    counter("derp_sclient_write_timeouts", m.sessions.write_timeouts);
    counter("derp_websocket_accepts", m.websocket_accepts);
    counter("derp_peer_gone_disconnected_frames", r.gone_disconnected);
    counter("derp_peer_gone_not_here_frames", r.gone_not_here);
    counter("derp_home_moves_in", r.home_moves_in);
    counter("derp_home_moves_out", r.home_moves_out);
    gauge("derp_clients_local", r.clients);
    gauge("derp_clients_remote", r.remote_clients);
    gauge("derp_clients_total", r.clients + r.remote_clients);
    gauge("derp_current_connections", r.connections);
    gauge("derp_current_dup_client_conns", r.connections - r.clients);
    gauge("derp_current_dup_client_keys", r.duplicate_keys);
    counter("derp_total_dup_client_conns", r.duplicates);
    gauge("derp_current_notideal_connections", r.not_ideal_connections);
    gauge("derp_current_home_connections", r.home_connections);
    gauge("derp_current_file_descriptors", m.open_files);
    gauge("derp_watchers", r.watchers);
    gauge("derp_mesh_links_up", m.mesh_links_up);
    counter("derp_clients_rejected", m.clients_rejected);
    counter("derper_tcp_accepted", m.tcp_accepted);
    type("derper_tcp_refused", "counter");
    out += fmt::format("derper_tcp_refused{{reason=\"rate\"}} {}\n", m.tcp_refused_rate);
    out += fmt::format("derper_tcp_refused{{reason=\"source\"}} {}\n", m.tcp_refused_source);
    out += fmt::format("derper_tcp_refused{{reason=\"full\"}} {}\n", m.tcp_refused_full);
    gauge("derper_tcp_open", m.tcp_open);
    gauge("derper_loops", m.loops);
    type("stun_requests", "counter");
    out += fmt::format("stun_requests{{disposition=\"success\"}} {}\n", m.stun_answered_v4 + m.stun_answered_v6);
    out += fmt::format("stun_requests{{disposition=\"not_stun\"}} {}\n", m.stun_ignored);
    type("stun_addrfamily", "counter");
    out += fmt::format("stun_addrfamily{{family=\"ipv4\"}} {}\nstun_addrfamily{{family=\"ipv6\"}} {}\n", m.stun_answered_v4, m.stun_answered_v6);
    if (m.certificate_not_after != 0) gauge("derper_certificate_not_after_seconds", m.certificate_not_after);
    gauge("process_resident_memory_bytes", m.resident_bytes);
    counter("process_cpu_seconds_total", m.cpu_seconds);
    gauge("process_open_fds", m.open_files);
    gauge("process_start_time_seconds", m.started);
    type("derper_build_info", "gauge");
    out += fmt::format("derper_build_info{{version=\"{}\"}} 1\n", m.version);
    return out;
}

}  // namespace mesh::derper
