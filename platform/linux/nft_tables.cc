// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/nft_tables.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

#include "base/bytes.h"
#include "platform/fd.h"

#ifndef NLM_F_NONREC
#define NLM_F_NONREC 0x100
#endif

namespace mesh::platform {
namespace {

constexpr size_t kAttrHeader = sizeof(nlattr);
constexpr size_t align4(size_t n) { return (n + 3) & ~size_t{3}; }  // NLMSG_ALIGN, NLA_ALIGN

struct Chain {
    uint8_t family = 0;
    std::string table;
    std::string name;
    bool base = false;
    bool accept = true;
    uint32_t hook = 0;  // of a base chain: NF_INET_FORWARD ...
    uint32_t use = 0;   // rules in it and jumps to it
    [[nodiscard]] bool v6() const { return family == NFPROTO_IPV6; }
};

bool is_iptables_table(uint8_t family, const std::string& name) {
    return (family == NFPROTO_IPV4 || family == NFPROTO_IPV6) && (name == "filter" || name == "nat" || name == "mangle");
}

class Nfnetlink {
   public:
    static Result<Nfnetlink> open() {
        Nfnetlink nl;
        nl.fd_.reset(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
        if (!nl.fd_.valid()) return fail_errno("nfnetlink socket", errno);
        const timeval limit{.tv_sec = 5, .tv_usec = 0};
        ::setsockopt(nl.fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        return nl;
    }

    using OnAttrs = std::function<void(uint8_t family, ByteSpan attrs)>;
    /// `table_attr`: with it, of that table and family only.
    Status dump(uint16_t message, const OnAttrs& on_attrs, uint16_t table_attr = 0, uint8_t family = NFPROTO_UNSPEC,
                const std::string& table = {}) {
        begin();
        put(nft_type(message), NLM_F_REQUEST | NLM_F_DUMP, family, 0);
        if (table_attr != 0) attr(table_attr, table);
        TRY(send());
        for (;;) {
            TRY_ASSIGN(const bool done, receive(on_attrs));
            if (done) return {};
        }
    }

    /// One transaction with one message. EBUSY (in use) and ENOENT (gone) are no errors.
    Status remove(uint16_t message, bool v6, uint16_t table_attr, const std::string& table, uint16_t name_attr,
                  const std::string& name) {
        begin();
        put(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
        put(nft_type(message), NLM_F_REQUEST | NLM_F_ACK | NLM_F_NONREC, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4, 0);
        attr(table_attr, table);
        if (name_attr != 0) attr(name_attr, name);
        put(NFNL_MSG_BATCH_END, NLM_F_REQUEST, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
        TRY(send());
        auto done = receive({});
        if (!done && done.error().sys_errno != EBUSY && done.error().sys_errno != ENOENT)
            return tl::unexpected(done.error());
        return {};
    }

   private:
    static uint16_t nft_type(uint16_t message) { return static_cast<uint16_t>((NFNL_SUBSYS_NFTABLES << 8) | message); }
    void begin() {
        ++seq_;
        out_.clear();
    }
    void put(uint16_t type, unsigned flags, uint8_t family, uint16_t res_id) {
        last_ = out_.size();
        out_.resize(last_ + NLMSG_LENGTH(sizeof(nfgenmsg)));
        const nlmsghdr h{.nlmsg_len = static_cast<uint32_t>(out_.size() - last_),
                         .nlmsg_type = type,
                         .nlmsg_flags = static_cast<uint16_t>(flags),
                         .nlmsg_seq = seq_,
                         .nlmsg_pid = 0};
        const nfgenmsg g{.nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(res_id)};
        std::memcpy(out_.data() + last_, &h, sizeof h);
        std::memcpy(out_.data() + last_ + NLMSG_HDRLEN, &g, sizeof g);
    }
    void attr(uint16_t type, const std::string& text) {
        const size_t at = out_.size();
        const nlattr a{.nla_len = static_cast<uint16_t>(kAttrHeader + text.size() + 1), .nla_type = type};
        out_.resize(at + align4(a.nla_len));
        std::memcpy(out_.data() + at, &a, sizeof a);
        std::memcpy(out_.data() + at + kAttrHeader, text.c_str(), text.size() + 1);
        const auto total = static_cast<uint32_t>(out_.size() - last_);
        std::memcpy(out_.data() + last_, &total, sizeof total);
    }
    Status send() {
        sockaddr_nl kernel{};
        kernel.nl_family = AF_NETLINK;
        if (::sendto(fd_.get(), out_.data(), out_.size(), 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel) < 0)
            return fail_errno("nfnetlink", errno);
        return {};
    }
    /// One datagram; true at the end of the answer.
    Result<bool> receive(const OnAttrs& on_attrs) {
        alignas(nlmsghdr) uint8_t buffer[32768];
        ssize_t n = 0;
        do {
            n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
        } while (n < 0 && errno == EINTR);
        if (n < 0) return fail_errno("nfnetlink", errno);
        ByteSpan rest(buffer, static_cast<size_t>(n));
        while (rest.size() >= sizeof(nlmsghdr)) {
            nlmsghdr h{};
            std::memcpy(&h, rest.data(), sizeof h);
            if (h.nlmsg_len < NLMSG_HDRLEN || h.nlmsg_len > rest.size()) return fail(Code::kInternal, "nfnetlink: short answer");
            const ByteSpan body = rest.subspan(NLMSG_HDRLEN, h.nlmsg_len - NLMSG_HDRLEN);
            if (h.nlmsg_seq == seq_) {
                if (h.nlmsg_type == NLMSG_DONE) return true;
                if (h.nlmsg_type == NLMSG_ERROR) {
                    int err = 0;
                    if (body.size() >= sizeof err) std::memcpy(&err, body.data(), sizeof err);
                    if (err < 0) return fail_errno("nf_tables", -err);
                    return true;
                }
                if (on_attrs && body.size() >= sizeof(nfgenmsg)) on_attrs(body[0], body.subspan(sizeof(nfgenmsg)));
            }
            rest = rest.subspan(std::min(rest.size(), align4(h.nlmsg_len)));
        }
        return false;
    }

    UniqueFd fd_;
    uint32_t seq_ = 0;
    Bytes out_;
    size_t last_ = 0;
};

template <class F>
void each_attr(ByteSpan rest, F&& f) {
    while (rest.size() >= sizeof(nlattr)) {
        nlattr a{};
        std::memcpy(&a, rest.data(), sizeof a);
        if (a.nla_len < kAttrHeader || a.nla_len > rest.size()) return;
        f(a.nla_type & NLA_TYPE_MASK, rest.subspan(kAttrHeader, a.nla_len - kAttrHeader));
        rest = rest.subspan(std::min(rest.size(), align4(a.nla_len)));
    }
}

std::string text(ByteSpan b) {
    std::string s(as_text(b));
    if (const size_t nul = s.find('\0'); nul != std::string::npos) s.resize(nul);
    return s;
}

uint32_t be32(ByteSpan b) { return b.size() >= 4 ? load_be32(b.data()) : 0; }

/// All of the host.
Result<std::vector<Chain>> list_all_chains(Nfnetlink& nl) {
    std::vector<Chain> out;
    TRY(nl.dump(NFT_MSG_GETCHAIN, [&](uint8_t family, ByteSpan attrs) {
        Chain c;
        c.family = family;
        each_attr(attrs, [&](int type, ByteSpan value) {
            if (type == NFTA_CHAIN_TABLE) c.table = text(value);
            if (type == NFTA_CHAIN_NAME) c.name = text(value);
            if (type == NFTA_CHAIN_HOOK) {
                c.base = true;
                each_attr(value, [&](int t, ByteSpan v) {
                    if (t == NFTA_HOOK_HOOKNUM) c.hook = be32(v);
                });
            }
            if (type == NFTA_CHAIN_POLICY) c.accept = be32(value) == NF_ACCEPT;
            if (type == NFTA_CHAIN_USE) c.use = be32(value);
        });
        out.push_back(std::move(c));
    }));
    return out;
}

bool without_nf_tables(const Error& e) {
    return e.sys_errno == EINVAL || e.sys_errno == EOPNOTSUPP || e.sys_errno == EPROTONOSUPPORT;
}

/// Of the six tables; none where the kernel has no nf_tables.
Result<std::vector<Chain>> list_chains(Nfnetlink& nl) {
    auto all = list_all_chains(nl);
    if (!all) {
        if (without_nf_tables(all.error())) return std::vector<Chain>{};
        return tl::unexpected(std::move(all.error()));
    }
    std::erase_if(*all, [](const Chain& c) { return !is_iptables_table(c.family, c.table); });
    return all;
}

Result<std::vector<NftTable>> list_tables(Nfnetlink& nl, const std::vector<Chain>& chains) {
    std::vector<NftTable> out;
    TRY(nl.dump(NFT_MSG_GETTABLE, [&](uint8_t family, ByteSpan attrs) {
        NftTable t;
        t.v6 = family == NFPROTO_IPV6;
        each_attr(attrs, [&](int type, ByteSpan value) {
            if (type == NFTA_TABLE_NAME) t.name = text(value);
        });
        if (is_iptables_table(family, t.name)) out.push_back(std::move(t));
    }));
    for (NftTable& t : out) {
        for (const Chain& c : chains)
            if (c.v6() == t.v6 && c.table == t.name) t.chains.push_back(c.name);
        std::sort(t.chains.begin(), t.chains.end());
    }
    std::sort(out.begin(), out.end());
    return out;
}

// ---- rules ----

void read_verdict(ByteSpan data, NftRule& rule) {
    each_attr(data, [&](int type, ByteSpan value) {
        if (type != NFTA_IMMEDIATE_DATA) return;
        each_attr(value, [&](int t, ByteSpan v) {
            if (t != NFTA_DATA_VERDICT) return;
            each_attr(v, [&](int vt, ByteSpan vv) {
                if (vt == NFTA_VERDICT_CODE) rule.accepts = be32(vv) == NF_ACCEPT;
                if (vt == NFTA_VERDICT_CHAIN) rule.target = text(vv);
            });
        });
    });
}

/// Expressions come in order: what a comparison compares was loaded by the one before.
void read_expressions(ByteSpan list, NftRule& rule) {
    bool in_name = false;
    each_attr(list, [&](int type, ByteSpan expr) {
        if (type != NFTA_LIST_ELEM) return;
        std::string name;
        ByteSpan data;
        each_attr(expr, [&](int t, ByteSpan v) {
            if (t == NFTA_EXPR_NAME) name = text(v);
            if (t == NFTA_EXPR_DATA) data = v;
        });
        if (name == "immediate") read_verdict(data, rule);
        bool equal = true;
        each_attr(data, [&](int t, ByteSpan v) {
            if (name == "cmp" && t == NFTA_CMP_OP) equal = be32(v) == NFT_CMP_EQ;
            if (name == "cmp" && t == NFTA_CMP_DATA && in_name && equal)
                each_attr(v, [&](int dt, ByteSpan dv) {
                    if (dt == NFTA_DATA_VALUE) rule.in = text(dv);
                });
        });
        in_name = false;
        if (name == "meta")
            each_attr(data, [&](int t, ByteSpan v) {
                if (t == NFTA_META_KEY) in_name = be32(v) == NFT_META_IIFNAME;
            });
    });
}

/// The comment, and the marks of the original client, which are no comments.
void read_userdata(ByteSpan data, NftRule& rule) {
    rule.connmark = as_text(data).find("ts-connmark-") != std::string_view::npos;
    while (data.size() >= 2) {
        const size_t len = std::min<size_t>(data[1], data.size() - 2);
        if (data[0] == 0) rule.comment = text(data.subspan(2, len));  // NFTNL_UDATA_RULE_COMMENT
        data = data.subspan(2 + len);
    }
}

bool is_ts_chain(std::string_view name) { return name.starts_with("ts-"); }

}  // namespace

Result<NftHost> read_nft_host() {
    TRY_ASSIGN(Nfnetlink nl, Nfnetlink::open());
    TRY_ASSIGN(const std::vector<Chain> chains, list_chains(nl));
    NftHost out;
    std::vector<std::pair<uint8_t, std::string>> tables;
    for (const Chain& c : chains) {
        out.chains.push_back({.v6 = c.v6(), .table = c.table, .name = c.name, .base = c.base, .rules = {}});
        if (const auto t = std::pair(c.family, c.table); std::find(tables.begin(), tables.end(), t) == tables.end())
            tables.push_back(t);
    }
    for (const auto& [family, table] : tables) {
        const bool v6 = family == NFPROTO_IPV6;
        const auto on_rule = [&, &wanted = table](uint8_t f, ByteSpan attrs) {
            NftRule rule;
            std::string of, chain;
            each_attr(attrs, [&](int type, ByteSpan value) {
                if (type == NFTA_RULE_TABLE) of = text(value);
                if (type == NFTA_RULE_CHAIN) chain = text(value);
                if (type == NFTA_RULE_HANDLE && value.size() >= 8)
                    rule.handle = (uint64_t{load_be32(value.data())} << 32) | load_be32(value.data() + 4);
                if (type == NFTA_RULE_EXPRESSIONS) read_expressions(value, rule);
                if (type == NFTA_RULE_USERDATA) read_userdata(value, rule);
            });
            if ((f == NFPROTO_IPV6) != v6 || of != wanted) return;
            const bool ours = is_our_nft_comment(rule.comment) || rule.connmark;
            if (!ours && !is_ts_chain(chain) && !is_ts_chain(rule.target)) return;
            for (NftChain& c : out.chains)
                if (c.v6 == v6 && c.table == of && c.name == chain) c.rules.push_back(rule);
        };
        TRY(nl.dump(NFT_MSG_GETRULE, on_rule, NFTA_RULE_TABLE, family, table));
    }
    return out;
}

Result<size_t> count_nft_rules() {
    TRY_ASSIGN(Nfnetlink nl, Nfnetlink::open());
    size_t count = 0;
    TRY(nl.dump(NFT_MSG_GETRULE, [&](uint8_t, ByteSpan) { ++count; }));
    return count;
}

Result<std::vector<std::string>> dropping_forward_chains(const std::string& tun_name) {
    TRY_ASSIGN(Nfnetlink nl, Nfnetlink::open());
    TRY_ASSIGN(const std::vector<Chain> chains, list_all_chains(nl));
    std::vector<std::string> out;
    for (const Chain& c : chains) {
        if (!c.base || c.accept || c.hook != NF_INET_FORWARD || is_iptables_table(c.family, c.table)) continue;
        const char* family = c.family == NFPROTO_INET ? "inet" : c.family == NFPROTO_IPV4 ? "ip" : c.family == NFPROTO_IPV6 ? "ip6" : nullptr;
        if (family == nullptr) continue;
        // Its zones live in other chains, but are chosen by interface in this one.
        bool knows_us = false;
        TRY(nl.dump(
            NFT_MSG_GETRULE,
            [&](uint8_t, ByteSpan attrs) {
                std::string of, chain;
                NftRule rule;
                each_attr(attrs, [&](int type, ByteSpan value) {
                    if (type == NFTA_RULE_TABLE) of = text(value);
                    if (type == NFTA_RULE_CHAIN) chain = text(value);
                    if (type == NFTA_RULE_EXPRESSIONS) read_expressions(value, rule);
                });
                knows_us = knows_us || (of == c.table && chain == c.name && rule.in == tun_name);
            },
            NFTA_RULE_TABLE, c.family, c.table));
        if (!knows_us) out.push_back(std::string(family) + " " + c.table + " " + c.name);
    }
    return out;
}

Result<std::vector<NftTable>> list_iptables_nft_tables() {
    TRY_ASSIGN(Nfnetlink nl, Nfnetlink::open());
    TRY_ASSIGN(const std::vector<Chain> chains, list_chains(nl));
    if (chains.empty()) {
        auto tables = list_tables(nl, chains);
        if (!tables && without_nf_tables(tables.error())) return std::vector<NftTable>{};
        return tables;
    }
    return list_tables(nl, chains);
}

Status delete_new_empty_tables(const std::vector<NftTable>& before) {
    TRY_ASSIGN(Nfnetlink nl, Nfnetlink::open());
    TRY_ASSIGN(const std::vector<Chain> chains, list_chains(nl));
    TRY_ASSIGN(const std::vector<NftTable> tables, list_tables(nl, chains));
    for (const NftTable& t : tables) {
        const auto old = std::find_if(before.begin(), before.end(),
                                      [&](const NftTable& b) { return b.v6 == t.v6 && b.name == t.name; });
        for (const Chain& c : chains) {
            if (c.v6() != t.v6 || c.table != t.name || !c.base || !c.accept || c.use != 0) continue;
            if (old != before.end() && std::binary_search(old->chains.begin(), old->chains.end(), c.name)) continue;
            TRY(nl.remove(NFT_MSG_DELCHAIN, t.v6, NFTA_CHAIN_TABLE, t.name, NFTA_CHAIN_NAME, c.name));
        }
        if (old == before.end()) TRY(nl.remove(NFT_MSG_DELTABLE, t.v6, NFTA_TABLE_NAME, t.name, 0, {}));
    }
    return {};
}

}  // namespace mesh::platform
