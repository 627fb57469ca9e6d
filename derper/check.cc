// SPDX-License-Identifier: BSD-3-Clause
#include "derper/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "derper/mesh.h"
#include "magicsock/derp/client_session.h"
#include "magicsock/derp/derp_map.h"
#include "magicsock/stun/stun.h"
#include "platform/net/dialer.h"
#include "platform/net/udp_socket.h"
#include "platform/tls/certificate.h"

namespace mesh::derper {
namespace {

constexpr Duration kPatience = seconds(10);
constexpr Duration kStunPatience = seconds(3);
constexpr Duration kStunAgain = milliseconds(500);

void say(bool good, const std::string& text) { fmt::print("{} {}\n", good ? "ok  " : "FAIL", text); }
void note(const std::string& text) { fmt::print("note {}\n", text); }

std::string pem_of(ByteSpan der) {
    return "-----BEGIN CERTIFICATE-----\n" + base64_encode(der) + "\n-----END CERTIFICATE-----\n";
}

class Check final : private platform::ByteStream::Listener, private platform::UdpSocket::Listener {
   public:
    Check(CheckTarget target, int stun_port)
        : target_(std::move(target)),
          stun_port_(stun_port < 0 ? uint16_t{0} : static_cast<uint16_t>(stun_port)),
          resolver_(loop_, resolver_config()),
          dialer_(loop_, resolver_),
          timer_(loop_, [this] { late(); }),
          stun_timer_(loop_, [this] { ask_stun(); }) {}

    bool run() {
        lookup_ = resolver_.resolve(target_.host, {}, [this](Result<std::vector<Addr>> found) { resolved(std::move(found)); });
        loop_.run();
        return good_;
    }

   private:
    static platform::ResolverConfig resolver_config() {
        auto c = platform::system_resolver_config();
        c.protect = platform::Protect::kNo;
        return c;
    }

    void fail_with(const std::string& text) {
        say(false, text);
        good_ = false;
        stream_.close();
        timer_.cancel();
        start_stun();
    }

    void resolved(Result<std::vector<Addr>> found) {
        if (!found) {
            say(false, fmt::format("name: {}", log::printable(found.error().message())));
            good_ = false;
            return loop_.stop();
        }
        addrs_ = std::move(*found);
        std::string list;
        for (const Addr& a : addrs_) list += " " + a.str();
        say(true, fmt::format("address:{}", list));
        dial(true);
    }

    void dial(bool tls) {
        platform::DialOptions options;
        options.protect = platform::Protect::kNo;
        options.timeout = kPatience;
        options.addresses = addrs_;
        if (tls) {
            options.tls.emplace();
            options.tls->server_name = target_.host;
            options.tls->verify = platform::TlsVerify::kWarn;
        }
        dial_ = dialer_.dial(target_.host, target_.port, std::move(options), [this, tls](Result<platform::ByteStream> s) {
            const auto keep = std::move(dial_);
            dialled(tls, std::move(s));
        });
    }

    void dialled(bool tls, Result<platform::ByteStream> s) {
        if (!s && tls && s.error().code != Code::kTimeout && s.error().sys_errno == 0) {
            tls_error_ = log::printable(s.error().message());
            return dial(false);  // a refused port fails again; a plain server answers
        }
        if (!s) {
            const std::string why = log::printable(s.error().message());
            return fail_with(fmt::format("connection: {}{}", tls_error_.empty() ? why : tls_error_,
                                         why.find("refused") != std::string::npos
                                             ? " (nothing listens there: is derper running, and on that port?)"
                                             : why.find("timed out") != std::string::npos || s.error().code == Code::kTimeout
                                                   ? fmt::format(" (a firewall? open TCP {})", target_.port)
                                                   : ""));
        }
        stream_ = std::move(*s);
        if (tls) {
            judge_certificate();
        } else {
            note(fmt::format("no TLS on port {} ({}); clients need it: fine only behind a proxy that adds it", target_.port, tls_error_));
        }
        stream_.attach(loop_, *this);
        timer_.set_after(kPatience);
        derp::ClientConfig config;
        config.node_key = NodePrivate::generate(random_);
        config.is_prober = true;
        session_ = std::make_unique<derp::ClientSession>(random_, std::move(config));
        derp::DerpNode node;
        node.host_name = target_.host;
        node.derp_port = target_.port == 443 ? 0 : target_.port;
        session_->start({.host = node.http_host()}, loop_.now());
        pump();
    }

