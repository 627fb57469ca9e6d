// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// What the original client (1.102, iptables mode) leaves in iptables-save, without comments and counters: the reference
/// for the router's tests.

#include <string>
#include <string_view>

namespace mesh::platform::samples {

inline std::string replace_all(std::string text, std::string_view from, std::string_view to) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
        text.replace(at, from.size(), to);
    return text;
}

inline constexpr const char* kMangle =
    "*mangle\n"
    "-A PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -m connmark ! --mark 0x0/0xff0000 "
    "-j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff0000\n"
    // The original: "-m conntrack --ctstate NEW -m mark ! --mark 0x0/0xff0000"; ours also saves what older flows lack.
    "-A OUTPUT -m mark ! --mark 0x0/0xff0000 -m connmark --mark 0x0/0xff0000 "
    "-j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000\n"
    "COMMIT\n";

/// The same as the original writes it.
inline std::string original_mangle() {
    return replace_all(kMangle, "-m mark ! --mark 0x0/0xff0000 -m connmark --mark 0x0/0xff0000 ",
                       "-m conntrack --ctstate NEW -m mark ! --mark 0x0/0xff0000 ");
}

/// Client with defaults: 100.64.0.1, port 41641.
inline constexpr const char* kClientFilterV4 =
    "*filter\n"
    ":ts-forward - [0:0]\n"
    ":ts-input - [0:0]\n"
    "-A INPUT -j ts-input\n"
    "-A FORWARD -j ts-forward\n"
    "-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000\n"
    "-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT\n"
    "-A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP\n"
    "-A ts-forward -o tailscale0 -j ACCEPT\n"
    "-A ts-input -s 100.64.0.1/32 -i lo -j ACCEPT\n"
    "-A ts-input -i tailscale0 -j ACCEPT\n"
    "-A ts-input -p udp -m udp --dport 41641 -j ACCEPT\n"
    "-A ts-input -s 100.115.92.0/23 ! -i tailscale0 -j RETURN\n"
    "-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP\n"
    "COMMIT\n";
inline constexpr const char* kClientFilterV6 =
    "*filter\n"
    ":ts-forward - [0:0]\n"
    ":ts-input - [0:0]\n"
    "-A INPUT -j ts-input\n"
    "-A FORWARD -j ts-forward\n"
    "-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000\n"
    "-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT\n"
    "-A ts-forward -o tailscale0 -j ACCEPT\n"
    "-A ts-input -s fd7a:115c:a1e0::1/128 -i lo -j ACCEPT\n"
    "-A ts-input -i tailscale0 -j ACCEPT\n"
    "-A ts-input -p udp -m udp --dport 41641 -j ACCEPT\n"
    "COMMIT\n";
inline constexpr const char* kClientNat =
    "*nat\n"
    ":ts-postrouting - [0:0]\n"
    "-A POSTROUTING -j ts-postrouting\n"
    "-A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE\n"
    "COMMIT\n";

inline std::string client_v4() { return std::string(kMangle) + kClientFilterV4 + kClientNat; }
inline std::string client_v6() { return std::string(kMangle) + kClientFilterV6 + kClientNat; }

/// snat-subnet-routes=false, stateful-filtering=true.
inline std::string no_snat_stateful(std::string text) {
    text = replace_all(std::move(text), "-A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE\n", "");
    return replace_all(std::move(text), "-A ts-forward -o tailscale0 -j ACCEPT\n",
                       "-A ts-forward -o tailscale0 -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP\n"
                       "-A ts-forward -o tailscale0 -j ACCEPT\n");
}
/// netfilter-mode=nodivert: chains, but no jumps and no connmark rules.
inline std::string no_divert(std::string text) {
    for (const char* hook : {"-A INPUT -j ts-input\n", "-A FORWARD -j ts-forward\n", "-A POSTROUTING -j ts-postrouting\n"})
        text = replace_all(std::move(text), hook, "");
    return replace_all(std::move(text), kMangle, "");
}

inline constexpr const char* kRulesV4 =
    "0:\tfrom all lookup local\n"
    "5210:\tfrom all fwmark 0x80000/0xff0000 lookup main\n"
    "5230:\tfrom all fwmark 0x80000/0xff0000 lookup default\n"
    "5250:\tfrom all fwmark 0x80000/0xff0000 unreachable\n"
    "5270:\tfrom all lookup 52\n"
    "32766:\tfrom all lookup main\n"
    "32767:\tfrom all lookup default\n";
inline constexpr const char* kRulesV6 =
    "0:\tfrom all lookup local\n"
    "5210:\tfrom all fwmark 0x80000/0xff0000 lookup main\n"
    "5230:\tfrom all fwmark 0x80000/0xff0000 lookup default\n"
    "5250:\tfrom all fwmark 0x80000/0xff0000 unreachable\n"
    "5270:\tfrom all lookup 52\n"
    "32766:\tfrom all lookup main\n";

}  // namespace mesh::platform::samples
