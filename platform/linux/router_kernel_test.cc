// SPDX-License-Identifier: BSD-3-Clause
// The router against the real kernel: what it installs equals the samples, and nothing of it stays.
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "platform/linux/kernel_fixture.h"
#include "platform/linux/router.h"
#include "platform/linux/router_samples.h"
#include "platform/linux/sysctl.h"
#include "platform/tun/tun_device.h"

namespace mesh::platform {
namespace {

/// iptables-save without comments, counters and empty tables: what can be compared.
std::string saved(const char* program) {
    std::string text = output({program});
    std::string out;
    std::string table;
    bool has_content = false;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string line = text.substr(at, end - at);
        at = end + 1;
        if (line.starts_with('*')) {
            table.clear();
            has_content = false;
        }
        const bool built_in = line.starts_with(':') && line.find(" - [") == std::string::npos;
        if (!line.starts_with('#') && !built_in && !line.empty()) table += line + "\n";
        has_content = has_content || line.starts_with("-A") || (line.starts_with(':') && !built_in);
        if (line == "COMMIT" && has_content) out += table;
    }
    return out;
}
/// Tables in one order.
std::string sorted_tables(const std::string& text) {
    std::vector<std::string> tables;
    for (size_t at = 0; at < text.size();) {
        const size_t end = text.find("COMMIT\n", at);
        if (end == std::string::npos) break;
        tables.push_back(text.substr(at, end + 7 - at));
        at = end + 7;
    }
    std::sort(tables.begin(), tables.end());
    std::string out;
    for (const std::string& t : tables) out += t;
    return out;
}

/// Everything that must be the same before and after.
std::string fingerprint() {
    std::string out;
    for (const char* family : {"-4", "-6"}) {
        out += output({"ip", family, "rule"});
        out += output({"ip", family, "route", "show", "table", "all"});
    }
    out += output({"ip", "-o", "addr"});
    out += output({"ip", "-o", "link"});
    out += saved("iptables-save") + saved("ip6tables-save");
    out += output({"nft", "list", "ruleset"});
    out += "src_valid_mark " + read_sysctl("net/ipv4/conf/all/src_valid_mark").value_or("?");
    return out;
}

class RouterKernel : public Kernel {
   protected:
    void SetUp() override {
        Kernel::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        before_ = fingerprint();
        open_tun("tailscale0");
    }
    void open_tun(const std::string& name) {
        auto tun = TunDevice::open(name);
        ASSERT_TRUE(tun) << tun.error().message();
        tun_ = std::make_unique<TunDevice>(std::move(*tun));
    }
    void start(const char* firewall = "") {
        auto router = Router::start(tun_->name(), firewall);
        ASSERT_TRUE(router) << router.error().message();
        router_ = std::move(*router);
    }
    void expect_firewall(const std::string& v4, const std::string& v6) {
        EXPECT_EQ(sorted_tables(saved("iptables-save")), sorted_tables(v4));
        EXPECT_EQ(sorted_tables(saved("ip6tables-save")), sorted_tables(v6));
    }
    std::string before_;
    std::unique_ptr<TunDevice> tun_;
    std::unique_ptr<Router> router_;
};

TEST_F(RouterKernel, NeedsLoginHasRulesAndAnUpLinkButNoFirewall) {
    start();
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);
    EXPECT_TRUE(Netlink::open()->link("tailscale0")->up);
    expect_firewall("", "");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, ClientEqualsTheOriginalAndLeavesNoTrace) {
    start();
    ASSERT_TRUE(router_->set(client()));
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    EXPECT_EQ(output({"ip", "-6", "route", "show", "table", "52"}),
              "fd7a:115c:a1e0::53 dev tailscale0 metric 1024 pref medium\n"
              "fd7a:115c:a1e0::/48 dev tailscale0 metric 1024 pref medium\n");
    const std::string addrs = output({"ip", "addr", "show", "dev", "tailscale0"});
    EXPECT_NE(addrs.find("inet 100.64.0.1/32 scope global tailscale0"), std::string::npos) << addrs;
    EXPECT_NE(addrs.find("inet6 fd7a:115c:a1e0::1/128 scope global"), std::string::npos) << addrs;
    expect_firewall(samples::client_v4(), samples::client_v6());
    EXPECT_EQ(read_sysctl("net/ipv4/conf/all/src_valid_mark"), "1");
    EXPECT_TRUE(router_->problems().empty());

    EXPECT_EQ(router_->resync().value(), 0U);
    EXPECT_TRUE(router_->set(client()));
    EXPECT_EQ(router_->resync().value(), 0U);

    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, AcceptedRoutesEqualTheSampleAndGoAgain) {
    start();
    RouterConfig c = client();
    c.accepted_routes = {p("192.168.55.0/24"), p("fd55::/64")};
    ASSERT_TRUE(router_->set(c));
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n192.168.55.0/24 dev tailscale0 \n");
    EXPECT_EQ(output({"ip", "-6", "route", "show", "table", "52"}),
              "fd55::/64 dev tailscale0 metric 1024 pref medium\n"
              "fd7a:115c:a1e0::53 dev tailscale0 metric 1024 pref medium\n"
              "fd7a:115c:a1e0::/48 dev tailscale0 metric 1024 pref medium\n");
    ASSERT_TRUE(router_->set(client()));
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
}