    void judge_certificate() {
        const platform::TlsSession& tls = *stream_.tls();
        const std::vector<Bytes> chain = tls.peer_chain();
        say(true, fmt::format("TLS: {} from {}", tls.version(), stream_.remote_endpoint().str()));
        meta_ = platform::find_derp_meta(chain);
        size_t certificates = 0;
        for (const Bytes& der : chain) certificates += platform::is_derp_meta(der) ? 0U : 1U;
        const std::string pin =
            chain.empty() ? "" : std::string(derp::kCertPinPrefix) + hex_encode(platform::certificate_sha256(chain.front()));
        const std::string& problem = tls.certificate_problem();
        if (problem.empty()) {
            say(true, fmt::format("certificate: trusted, {} in the chain", certificates));
        } else {
            const auto facts = chain.empty() ? Result<platform::CertificateFacts>(fail(Code::kInvalid, ""))
                                             : platform::describe_certificates(pem_of(chain.front()), target_.host);
            const bool current = facts && facts->not_before < loop_.wall() && loop_.wall() < facts->not_after;
            if (certificates == 1 && facts && facts->self_signed && facts->name_problem.empty() && current) {
                note(fmt::format("certificate: self-signed; clients accept it with CertName \"{}\" in the map", pin));
            } else {
                say(false, fmt::format("certificate: {}{}", problem,
                                       certificates == 1 && facts && !facts->self_signed && current && facts->name_problem.empty()
                                           ? " (the server sends its certificate alone: use fullchain.pem)"
                                           : ""));
                good_ = false;
            }
        }
        if (!meta_) note("certificate: no derpkey certificate in the chain (a proxy?); clients need one more round trip");
    }

    void on_bytes(MutByteSpan bytes) override {
        session_->feed(bytes, loop_.now());
        read_events();
    }
    void on_closed(const Status& why) override {
        session_->closed(why ? "" : log::printable(why.error().message()));
        read_events();
    }

    void read_events() {
        using Kind = derp::Event::Kind;
        while (const derp::Event* e = session_->next_event(loop_.now())) {
            if (e->kind == Kind::kError) {
                const std::string why = e->error.message();
                if (!session_->server_key().is_zero() && !session_->connected())
                    return fail_with(fmt::format("login: {} (after the key of the server: it admits only nodes it knows, "
                                                 "-verify-clients or the like; that is fine if you want it so)", why));
                return fail_with(fmt::format("upgrade: {}{}", why,
                                             why.find("HTTP 4") != std::string::npos || why.find("HTTP 5") != std::string::npos
                                                 ? " (is this a derper? a proxy must pass Upgrade and Connection headers on)"
                                                 : ""));
            }
            if (e->kind == Kind::kConnected) {
                say(true, fmt::format("upgrade and login: server key {}", session_->server_key().text()));
                if (meta_ && meta_->server_key != session_->server_key()) {
                    say(false, "the derpkey certificate names another key: clients with fast start will fail");
                    good_ = false;
                }
                session_->ping(loop_.now());
            } else if (e->kind == Kind::kPong) {
                say(true, fmt::format("ping: {:.1f} ms", e->round_trip.seconds() * 1e3));
                stream_.close();
                timer_.cancel();
                return start_stun();
            }
        }
        pump();
    }

    void pump() {
        for (ByteSpan b = session_->writable(loop_.now()); !b.empty(); b = session_->writable(loop_.now())) {
            const size_t n = b.size();
            if (!stream_.write(b)) return;
            session_->wrote(n, loop_.now());
        }
    }

