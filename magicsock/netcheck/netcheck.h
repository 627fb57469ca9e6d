// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Which relays are near, what does the NAT do, is there UDP at all. One pure machine for the daemon (probes leave by
/// the sockets of magicsock) and for `tailscale netcheck` (own sockets).
///
///     start() → drain next_send() into a socket; resolve names_needed() and give addresses()
///     every datagram that stun::looks_like_stun → handle_stun(); re-arm next_timeout() → handle_timeout()
///     take_https_wanted() → measure those regions by HTTPS, give https_latency()/https_failed()
///     take_report() when done
/// Every input may make sends, HTTPS wishes or the report ready: drain all three after each.
///
/// One report at a time. Rules: probes at 0/100/200 ms per region and family in a full report, the 3 fastest and home
/// in an incremental one; the STUN phase ends as soon as everything asked has answered, or 3 regions answered and a
/// little time has passed, or after 3 s; the report ends after 5 s at the latest.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/random.h"
#include "base/time.h"
#include "magicsock/derp/derp_map.h"
#include "magicsock/stun/stun.h"

namespace mesh::netcheck {

/// The fields of `netcheck --format=json`, same names.
struct Report {
    WallTime now;
    bool udp = false;   ///< some STUN answer came
    bool ipv6 = false;  ///< some STUN answer came by IPv6
    bool ipv4 = false;
    bool ipv6_can_send = false;
    bool ipv4_can_send = false;
    bool os_has_ipv6 = false;
    bool icmpv4 = false;
    std::optional<bool> mapping_varies_by_dest_ip;
    std::optional<bool> upnp;
    std::optional<bool> pmp;
    std::optional<bool> pcp;
    int preferred_derp = 0;  ///< 0 = none
    std::map<int, Duration> region_latency;  ///< the better of v4, v6 and HTTPS
    std::map<int, Duration> region_v4_latency;
    std::map<int, Duration> region_v6_latency;
    std::map<Endpoint, int> global_v4_counters;  ///< mapped endpoint → how many answers showed it
    std::map<Endpoint, int> global_v6_counters;
    Endpoint global_v4;  ///< invalid if unknown
    Endpoint global_v6;
    std::optional<bool> captive_portal;
};

struct StartOptions {
    std::shared_ptr<const derp::DerpMap> map;
    WallTime wall;              ///< for Report::now
    bool have_v4 = true;        ///< a v4 socket exists and the host has a v4 address
    bool have_v6 = false;
    bool os_has_ipv6 = false;
    bool full = false;          ///< ask for a full report
    /// Only whether UDP works by now: no HTTPS; without an answer the last report is given again. Not with `full`.
    bool udp_only = false;
    int force_preferred = 0;    ///< 0 = choose
    /// Once some region has answered and all probes are out, wait at least this long for the silent ones.
    Duration patience = milliseconds(1000);
};

/// A STUN request to send, by the socket of the address's family.
struct Send {
    Endpoint to;
    stun::RequestBytes datagram;
};

class Netcheck {
   public:
    explicit Netcheck(Random& random);
    ~Netcheck();

    /// Ends a report under way without result.
    void start(const StartOptions& options, Time now);
    void stop();
    [[nodiscard]] bool running() const { return run_ != nullptr; }

    /// Host names whose addresses the plan needs and has not got. Give addresses() for each; an empty list means "not found".
    [[nodiscard]] std::vector<std::string> names_needed() const;
    void addresses(const std::string& host, const std::vector<Addr>& addrs, Time now);

    /// The next request to send now, or nullopt. Drain after start(), addresses() and handle_timeout().
    [[nodiscard]] std::optional<Send> next_send(Time now);
    /// The socket refused to send to that endpoint: clears "can send" of the family if nothing else worked.
    void send_failed(const Endpoint& to, Time now);
    /// True if the datagram answered one of our requests (also late ones of the last report).
    bool handle_stun(ByteSpan datagram, const Endpoint& from, Time now);

    /// Regions to be measured by HTTPS, because STUN is silent; once per report, empty otherwise.
    [[nodiscard]] std::vector<int> take_https_wanted();
    void https_latency(int region, Duration latency, Addr::Family family, Time now);
    void https_failed(int region, Time now);
    void icmp_latency(int region, Duration latency, Time now);

    /// Facts from elsewhere, put into the report under way (and kept for the next).
    void set_portmap(std::optional<bool> upnp, std::optional<bool> pmp, std::optional<bool> pcp);
    void set_captive_portal(std::optional<bool> found);
    /// A frame came from that region's relay: it counts as accessible (home is kept).
    void heard_derp(int region, Time now);
    /// Its connection broke or fell silent: what was heard before says nothing any more.
    void doubt_derp(int region);
    /// It cannot be connected to, whatever STUN says: for 5 min or until it is heard it becomes home only if there is nothing else.
    void derp_unreachable(int region, Time now);
    /// Our home changed by other means (or was read from a file).
    void set_home(int region) { home_ = region; }
    [[nodiscard]] int home() const { return home_; }

    /// The finished report, once.
    [[nodiscard]] std::optional<Report> take_report();
    /// The last finished one; nullptr before the first.
    [[nodiscard]] const Report* last_report() const { return last_ ? &*last_ : nullptr; }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

   private:
    struct Run;
    struct Sent {
        uint64_t run = 0;
        size_t set = 0;
        Endpoint to;
        Time at;
    };
    struct History {
        Time at;
        std::map<int, Duration> latency;
    };
    struct Resolved {
        std::vector<Addr> addrs;
        Time at;
    };

    [[nodiscard]] bool wants_full(const StartOptions& options, Time now) const;
    void plan_full(Run& run) const;
    void plan_incremental(Run& run) const;
    [[nodiscard]] Addr stun_addr(const derp::DerpNode& node, bool v6) const;
    [[nodiscard]] bool waits_for_name(const derp::DerpNode& node) const;
    [[nodiscard]] bool set_over(size_t set) const;
    [[nodiscard]] bool all_sets_over() const;
    [[nodiscard]] Time next_probe() const;
    [[nodiscard]] Time stun_end() const;
    [[nodiscard]] Time https_at() const;
    [[nodiscard]] Time report_end() const;
    void settle(Time now);
    void finish(Time now);
    [[nodiscard]] int choose_home(const Report& report, Time started, Time now) const;

    Random& random_;
    std::unique_ptr<Run> run_;
    uint64_t run_number_ = 0;
    std::optional<Report> finished_;
    std::optional<Report> last_;
    std::vector<int> last_regions_;
    std::deque<History> history_;
    std::map<int, Time> heard_;
    std::map<int, Time> unreachable_;  // since when
    std::map<std::string, Resolved> names_;
    std::map<stun::TxId, Sent> sent_;  // requests in flight, of this report and late ones of the one before
    Time last_full_;
    int home_ = 0;
    std::optional<bool> upnp_;
    std::optional<bool> pmp_;
    std::optional<bool> pcp_;
    std::optional<bool> captive_;
};

}  // namespace mesh::netcheck
