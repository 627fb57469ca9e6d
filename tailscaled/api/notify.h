// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One message of the bus (`watch-ipn-bus`): only what changed is set.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/api/state.h"

namespace mesh::api {

/// Bits of `?mask=`.
enum WatchBit : uint64_t {
    kWatchEngineUpdates = 1,
    kWatchInitialState = 2,
    kWatchInitialPrefs = 4,
    kWatchInitialNetMap = 8,
    kWatchNoOp = 16,
    kWatchInitialDriveShares = 32,
    kWatchInitialOutgoingFiles = 64,
    kWatchInitialHealth = 128,
    kWatchRateLimit = 256,
    kWatchHealthActions = 512,
    kWatchInitialSuggestedExitNode = 1024,
    kWatchInitialClientVersion = 2048,
    kWatchPeerChanges = 4096,
    kWatchNoNetMap = 8192,
    kWatchInitialStatus = 16384,
    kWatchPeerPatches = 32768,
    kWatchInProcessOnly = 65536,
    kWatchPolicy = 131072,
    kWatchPeerState = 262144,
};

struct EngineStatus {
    int64_t rx_bytes = 0;
    int64_t tx_bytes = 0;
    int64_t num_live = 0;
    int64_t live_derps = 0;
};

struct HealthWarning {
    std::string code;      ///< "warming-up"
    std::string severity;  ///< "low", "medium", "high"
    std::string title;
    std::string text;
    WallTime broken_since;
    std::string etag;
    bool impacts_connectivity = false;
};

/// A file on its way to a peer.
struct OutgoingFile {
    std::string id;
    std::string peer_id;  ///< stable id
    std::string name;
    WallTime started;
    int64_t declared_size = 0;  ///< -1: not known
    int64_t sent = 0;
    bool finished = false;
    bool succeeded = false;
};

struct Notify {
    std::string version;
    std::string session_id;  ///< set by the server on first messages
    std::optional<std::string> err_message;
    bool login_finished = false;
    std::optional<State> state;
    std::optional<Prefs> prefs;          ///< written redacted
    std::string self_change_json;        ///< a Node, compact; "" = absent
    std::string initial_status_json;     ///< compact; "" = absent
    std::string net_map_json;            ///< compact; "" = null
    std::optional<EngineStatus> engine;
    std::optional<std::string> browse_to_url;
    bool drive_shares = false;           ///< writes the empty list
    std::string peers_changed_json;      ///< array of Node; "" = absent. Sent only to watchers of peer changes
    std::vector<int64_t> peers_removed;
    std::optional<std::vector<HealthWarning>> health;  ///< empty list: {"Warnings":null}

    bool files_waiting = false;                             ///< peers' files can be fetched
    std::optional<std::vector<OutgoingFile>> outgoing_files;

    /// Nothing set but version and session.
    [[nodiscard]] bool empty() const;
};

void write_notify(JsonText& out, const Notify& n);
[[nodiscard]] std::string notify_json(const Notify& n);

/// What `up` and `wait` look at; the rest is left out.
struct NotifySummary {
    std::optional<std::string> err_message;
    bool login_finished = false;
    std::optional<State> state;
    std::optional<std::string> browse_to_url;
    std::optional<NodePublic> self_key;
};
[[nodiscard]] Result<NotifySummary> parse_notify(std::string_view json);

}  // namespace mesh::api
