// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Watches links, addresses, routes and rules by netlink and tells, debounced, what kind of change it was.

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "platform/linux/net_state.h"

namespace mesh::platform {

class Loop;

/// Reads interfaces, addresses and default interfaces now.
[[nodiscard]] Result<NetState> read_net_state();

struct Clocks {
    Duration boot;   ///< since the machine started
    Duration awake;  ///< of that, not asleep
    WallTime wall;
};
[[nodiscard]] Clocks read_clocks();
/// How long nothing ran between two readings: a sleep of the machine, or minutes that only the wall clock knows of (a virtual
/// machine that was held; a clock that was set looks the same). Zero if it is not worth acting on.
[[nodiscard]] Duration time_away(const Clocks& before, const Clocks& now);

struct NetEvent {
    NetChange change = NetChange::kNone;
    /// Something that the router owns may be gone (a rule of ours, a route of table 52, an address or the state of the
    /// TUN, firewall rules): call Router::resync().
    bool router_touched = false;
    const NetState* state = nullptr;  ///< valid during the call; never null
};

class NetMonitor {
   public:
    using Callback = std::function<void(const NetEvent&)>;
    /// `on_event` is called on the loop: router_touched and changes come 250 ms after the first sign. The monitor may be
    /// destroyed inside the callback; after destruction it calls no more. If netlink cannot be watched (or overflows), the
    /// state is polled every 10 s.
    [[nodiscard]] static Result<std::unique_ptr<NetMonitor>> create(Loop& loop, std::string own_tun, Callback on_event);
    ~NetMonitor();
    NetMonitor(const NetMonitor&) = delete;
    NetMonitor& operator=(const NetMonitor&) = delete;

    [[nodiscard]] const NetState& state() const;
    /// Also looks at the tables of iptables-legacy, once a second: it announces nothing.
    void watch_legacy_tables();
    /// What the monitor does by itself whenever the wall clock jumps, as it does at a wake-up.
    void look_at_clocks(const Clocks& now);

   private:
    struct State;
    explicit NetMonitor(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace mesh::platform
