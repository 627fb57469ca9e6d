// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Looks at a relay as its clients do, from outside in: name, TCP, TLS, certificate, upgrade, ServerKey, and if wished login, ping
/// and STUN. Says each step in plain words, with what to do when it failed. `derper -check` and the daemon's check of the relays
/// of its map (tailscale netcheck) are this one object.

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/random.h"
#include "magicsock/derp/client_session.h"
#include "magicsock/derp/derp_map.h"
#include "magicsock/stun/stun.h"
#include "platform/net/dialer.h"
#include "platform/net/udp_socket.h"
#include "platform/tls/certificate.h"

namespace mesh::relaycheck {

struct Target {
    std::string host;             ///< DNS name or IP literal
    uint16_t port = 443;
    std::vector<Addr> addresses;  ///< none: the name is looked up
    uint16_t stun_port = 0;       ///< 0: STUN is not looked at
    /// How clients judge the certificate. kSystem: a self-signed one, which clients accept when its pin is in the map, is named.
    platform::TlsClientOptions tls;
    /// A self-signed certificate is only noted: the map may pin it.
    bool pin_is_fine = false;
    /// Clients of this relay also try without TLS.
    bool plain_is_fine = false;
    /// A fresh key logs in and pings; false: the ServerKey is enough.
    bool login = true;
    platform::Protect protect = platform::Protect::kNo;
    Duration patience = seconds(10);      ///< for the connection with TLS, and again for the rest
    Duration stun_patience = seconds(3);  ///< beside it
};

enum class Kind : uint8_t { kGood, kNote, kBad };
struct Step {
    Kind kind = Kind::kGood;
    std::string text;  ///< "certificate: its certificate is for …"; printable
};

class RelayCheck final : private platform::ByteStream::Listener, private platform::UdpSocket::Listener {
   public:
    using OnStep = std::function<void(const Step&)>;
    using OnDone = std::function<void()>;
    /// All must outlive the check. `done` is called once, in a turn of its own, and may destroy the check.
    RelayCheck(platform::Dialer& dialer, Random& random, Target target, OnStep step, OnDone done);

    [[nodiscard]] const Target& target() const { return target_; }
    /// Nothing was bad (so far).
    [[nodiscard]] bool good() const { return good_; }
    /// From the request to the relay's first answer behind TLS: what the original calls the HTTPS latency.
    [[nodiscard]] std::optional<Duration> latency() const { return latency_; }
    [[nodiscard]] Endpoint reached() const { return reached_; }  ///< invalid: nobody answered

   private:
    void say(Kind kind, std::string text);
    void relay_failed(std::string text);
    void relay_done();
    void resolved(Result<std::vector<Addr>> found);
    void dial(bool tls);
    void dialled(bool tls, Result<platform::ByteStream> s);
    void judge_certificate();
    void read_events();
    void pump();
    void begin();
    void start_stun();
    void ask_stun();
    void finish_if_over();
    void finish();
    void late();
    void on_bytes(MutByteSpan bytes) override;
    void on_closed(const Status& why) override;
    void on_datagrams(std::span<UdpReceive> batch) override;
    void on_send_error(const Endpoint&, int) override {}

    platform::Loop& loop_;
    platform::Dialer& dialer_;
    Random& random_;
    Target target_;
    OnStep step_;
    OnDone done_;
    bool good_ = true;
    bool finished_ = false;
    std::optional<Duration> latency_;
    Endpoint reached_;
    Time asked_at_;
    std::unique_ptr<platform::Resolver::Lookup> lookup_;
    std::unique_ptr<platform::Dial> dial_;
    std::vector<Addr> addrs_;
    std::string tls_error_;
    std::optional<platform::DerpMeta> meta_;
    std::unique_ptr<derp::ClientSession> session_;
    platform::ByteStream stream_;
    std::unique_ptr<platform::UdpSocket> stun_v4_, stun_v6_;
    std::vector<Endpoint> asked_;
    std::set<Endpoint> strays_;     ///< who answered without having been asked
    stun::TxId tx_{};
    Time stun_deadline_;  ///< zero: STUN is over, or not asked
    bool relay_over_ = false;
    std::vector<Step> stun_steps_;  ///< said at the end
    platform::Timer timer_, stun_timer_;
};

}  // namespace mesh::relaycheck