TEST_F(RouterKernel, ThrowRoutesAndDefaultRoutes) {
    start();
    RouterConfig c = client();
    c.accepted_routes = {p("0.0.0.0/0"), p("::/0")};
    c.throw_routes = {p("127.0.0.0/8"), p("fe80::/64")};
    ASSERT_TRUE(router_->set(c));
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "default dev tailscale0 \n100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \nthrow 127.0.0.0/8 \n");
    EXPECT_EQ(router_->resync().value(), 0U);
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, NetfilterModesAndKnobsEqualTheSamples) {
    start();
    RouterConfig c = client();
    c.snat_subnet_routes = false;
    c.stateful_filtering = true;
    ASSERT_TRUE(router_->set(c));
    // A chain without rules still has its jump.
    expect_firewall(samples::no_snat_stateful(samples::client_v4()), samples::no_snat_stateful(samples::client_v6()));
    c = client();
    c.netfilter = NetfilterMode::kNoDivert;
    ASSERT_TRUE(router_->set(c));
    expect_firewall(samples::no_divert(samples::client_v4()), samples::no_divert(samples::client_v6()));
    EXPECT_EQ(router_->resync().value(), 0U);
    c.netfilter = NetfilterMode::kOff;
    ASSERT_TRUE(router_->set(c));
    expect_firewall("", "");
    c.netfilter = NetfilterMode::kOn;
    ASSERT_TRUE(router_->set(c));
    expect_firewall(samples::client_v4(), samples::client_v6());
    // down
    RouterConfig down;
    down.netfilter = NetfilterMode::kOff;
    ASSERT_TRUE(router_->set(down));
    expect_firewall("", "");
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}), "");
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-4", "addr", "show", "dev", "tailscale0"}), "");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, APortChangeReplacesOnlyItsRule) {
    start();
    RouterConfig c = client();
    ASSERT_TRUE(router_->set(c));
    c.port_v4 = 1234;
    ASSERT_TRUE(router_->set(c));
    expect_firewall(samples::replace_all(samples::client_v4(), "--dport 41641", "--dport 1234"), samples::client_v6());
}

TEST_F(RouterKernel, OtherPeoplesRulesSurviveOurWholeLife) {
    output({"iptables-restore", "--noflush"},
           "*filter\n:MINE - [0:0]\n-A INPUT -p tcp --dport 22 -j MINE\n-A MINE -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n"
           "*nat\n-A POSTROUTING -o eth9 -j MASQUERADE\nCOMMIT\n");
    output({"ip", "rule", "add", "pref", "5220", "fwmark", "7", "lookup", "99"});
    tun_.reset();
    const std::string with_rules = fingerprint();
    open_tun("tailscale0");
    start();
    ASSERT_TRUE(router_->set(client()));
    const std::string v4 = saved("iptables-save");
    // Ours come first: a rule that drops everything does not beat us.
    EXPECT_LT(v4.find("-A FORWARD -j ts-forward"), v4.find("-A FORWARD -j DROP"));
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), with_rules);
}

TEST_F(RouterKernel, ResyncRepairsWhatOthersBroke) {
    start();
    ASSERT_TRUE(router_->set(client()));
    output({"ip", "rule", "del", "pref", "5270"});
    output({"ip", "-6", "rule", "del", "pref", "5210"});
    output({"ip", "link", "set", "tailscale0", "down"});
    output({"ip", "link", "set", "tailscale0", "up"});
    output({"iptables", "-F", "INPUT"});
    output({"iptables", "-F", "ts-forward"});
    output({"ip6tables", "-t", "mangle", "-F"});
    EXPECT_GT(router_->resync().value(), 0U);
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "-6", "rule"}), samples::kRulesV6);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    const std::string addrs = output({"ip", "addr", "show", "dev", "tailscale0"});
    EXPECT_NE(addrs.find("inet6 fd7a:115c:a1e0::1/128"), std::string::npos) << addrs;
    expect_firewall(samples::client_v4(), samples::client_v6());
    EXPECT_EQ(router_->resync().value(), 0U);
}

