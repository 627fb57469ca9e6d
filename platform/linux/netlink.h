// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// rtnetlink (RFC 3549, linux/rtnetlink.h) with plain blocking requests on one socket. Dumps are filtered by the kernel
/// (NETLINK_GET_STRICT_CHK): a host that carries a full BGP table is not read out to find our five routes. That filter,
/// and having no cache, is why this speaks the protocol itself instead of going through libnl's route cache.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "platform/fd.h"
#include "platform/linux/route_types.h"

namespace mesh::platform {

class Netlink {
   public:
    [[nodiscard]] static Result<Netlink> open();

    [[nodiscard]] Result<std::vector<LinkInfo>> links();
    /// kNotFound if there is none.
    [[nodiscard]] Result<LinkInfo> link(const std::string& name);
    [[nodiscard]] Status set_link_up(int index, bool up);

    /// All addresses, or those of one interface (index > 0).
    [[nodiscard]] Result<std::vector<LinkAddr>> addresses(int index = 0);
    /// Scope global; an address that exists already is no error.
    [[nodiscard]] Status add_address(int index, const Prefix& address);
    /// One that is already gone is no error.
    [[nodiscard]] Status delete_address(int index, const Prefix& address);

    /// Routes of one table, with `oif` those through that interface; a table that does not exist is empty.
    [[nodiscard]] Result<std::vector<IpRoute>> routes(Addr::Family family, uint32_t table, int oif = 0);
    /// Code kSystem with EEXIST if there is a route of the same destination and metric: nothing is replaced.
    [[nodiscard]] Status add_route(const IpRoute& route);
    /// One that is already gone is no error.
    [[nodiscard]] Status delete_route(const IpRoute& route);
    /// The interface by which `mark`-ed traffic to `dst` would leave: one look-up, whatever the size of the tables.
    /// 0: none.
    [[nodiscard]] Result<int> route_interface(const Addr& dst, uint32_t mark);
    /// The entry of the routing tables that this traffic follows, with its prefix and gateway. oif 0: none.
    [[nodiscard]] Result<IpRoute> route_entry(const Addr& dst, uint32_t mark);

    [[nodiscard]] Result<std::vector<IpRule>> rules(Addr::Family family);
    /// A rule that exists already is no error.
    [[nodiscard]] Status add_rule(const IpRule& rule);
    /// Deletes one rule that equals; none is no error.
    [[nodiscard]] Status delete_rule(const IpRule& rule);

   private:
    class Request;
    using OnMessage = std::function<void(uint16_t type, const uint8_t* body, size_t len)>;
    Netlink() = default;
    /// Sends and reads to the acknowledgement or the end of the dump; the kernel's errno as an error.
    [[nodiscard]] Status transact(Request& request, const std::string& what, const OnMessage& on_message = {});

    [[nodiscard]] Result<IpRoute> look_up(const Addr& dst, uint32_t mark, unsigned flags);

    UniqueFd fd_;
    uint32_t seq_ = 0;
    bool strict_ = false;
};

}  // namespace mesh::platform
