// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Command line and key file of derper. Flags as Go's flag package reads them: one or two dashes, -name=value or
/// -name value, booleans alone or with =true/=false. Names and defaults are those of the original program; a slip gets a
/// sentence with the correction.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "base/time.h"

namespace mesh::derper {

inline constexpr const char* kDefaultHostname = "derp.tailscale.com";

struct Options {
    std::string listen = ":443";      ///< -a
    int http_port = 80;               ///< -1 = off
    std::string hostname = kDefaultHostname;
    std::string cert_mode;            ///< "" = not given
    std::string cert_dir;             ///< "" = see README
    bool stun = true;
    int stun_port = 3478;
    std::string config_path;          ///< -c
    bool derp = true;

    bool verify_clients = false;
    std::string socket = "/var/run/tailscale/tailscaled.sock";
    std::string verify_url;
    bool verify_url_fail_open = false;
    std::string allow_keys;           ///< file

    double accept_limit = 1000;       ///< connections/s; the original's is infinite
    int64_t accept_burst = 20'000;
    Duration write_timeout = seconds(2);  ///< 0 = none
    Duration keepalive_time = minutes(10);
    Duration user_timeout = seconds(15);
    std::string rate_config;          ///< file
    std::string home;                 ///< "", "blank" or a URL
    std::string trusted_proxies;      ///< prefixes, comma between
    std::string metrics_from = "127.0.0.0/8,::1/128";

    std::string bootstrap_names;           ///< names, comma between
    std::string hidden_bootstrap_names;
    std::string mesh_psk_file;
    std::string mesh_with;

    std::string check;                ///< HOST[:PORT] of a relay to test
    bool dev = false;
    bool help = false;
    bool version = false;
    int threads = 0;                  ///< event loops; 0 = see loops_for()
    int verbose = 0;
    std::vector<std::string> inert;   ///< flags of the original that were given and do nothing here
};

/// Error text as Go prints it, e.g. "flag provided but not defined: -x".
[[nodiscard]] Result<Options> parse_options(const std::vector<std::string>& args);
[[nodiscard]] std::string usage(std::string_view program);

/// How connections are protected.
enum class Security : uint8_t {
    kFiles,       ///< -certmode manual: TLS with the files of the operator (made if the host name is an IP address)
    kSelfSigned,  ///< no domain: TLS with a certificate of our own
    kPlain,       ///< plain HTTP, for -dev or behind a proxy
};
/// The original's rule: TLS on port 443 and with files (-certmode manual), plain HTTP on every other port, so that the same
/// flags give the same protocol. Ours on top: self-signed and off. Where the original would need its ACME client: without a
/// domain self-signed, with one an error that names the way.
[[nodiscard]] Result<Security> choose_security(const Options& o);

/// Event loops where nothing is said: one for each core from three cores on; below that one, since what a second costs in
/// wake-ups and copies is more than half a core is worth.
[[nodiscard]] size_t loops_for(size_t cores);

/// ":port", "ip:port" or "[ip]:port". An unspecified address: all interfaces, both families.
struct ListenAddress {
    Addr addr;  ///< invalid = all
    uint16_t port = 0;
};
[[nodiscard]] Result<ListenAddress> parse_listen(std::string_view text);
/// "10.0.0.0/8,::1": blanks around the commas are fine; "" = none.
[[nodiscard]] Result<std::vector<Prefix>> parse_prefixes(std::string_view text);
/// Go's time.ParseDuration without a sign: "2s", "1m30s", "500ms", "0".
[[nodiscard]] std::optional<Duration> parse_duration(std::string_view text);

/// Starts with http:// or https:// and has no blanks or control characters.
[[nodiscard]] bool http_url(std::string_view text);

/// {"PrivateKey":"privkey:<hex>"}
[[nodiscard]] Result<NodePrivate> parse_key_file(std::string_view text);
[[nodiscard]] std::string key_file_text(const NodePrivate& key);

}  // namespace mesh::derper