TEST_F(RouterKernel, CleanupAfterACrashLeavesNoTrace) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        // "Crashes": no destructor runs.
        auto router = Router::start(tun_->name());
        ::_exit(router && (*router)->set(client()) ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    tun_.reset();
    // An older run may have left the same again.
    output({"ip", "rule", "add", "pref", "5210", "fwmark", "0x20000", "lookup", "main"});
    EXPECT_NE(saved("iptables-save"), "");
    EXPECT_TRUE(cleanup("tailscale0"));
    // As the original does, a crash leaves this on; nobody knows any more what it was.
    EXPECT_EQ(read_sysctl("net/ipv4/conf/all/src_valid_mark"), "1");
    EXPECT_TRUE(write_sysctl("net/ipv4/conf/all/src_valid_mark", "0"));
    EXPECT_EQ(fingerprint(), before_);
    EXPECT_TRUE(cleanup("tailscale0"));
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, CleanupRemovesWhatTheOriginalsNftablesModeLeft) {
    // As that mode really loads it.
    EXPECT_EQ(output({"nft", "-f", "-"},
                     "table ip filter {\n"
                     " chain INPUT { type filter hook input priority 0; policy accept; counter jump ts-input; }\n"
                     " chain ts-input { iifname \"tailscale0*\" counter accept; }\n"
                     "}\n"
                     "table ip6 mangle {\n"
                     " chain PREROUTING { type filter hook prerouting priority -150; policy accept;\n"
                     "  ct state established,related ct mark & 0x00ff0000 != 0 meta mark set ct mark & 0x00ff0000 "
                     "comment \"ts-connmark-restore\"; }\n"
                     "}\n"),
              "");
    tun_.reset();
    EXPECT_TRUE(cleanup("tailscale0"));
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, AStartAfterACrashIsLikeAFirstStart) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        auto router = Router::start(tun_->name());
        ::_exit(router && (*router)->set(client()) ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    ASSERT_TRUE(write_sysctl("net/ipv4/conf/all/src_valid_mark", "0"));
    tun_.reset();
    open_tun("tailscale0");
    start();
    ASSERT_TRUE(router_->set(client()));
    expect_firewall(samples::client_v4(), samples::client_v6());
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

// ---- nftables ----

TEST_F(RouterKernel, NftablesIsMendedAndLeavesNoTrace) {
    start("nftables");
    EXPECT_EQ(router_->firewall_mode(), "nft-forced");
    ASSERT_TRUE(router_->set(client()));
    EXPECT_TRUE(router_->problems().empty());
    EXPECT_EQ(router_->resync().value(), 0U);
    const std::string good = output({"nft", "list", "ruleset"});
    EXPECT_NE(good.find("iifname \"tailscale0\" counter"), std::string::npos) << good;
    for (const char* harm : {"flush ruleset", "flush table ip6 filter", "flush chain ip filter ts-forward", "delete table ip nat",
                             "flush chain ip mangle OUTPUT", "insert rule ip filter ts-input drop"}) {
        EXPECT_EQ(output({"nft", "-f", "-"}, std::string(harm) + "\n"), "") << harm;
        EXPECT_GT(router_->resync().value(), 0U) << harm;
        EXPECT_EQ(router_->resync().value(), 0U) << harm;
    }
    RouterConfig c = client();
    c.netfilter = NetfilterMode::kOff;
    ASSERT_TRUE(router_->set(c));
    EXPECT_EQ(output({"nft", "list", "ruleset"}).find("ts-"), std::string::npos);
    ASSERT_TRUE(router_->set(client()));
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, NftablesBesideAnAdministratorsRulesInTheSameTables) {
    const char* theirs =
        "table ip filter {\n chain INPUT { type filter hook input priority 0; policy drop; tcp dport 22 accept; }\n"
        " chain mine { tcp dport 80 accept; }\n}\n"
        "table inet other { chain forward { type filter hook forward priority 0; policy drop; }; }\n";
    ASSERT_EQ(output({"nft", "-f", "-"}, theirs), "");
    tun_.reset();
    const std::string with_rules = fingerprint();
    open_tun("tailscale0");
    start("nftables");
    RouterConfig c = client();
    c.forwards = true;
    ASSERT_TRUE(router_->set(c));
    const std::string input = output({"nft", "list", "chain", "ip", "filter", "INPUT"});
    EXPECT_NE(input.find("policy drop"), std::string::npos) << "a policy is not ours to change";
    EXPECT_LT(input.find("jump ts-input"), input.find("tcp dport 22")) << input;
    ASSERT_EQ(router_->problems().size(), 1U);
    EXPECT_NE(router_->problems()[0].find("inet other forward"), std::string::npos) << router_->problems()[0];
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), with_rules);
}