    void late() {
        if (stun_deadline_.is_zero()) return fail_with("upgrade: no answer in 10 s");
        finish_stun();
    }

    void start_stun() {
        if (addrs_.empty() || stun_port_ == 0) return loop_.stop();
        for (const Addr& a : addrs_) {
            const bool wanted = a.is_v4() ? !stun_v4_ : !stun_v6_;
            if (!wanted) continue;
            auto socket = platform::UdpSocket::open({.family = a.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6,
                                                     .port = 0,
                                                     .exact_port = false,
                                                     .bind_addr = {},
                                                     .protect = platform::Protect::kNo,
                                                     .bulk = false});
            if (!socket) continue;
            (*socket)->attach(loop_, *this);
            (a.is_v4() ? stun_v4_ : stun_v6_) = std::move(*socket);
            asked_.push_back({a, stun_port_});
        }
        random_.fill(tx_);
        stun_deadline_ = loop_.now() + kStunPatience;
        timer_.set(stun_deadline_);
        ask_stun();
    }

    void ask_stun() {
        const auto request = stun::encode_request(tx_);
        for (const Endpoint& e : asked_) (e.addr.is_v4() ? stun_v4_ : stun_v6_)->send(e, request);
        stun_timer_.set_after(kStunAgain);
    }

    void on_datagrams(std::span<UdpReceive> batch) override {
        for (const UdpReceive& r : batch) {
            const auto answer = stun::decode_response(r.bytes);
            if (!answer || answer->tx != tx_) continue;
            const auto it = std::find(asked_.begin(), asked_.end(), r.from);
            if (it == asked_.end()) {
                strays_.insert(r.from);
                continue;
            }
            say(true, fmt::format("STUN: {} sees us as {}", r.from.str(), answer->mapped.str()));
            asked_.erase(it);
        }
        if (asked_.empty()) finish_stun();
    }
    void on_send_error(const Endpoint&, int) override {}

    void finish_stun() {
        for (const Endpoint& e : asked_) {
            say(false, fmt::format("STUN: no answer from {} (a firewall? open UDP {}; without it nodes cannot learn their address "
                                   "and stay relayed)", e.str(), stun_port_));
            good_ = false;
        }
        if (asked_.empty()) strays_.clear();
        for (const Endpoint& e : strays_)
            note(fmt::format("STUN: an answer came from {}, which nobody asked: a NAT drops it (give that server's -a the address)", e.str()));
        loop_.stop();
    }

    CheckTarget target_;
    uint16_t stun_port_;
    bool good_ = true;
    SystemRandom random_;
    platform::Loop loop_;
    platform::Resolver resolver_;
    platform::Dialer dialer_;
    std::unique_ptr<platform::Resolver::Lookup> lookup_;
    std::unique_ptr<platform::Dial> dial_;
    std::vector<Addr> addrs_;
    std::string tls_error_;
    std::optional<platform::DerpMeta> meta_;
    std::unique_ptr<derp::ClientSession> session_;
    platform::ByteStream stream_;
    std::unique_ptr<platform::UdpSocket> stun_v4_, stun_v6_;
    std::vector<Endpoint> asked_;
    std::set<Endpoint> strays_;  // who answered without having been asked
    stun::TxId tx_{};
    Time stun_deadline_;
    platform::Timer timer_, stun_timer_;
};

}  // namespace

Result<CheckTarget> parse_check_target(const std::string& text) {
    const auto parsed = parse_mesh_with(text);
    if (!parsed || parsed->size() != 1 || !parsed->front().dial.empty() || !parsed->front().cert_name.empty())
        return fail(Code::kInvalid, "-check takes HOST or HOST:PORT, for example -check derp.example.com:443");
    return CheckTarget{parsed->front().host, parsed->front().port};
}

bool check_relay(const CheckTarget& target, int stun_port) { return Check(target, stun_port).run(); }

}  // namespace mesh::derper
