// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Turns the messages of map polls into network maps and the differences between them. Pure.
///
/// A poll starts from nothing: its first message must describe this node and all peers. The map of the poll before stays
/// the point of comparison, so that after a reconnect only real changes reach the data plane. Within one message the
/// order is: Peers (then no other peer field counts), else PeersRemoved, PeersChanged, PeerSeenChange, OnlineChange,
/// PeersChangedPatch. Absent, null and (for most fields) empty mean "unchanged".

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "tailscaled/control/control.h"
#include "tailscaled/netmap/netmap.h"

namespace mesh::control {

struct MapFields;

struct MapUpdate {
    bool keepalive = false;
    bool first = false;  ///< first map of this poll
    /// Null if nothing changed.
    std::shared_ptr<const netmap::NetMap> map;
    netmap::PeerChanges changes;  ///< since the map handed out last
    std::optional<PingRequest> ping;
    std::string open_url;           ///< to show to a person, http(s) only, each once; "" = none
    Duration sleep;                 ///< wait that long before reading on (Debug.SleepSeconds, ≤ 5 min)
    std::optional<int> exit_code;   ///< the server asks the program to end (Debug.Exit)
};

class MapSession {
   public:
    struct Limits {
        size_t peers = 100'000;
        size_t routes = 1'000'000;  ///< allowed prefixes of all peers together
        size_t filter_entries = 1'000'000;
        size_t users = 100'000;
        size_t messages = 256;  ///< health lines, display messages
    };
    static constexpr Duration kWatchdog = seconds(120);

    MapSession() : MapSession(Limits{}) {}
    explicit MapSession(const Limits& limits) : limits_(limits) {}

    /// A new poll is being opened: state starts empty, the watchdog starts.
    void begin_poll(Time now);
    /// One message. An error ends the poll; the map handed out before stays good.
    [[nodiscard]] Result<MapUpdate> handle_message(std::string_view json, WallTime wall, Time now);
    /// When the poll must be given up for silence.
    [[nodiscard]] Time next_timeout() const { return deadline_; }
    /// The map handed out last; null if none.
    [[nodiscard]] const std::shared_ptr<const netmap::NetMap>& map() const { return published_; }
    /// Forget everything (another account or server).
    void reset();
    /// Entries of messages that could not be read and were left out.
    [[nodiscard]] uint64_t skipped() const { return skipped_; }

   private:
    [[nodiscard]] Status apply_peers(const MapFields& f, WallTime wall);
    [[nodiscard]] Status apply_deltas(const MapFields& f, WallTime wall);
    [[nodiscard]] Status apply_filters(const MapFields& f);
    [[nodiscard]] Status apply_users(const MapFields& f);
    [[nodiscard]] Status apply_messages(const MapFields& f);
    [[nodiscard]] Status apply_rest(const MapFields& f);
    [[nodiscard]] Status apply_self(const MapFields& f);
    void apply_patch(std::string_view text);
    void apply_control_time(std::string_view text, WallTime wall);
    void read_extras(const MapFields& f, MapUpdate& out);
    [[nodiscard]] bool read_filter_list(std::string_view text, std::vector<netstack::FilterRule>& out);
    void rebuild_filter();
    void upsert(netmap::NodePtr node);
    void erase(netmap::NodeId id);
    void touch(netmap::NodeId id);
    void skip(const Error& why);

    Limits limits_;
    netmap::NetMap work_;
    std::shared_ptr<const netmap::NetMap> published_;
    std::map<netmap::NodeId, netmap::NodePtr> touched_;  // as before this message; null = was not there
    std::map<std::string, std::vector<netstack::FilterRule>> chunks_;
    std::set<std::string> broken_chunks_;  // use forms this client does not accept: everything is blocked
    size_t routes_ = 0;
    bool first_ = true;
    bool self_changed_ = false, derp_changed_ = false, dns_changed_ = false, filter_changed_ = false,
         users_changed_ = false, other_changed_ = false;
    Time deadline_ = Time::never();
    std::string last_ping_url_, last_open_url_;
    bool bad_url_told_ = false;
    uint64_t skipped_ = 0;
};

}  // namespace mesh::control
