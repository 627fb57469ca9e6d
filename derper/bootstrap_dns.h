// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// /bootstrap-dns: addresses of a few names (the control server's above all) for nodes whose own DNS does not work.
/// Names are looked up every 10 minutes; an address that was once known stays until a look-up brings another.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/http1.h"
#include "base/ip.h"
#include "base/random.h"
#include "base/result.h"
#include "platform/loop/loop.h"
#include "platform/net/resolver.h"

namespace mesh::derper {

/// "a.example,b.example": at most 100 names. An error names the one that is none.
[[nodiscard]] Result<std::vector<std::string>> parse_names(std::string_view text);

using NameTable = std::map<std::string, std::vector<Addr>>;
/// The original's answer: one object, name → addresses, without the names in `hidden`; with ?q=name for a hidden name only
/// that one. Empty body when there are no names. The connection ends with it. Pure.
[[nodiscard]] http1::Response answer_bootstrap(const http1::Request& request, const NameTable& open, const NameTable& hidden);

class BootstrapDns {
   public:
    /// `open` are told to everybody, `hidden` to those who ask for them by name. All must outlive this.
    BootstrapDns(platform::Loop& loop, platform::Resolver& resolver, Random& random, const std::vector<std::string>& open,
                 const std::vector<std::string>& hidden);
    [[nodiscard]] http1::Response answer(const http1::Request& request) const { return answer_bootstrap(request, open_, hidden_); }

   private:
    void refresh();
    void look_up(NameTable& table, const std::string& name);

    platform::Resolver& resolver_;
    Random& random_;
    NameTable open_, hidden_;
    std::vector<std::unique_ptr<platform::Resolver::Lookup>> lookups_;  // of the last refresh
    platform::Timer timer_;
};

}  // namespace mesh::derper