TEST_F(RouterKernel, CleanupAfterACrashWithNftablesLeavesNoTrace) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        auto router = Router::start(tun_->name(), "nftables");
        ::_exit(router && (*router)->set(client()) ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    tun_.reset();
    EXPECT_NE(output({"nft", "list", "ruleset"}).find("ts-input"), std::string::npos);
    EXPECT_TRUE(cleanup("tailscale0"));
    EXPECT_TRUE(write_sysctl("net/ipv4/conf/all/src_valid_mark", "0"));
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, WhatIptablesCannotReadIsMendedByNft) {
    // Expressions that iptables has no words for, in its own table.
    ASSERT_EQ(output({"nft", "-f", "-"},
                     "table ip filter { chain FORWARD { type filter hook forward priority 0; ct state invalid counter drop; }; }\n"),
              "");
    tun_.reset();
    const std::string with_rules = fingerprint();
    open_tun("tailscale0");
    start();
    EXPECT_EQ(router_->firewall_mode(), "nft-inuse");
    ASSERT_TRUE(router_->set(client()));
    EXPECT_EQ(router_->resync().value(), 0U);
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), with_rules);
}

class Beside : public RouterKernel {
   protected:
    void SetUp() override {
        RouterKernel::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        other_tun_ = std::move(tun_);
        auto other = Router::start("tailscale0");
        ASSERT_TRUE(other);
        other_ = std::move(*other);
        ASSERT_TRUE(other_->set(client()));
        ours_.local_addrs = {p("10.1.0.1/32")};
        ours_.peer_routes = {p("10.1.0.2/32")};
        ours_.port_v4 = ours_.port_v6 = 41642;
    }
    std::unique_ptr<TunDevice> other_tun_;
    std::unique_ptr<Router> other_;
    RouterConfig ours_;
};

TEST_F(Beside, OurWholeLifeLeavesTheOtherClientUntouched) {
    const std::string with_other = fingerprint();
    open_tun("tailmesh0");
    start();
    ASSERT_TRUE(router_->set(ours_));
    EXPECT_EQ(router_->resync().value(), 0U);
    const std::string v4 = saved("iptables-save");
    EXPECT_NE(v4.find("-A ts-input -i tailscale0 -j ACCEPT"), std::string::npos) << v4;
    EXPECT_NE(v4.find("-A ts-input-tailmesh0 -i tailmesh0 -j ACCEPT"), std::string::npos) << v4;
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "10.1.0.2 dev tailmesh0 \n100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_EQ(fingerprint(), with_other);
    EXPECT_TRUE(cleanup("tailmesh0"));
    EXPECT_EQ(fingerprint(), with_other);
}

TEST_F(Beside, WhenTheOtherLeavesFirstWeStillGoWithoutATrace) {
    open_tun("tailmesh0");
    start();
    ASSERT_TRUE(router_->set(ours_));
    EXPECT_TRUE(other_->stop());
    other_tun_.reset();
    EXPECT_TRUE(router_->resync());
    EXPECT_EQ(output({"ip", "-4", "rule"}), samples::kRulesV4);
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}), "10.1.0.2 dev tailmesh0 \n100.100.100.100 dev tailmesh0 \n");
    EXPECT_TRUE(router_->stop());
    tun_.reset();
    EXPECT_TRUE(write_sysctl("net/ipv4/conf/all/src_valid_mark", "0"));
    EXPECT_EQ(fingerprint(), before_);
}

TEST_F(RouterKernel, WithoutIptablesTheRestWorksAndItSaysSo) {
    start();
    // Hidden in this process's own mount namespace.
    const std::string sbin = find_program("iptables-save");
    ASSERT_EQ(::mount("/dev/null", sbin.c_str(), nullptr, MS_BIND, nullptr), 0) << std::strerror(errno);
    const std::string sbin6 = find_program("ip6tables-save");
    const bool second = ::mount("/dev/null", sbin6.c_str(), nullptr, MS_BIND, nullptr) == 0;
    static_cast<void>(router_->set(client()));
    ::umount(sbin.c_str());
    if (second) ::umount(sbin6.c_str());
    EXPECT_EQ(output({"ip", "route", "show", "table", "52"}),
              "100.64.0.2 dev tailscale0 \n100.100.100.100 dev tailscale0 \n");
    EXPECT_FALSE(router_->problems().empty());
}

}  // namespace
}  // namespace mesh::platform
