// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A DnsManager on a thread of its own. Buses, programs and disks take their time, and some never answer: all of it happens
/// there, and the caller's loop goes on.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "platform/linux/dns_manager.h"

namespace mesh::platform {

class HostDns {
   public:
    /// What the manager says, as of its last word.
    struct State {
        bool can_split = false;
        ResolverConfig base;
        std::vector<std::string> problems;
        bool operator==(const State& o) const {
            return can_split == o.can_split && base.servers == o.base.servers && base.search == o.base.search && base.ndots == o.base.ndots &&
                   problems == o.problems;
        }
    };
    /// Runs on the manager's thread, whose loop it is given; a null result means that nobody manages anything.
    using Open = std::function<std::unique_ptr<DnsManager>(Loop& own_loop, std::function<void()> on_change)>;

    /// Starts at once to find out who manages the resolver here. `on_change` on `loop`, in a turn of its own: state()
    /// changed, or a set() was carried out. It may destroy this object.
    HostDns(Loop& loop, Open open, std::function<void()> on_change);
    /// Gives the host its own resolver back and waits for that: milliseconds, with a bus or program that hangs some seconds.
    ~HostDns();
    HostDns(const HostDns&) = delete;
    HostDns& operator=(const HostDns&) = delete;

    /// nullptr: not found out yet.
    [[nodiscard]] const State* state() const;
    /// As DnsManager::set(). Of several that wait for the one under way only the last is carried out.
    void set(OsDnsConfig config);
    /// As DnsManager::look(); what it finds comes by on_change.
    void look();
    /// Has the last set() been carried out, well or badly?
    [[nodiscard]] bool settled() const;
    /// Waits for that. False after `limit`.
    bool wait(Duration limit);

   private:
    class Worker;
    std::unique_ptr<Worker> worker_;
};

}  // namespace mesh::platform
