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
    bool v6 = false;
    std::string table;
    std::string name;
    bool base = false;
    bool accept = true;
    uint32_t use = 0;  // rules in it and jumps to it
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
    Status dump(uint16_t message, const OnAttrs& on_attrs) {
        begin();
        put(nft_type(message), NLM_F_REQUEST | NLM_F_DUMP, NFPROTO_UNSPEC, 0);
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

Result<std::vector<Chain>> list_chains(Nfnetlink& nl) {
    std::vector<Chain> out;
    TRY(nl.dump(NFT_MSG_GETCHAIN, [&](uint8_t family, ByteSpan attrs) {
        Chain c;
        c.v6 = family == NFPROTO_IPV6;
        each_attr(attrs, [&](int type, ByteSpan value) {
            if (type == NFTA_CHAIN_TABLE) c.table = text(value);
            if (type == NFTA_CHAIN_NAME) c.name = text(value);
            if (type == NFTA_CHAIN_HOOK) c.base = true;
            if (type == NFTA_CHAIN_POLICY && value.size() >= 4) c.accept = load_be32(value.data()) == NF_ACCEPT;
            if (type == NFTA_CHAIN_USE && value.size() >= 4) c.use = load_be32(value.data());
        });
        if (is_iptables_table(family, c.table)) out.push_back(std::move(c));
    }));
    return out;
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
            if (c.v6 == t.v6 && c.table == t.name) t.chains.push_back(c.name);
        std::sort(t.chains.begin(), t.chains.end());
    }
    std::sort(out.begin(), out.end());
    return out;
}

}  // namespace

Result<std::vector<NftTable>> list_iptables_nft_tables() {
    TRY_ASSIGN(Nfnetlink nl, Nfnetlink::open());
    const auto chains = list_chains(nl);
    if (!chains) {
        const int err = chains.error().sys_errno;
        if (err == EINVAL || err == EOPNOTSUPP || err == EPROTONOSUPPORT) return std::vector<NftTable>{};
        return tl::unexpected(chains.error());
    }
    return list_tables(nl, *chains);
}

Status delete_new_empty_tables(const std::vector<NftTable>& before) {
    TRY_ASSIGN(Nfnetlink nl, Nfnetlink::open());
    TRY_ASSIGN(const std::vector<Chain> chains, list_chains(nl));
    TRY_ASSIGN(const std::vector<NftTable> tables, list_tables(nl, chains));
    for (const NftTable& t : tables) {
        const auto old = std::find_if(before.begin(), before.end(),
                                      [&](const NftTable& b) { return b.v6 == t.v6 && b.name == t.name; });
        for (const Chain& c : chains) {
            if (c.v6 != t.v6 || c.table != t.name || !c.base || !c.accept || c.use != 0) continue;
            if (old != before.end() && std::binary_search(old->chains.begin(), old->chains.end(), c.name)) continue;
            TRY(nl.remove(NFT_MSG_DELCHAIN, t.v6, NFTA_CHAIN_TABLE, t.name, NFTA_CHAIN_NAME, c.name));
        }
        if (old == before.end()) TRY(nl.remove(NFT_MSG_DELTABLE, t.v6, NFTA_TABLE_NAME, t.name, 0, {}));
    }
    return {};
}

}  // namespace mesh::platform
