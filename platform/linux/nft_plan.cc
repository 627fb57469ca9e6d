// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/nft_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace mesh::platform {
namespace {

constexpr std::string_view kComment = "ts-rule ";

struct BaseChain {
    const char* table;
    const char* name;
    const char* spec;
};
// As iptables-nft makes them, type by type: it refuses to work with others.
constexpr BaseChain kBaseChains[] = {
    {"filter", "INPUT", "type filter hook input priority 0"},
    {"filter", "FORWARD", "type filter hook forward priority 0"},
    {"nat", "POSTROUTING", "type nat hook postrouting priority 100"},
    {"mangle", "PREROUTING", "type filter hook prerouting priority -150"},
    {"mangle", "OUTPUT", "type route hook output priority -150"},
};

std::string with_comment(std::string_view text) { return fmt::format("{} comment \"{}\"", text, nft_rule_comment(text)); }

class Script {
   public:
    Script(const NftHost& have, const NftRequest& request) : have_(have), r_(request), family_(request.v6 ? "ip6" : "ip") {}

    std::string build() {
        for (const ChainNames& names : r_.managed)
            for (const FirewallHook& hook : kFirewallHooks) chain(hook, names.*hook.chain);
        for (const ConnmarkRule& m : kConnmark) connmark(m);
        return make_ + change_ + remove_;
    }

   private:
    [[nodiscard]] const NftChain* find(std::string_view table, std::string_view name) const {
        return have_.chain(r_.v6, table, name);
    }
    void make_base(std::string_view table, std::string_view name) {
        if (find(table, name) != nullptr) return;
        for (const BaseChain& b : kBaseChains)
            if (b.table == table && b.name == name)
                // Without a policy: one that somebody sets in this moment stays.
                make_ += fmt::format("add table {0} {1}\nadd chain {0} {1} {2} {{ {3}; }}\n", family_, table, name, b.spec);
    }
    void delete_rule(std::string_view table, std::string_view name, uint64_t handle) {
        change_ += fmt::format("delete rule {} {} {} handle {}\n", family_, table, name, handle);
    }

    void chain(const FirewallHook& hook, const std::string& name) {
        const auto& wanted = std::string_view(hook.table) == "filter" ? r_.wanted.filter : r_.wanted.nat;
        const auto it = r_.wanted.chains ? wanted.find(name) : wanted.end();
        const NftChain* have = find(hook.table, name);
        if (it == wanted.end()) {
            if (have != nullptr) drop(hook.table, name);
            return;
        }
        if (!same_rules(have, it->second)) {
            make_ += fmt::format("add table {0} {1}\nadd chain {0} {1} {2}\n", family_, hook.table, name);
            change_ += fmt::format("flush chain {} {} {}\n", family_, hook.table, name);
            for (const std::string& rule : it->second)
                change_ += fmt::format("add rule {} {} {} {}\n", family_, hook.table, name, with_comment(rule));
        }
        jump(hook, name);
    }

    static bool same_rules(const NftChain* have, const std::vector<std::string>& want) {
        return have != nullptr && std::equal(have->rules.begin(), have->rules.end(), want.begin(), want.end(),
                                             [](const NftRule& h, const std::string& w) { return h.comment == nft_rule_comment(w); });
    }

    void jump(const FirewallHook& hook, const std::string& name) {
        const std::string text = "counter jump " + name;
        const NftChain* parent = find(hook.table, hook.parent);
        std::vector<uint64_t> ours;
        if (parent != nullptr)
            for (const NftRule& r : parent->rules)
                if (r.comment == nft_rule_comment(text)) ours.push_back(r.handle);
        if (!r_.install_hooks && !r_.remove_hooks) return;
        if (r_.install_hooks && ours.size() == 1) return;
        for (const uint64_t handle : ours) delete_rule(hook.table, hook.parent, handle);
        if (!r_.install_hooks) return;
        make_base(hook.table, hook.parent);
        change_ += fmt::format("insert rule {} {} {} {}\n", family_, hook.table, hook.parent, with_comment(text));
    }

    /// A chain can only go when nothing refers to it, an administrator's jumps included.
    void drop(std::string_view table, const std::string& name) {
        for (const NftChain& c : have_.chains) {
            if (c.v6 != r_.v6 || c.table != table) continue;
            for (const NftRule& rule : c.rules)
                if (rule.target == name) delete_rule(table, c.name, rule.handle);
        }
        remove_ += fmt::format("flush chain {0} {1} {2}\ndelete chain {0} {1} {2}\n", family_, table, name);
    }

    void connmark(const ConnmarkRule& m) {
        const std::string comment = nft_rule_comment(m.nft);
        const NftChain* parent = find("mangle", m.chain);
        std::vector<uint64_t> ours;
        if (parent != nullptr)
            for (const NftRule& r : parent->rules)
                if (r.comment == comment || r.connmark) ours.push_back(r.handle);
        const bool good = ours.size() == 1;
        if (good == r_.connmark && (good || ours.empty())) return;
        for (const uint64_t handle : ours) delete_rule("mangle", m.chain, handle);
        if (!r_.connmark) return;
        make_base("mangle", m.chain);
        change_ += fmt::format("insert rule {} mangle {} {}\n", family_, m.chain, with_comment(m.nft));
    }

    const NftHost& have_;
    const NftRequest& r_;
    std::string family_;
    std::string make_, change_, remove_;
};

}  // namespace

const NftChain* NftHost::chain(bool v6, std::string_view table, std::string_view name) const {
    for (const NftChain& c : chains)
        if (c.v6 == v6 && c.table == table && c.name == name) return &c;
    return nullptr;
}

NftWanted nft_wanted(const FirewallRules& rules, const ChainNames& names) {
    const auto texts = [](const std::vector<FirewallRule>& list) {
        std::vector<std::string> out;
        for (const FirewallRule& r : list) out.push_back(r.nft());
        return out;
    };
    NftWanted out;
    out.chains = true;
    out.filter[names.input] = texts(rules.input);
    out.filter[names.forward] = texts(rules.forward);
    out.nat[names.postrouting] = texts(rules.postrouting);
    return out;
}

std::string nft_script(const NftHost& have, const NftRequest& request) { return Script(have, request).build(); }

std::string nft_rule_comment(std::string_view text) {
    uint64_t h = 14695981039346656037ULL;  // FNV-1a: tells texts apart, not friend from foe
    for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 1099511628211ULL;
    return fmt::format("{}{:016x}", kComment, h);
}

bool is_our_nft_comment(std::string_view comment) { return comment.starts_with(kComment) && comment.size() == kComment.size() + 16; }

bool has_connmark_rules(const NftHost& host) {
    return std::all_of(std::begin(kConnmark), std::end(kConnmark), [&](const ConnmarkRule& m) {
        const NftChain* c = host.chain(false, "mangle", m.chain);
        return c != nullptr && std::any_of(c->rules.begin(), c->rules.end(), [&](const NftRule& r) {
                   return r.connmark || r.comment == nft_rule_comment(m.nft);
               });
    });
}

}  // namespace mesh::platform
