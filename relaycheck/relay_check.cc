// SPDX-License-Identifier: BSD-3-Clause
#include "relaycheck/relay_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "platform/net/source_address.h"

namespace mesh::relaycheck {
namespace {

constexpr Duration kStunAgain = milliseconds(500);
constexpr size_t kMaxStrays = 8;

std::string pem_of(ByteSpan der) {
    return "-----BEGIN CERTIFICATE-----\n" + base64_encode(der) + "\n-----END CERTIFICATE-----\n";
}

}  // namespace

RelayCheck::RelayCheck(platform::Dialer& dialer, Random& random, Target target, OnStep step, OnDone done)
    : loop_(dialer.loop()),
      dialer_(dialer),
      random_(random),
      target_(std::move(target)),
      step_(std::move(step)),
      done_(std::move(done)),
      timer_(loop_, [this] { late(); }),
      stun_timer_(loop_, [this] { ask_stun(); }) {
    if (!target_.addresses.empty()) {
        addrs_ = target_.addresses;
        begin();
        return;
    }
    platform::Resolver::Options look;
    look.timeout = target_.patience;
    lookup_ = dialer_.resolver().resolve(target_.host, look, [this](Result<std::vector<Addr>> found) { resolved(std::move(found)); });
}

void RelayCheck::say(Kind kind, std::string text) {
    if (kind == Kind::kBad) good_ = false;
    step_({kind, std::move(text)});
}

void RelayCheck::relay_failed(std::string text) {
    say(Kind::kBad, std::move(text));
    relay_done();
}

void RelayCheck::relay_done() {
    stream_.close();
    timer_.cancel();
    relay_over_ = true;
    finish_if_over();
}

void RelayCheck::resolved(Result<std::vector<Addr>> found) {
    if (!found) {
        say(Kind::kBad, fmt::format("name: {}", log::printable(found.error().message())));
        return finish();
    }
    addrs_ = std::move(*found);
    std::string list;
    for (const Addr& a : addrs_) list += " " + a.str();
    say(Kind::kGood, fmt::format("address:{}", list));
    begin();
}

void RelayCheck::begin() {
    start_stun();
    dial(true);
}

void RelayCheck::dial(bool tls) {
    platform::DialOptions options;
    options.protect = target_.protect;
    options.timeout = target_.patience;
    options.addresses = addrs_;
    if (tls) {
        options.tls = target_.tls;
        if (options.tls->server_name.empty()) options.tls->server_name = target_.host;
        // Judged here, so that a bad certificate does not hide what lies behind it.
        if (options.tls->verify == platform::TlsVerify::kSystem) options.tls->verify = platform::TlsVerify::kWarn;
    }
    dial_ = dialer_.dial(target_.host, target_.port, std::move(options), [this, tls](Result<platform::ByteStream> s) {
        const auto keep = std::move(dial_);
        dialled(tls, std::move(s));
    });
}

void RelayCheck::dialled(bool tls, Result<platform::ByteStream> s) {
    std::string why = s ? "" : log::printable(s.error().message());
    // Whoever reads this knows what was dialled.
    if (const std::string prefix = fmt::format("{}:{}: ", target_.host, target_.port); why.starts_with(prefix)) why.erase(0, prefix.size());
    if (!s && tls && s.error().code == Code::kDenied) return relay_failed(fmt::format("certificate: {}", why));  // another than the pinned one
    if (!s && tls && s.error().code != Code::kTimeout && s.error().sys_errno == 0 && why.find("refused") == std::string::npos) {
        tls_error_ = why;
        return dial(false);  // a server without TLS answers
    }
    if (!s) {
        const bool refused = why.find("refused") != std::string::npos;
        const bool silent = why.find("timed out") != std::string::npos || s.error().code == Code::kTimeout;
        return relay_failed(fmt::format("connection: {}{}", tls_error_.empty() ? why : tls_error_,
                                        refused ? " (nothing listens there: is derper running, and on that port?)"
                                        : silent ? fmt::format(" (a firewall? open TCP {})", target_.port)
                                                 : ""));
    }
    stream_ = std::move(*s);
    reached_ = stream_.remote_endpoint();
    if (tls) {
        judge_certificate();
    } else {
        const bool fine = target_.plain_is_fine || target_.pin_is_fine;
        say(fine ? Kind::kNote : Kind::kBad,
            fmt::format("TLS: none on port {} ({}); clients need it: fine only behind a proxy that adds it", target_.port, tls_error_));
    }
    stream_.attach(loop_, *this);
    timer_.set_after(target_.patience);
    derp::ClientConfig config;
    config.node_key = NodePrivate::generate(random_);
    config.is_prober = true;
    session_ = std::make_unique<derp::ClientSession>(random_, std::move(config));
    derp::DerpNode node;
    node.host_name = target_.host;
    node.derp_port = target_.port == 443 ? 0 : target_.port;
    session_->start({.host = node.http_host()}, loop_.now());
    asked_at_ = platform::read_clock();
    pump();
}

void RelayCheck::judge_certificate() {
    const platform::TlsSession& tls = *stream_.tls();
    const std::vector<Bytes> chain = tls.peer_chain();
    say(Kind::kGood, fmt::format("TLS: {} from {}", tls.version(), reached_.str()));
    meta_ = platform::find_derp_meta(chain);
    size_t certificates = 0;
    for (const Bytes& der : chain) certificates += platform::is_derp_meta(der) ? 0U : 1U;
    const std::string pin =
        chain.empty() ? "" : std::string(derp::kCertPinPrefix) + hex_encode(platform::certificate_sha256(chain.front()));
    const std::string& problem = tls.certificate_problem();
    if (target_.tls.verify == platform::TlsVerify::kInsecure) {
        say(Kind::kNote, fmt::format("certificate: not looked at, because the map says InsecureForTests; its pin is {}", pin));
    } else if (target_.tls.verify == platform::TlsVerify::kPin) {
        say(Kind::kGood, "certificate: as pinned");
    } else if (problem.empty()) {
        say(Kind::kGood, fmt::format("certificate: trusted, {} in the chain", certificates));
    } else {
        const std::string& name = target_.tls.verify_name.empty() ? target_.host : target_.tls.verify_name;
        const auto facts = chain.empty() ? Result<platform::CertificateFacts>(fail(Code::kInvalid, ""))
                                         : platform::describe_certificates(pem_of(chain.front()), name);
        const bool current = facts && facts->not_before < loop_.wall() && loop_.wall() < facts->not_after;
        const bool for_name = facts && facts->name_problem.empty();
        const bool alone = certificates == 1 && current && for_name;
        if (alone && facts->self_signed)
            say(target_.pin_is_fine ? Kind::kNote : Kind::kBad,
                target_.pin_is_fine ? fmt::format("certificate: self-signed; clients accept it with CertName \"{}\" in the map", pin)
                                    : fmt::format("certificate: self-signed: set InsecureForTests in the map, or better CertName \"{}\"", pin));
        else if (facts && facts->self_signed && current && !for_name)  // the wrong name is what the owner can mend
            say(Kind::kBad, fmt::format("certificate: {}", facts->name_problem));
        else
            say(Kind::kBad, fmt::format("certificate: {}{}", problem,
                                        alone ? " (the server sends its certificate alone: use fullchain.pem)" : ""));
    }
    if (!meta_) say(Kind::kNote, "certificate: no derpkey certificate in the chain (a proxy?); clients need one more round trip");
}

void RelayCheck::on_bytes(MutByteSpan bytes) {
    if (!latency_) latency_ = platform::read_clock() - asked_at_;
    session_->feed(bytes, loop_.now());
    read_events();
}

void RelayCheck::on_closed(const Status& why) {
    session_->closed(why ? "" : log::printable(why.error().message()));
    read_events();
}

void RelayCheck::read_events() {
    using Event = derp::Event::Kind;
    while (const derp::Event* e = session_->next_event(loop_.now())) {
        if (e->kind == Event::kError) {
            const std::string why = e->error.message();
            if (!session_->server_key().is_zero() && !session_->connected())
                return relay_failed(fmt::format("login: {} (after the key of the server: it admits only nodes it knows, "
                                                "-verify-clients or the like; that is fine if you want it so)", why));
            const bool other_server = why.find("HTTP 4") != std::string::npos || why.find("HTTP 5") != std::string::npos;
            return relay_failed(fmt::format(
                "upgrade: {}{}", why, other_server ? " (is this a derper? a proxy must pass Upgrade and Connection headers on)" : ""));
        }
        if (e->kind == Event::kConnected) {
            say(Kind::kGood, fmt::format("upgrade and login: server key {}", session_->server_key().text()));
            if (meta_ && meta_->server_key != session_->server_key())
                say(Kind::kBad, "the derpkey certificate names another key: clients with fast start will fail");
            session_->ping(loop_.now());
        } else if (e->kind == Event::kPong) {
            say(Kind::kGood, fmt::format("ping: {:.1f} ms", e->round_trip.seconds() * 1e3));
            return relay_done();
        }
    }
    if (!target_.login && !session_->server_key().is_zero()) {
        say(Kind::kGood, fmt::format("upgrade: server key {}", session_->server_key().text()));
        return relay_done();
    }
    pump();
}

void RelayCheck::pump() {
    for (ByteSpan b = session_->writable(loop_.now()); !b.empty(); b = session_->writable(loop_.now())) {
        const size_t n = b.size();
        if (!stream_.write(b)) return;
        session_->wrote(n, loop_.now());
    }
}

void RelayCheck::late() {
    if (finished_) {
        const OnDone done = std::move(done_);
        return done();  // last
    }
    relay_failed(fmt::format("upgrade: no answer in {} s (something else than a relay listens there?)", target_.patience.ns / seconds(1).ns));
}

// ---- STUN ------------------------------------------------------------------------------------------------------------

void RelayCheck::start_stun() {
    if (target_.stun_port == 0) return;
    for (const Addr& a : addrs_) {
        auto& socket = a.is_v4() ? stun_v4_ : stun_v6_;
        // A family that this host cannot send by says nothing about the relay.
        if (socket || !platform::source_address(a, target_.protect).is_valid()) continue;
        platform::UdpSocket::Options options;
        options.family = a.is_v4() ? Addr::Family::kV4 : Addr::Family::kV6;
        options.protect = target_.protect;
        options.bulk = false;
        auto opened = platform::UdpSocket::open(options);
        if (!opened) continue;
        socket = std::move(*opened);
        socket->attach(loop_, *this);
        asked_.push_back({a, target_.stun_port});
    }
    if (asked_.empty()) return;
    random_.fill(tx_);
    stun_deadline_ = loop_.now() + target_.stun_patience;
    ask_stun();
}

void RelayCheck::ask_stun() {
    if (loop_.now() >= stun_deadline_) {
        for (const Endpoint& e : asked_)
            stun_steps_.push_back({Kind::kBad, fmt::format("STUN: no answer from {} (a firewall? open UDP {}; without it nodes cannot learn "
                                                           "their address and stay relayed)", e.str(), e.port)});
        for (const Endpoint& e : strays_)
            stun_steps_.push_back({Kind::kNote, fmt::format("STUN: an answer came from {}, which nobody asked: a NAT drops it (give that "
                                                            "server's -a the address)", e.str())});
        stun_deadline_ = {};
        return finish_if_over();
    }
    const auto request = stun::encode_request(tx_);
    for (const Endpoint& e : asked_) (e.addr.is_v4() ? stun_v4_ : stun_v6_)->send(e, request);
    stun_timer_.set(min(loop_.now() + kStunAgain, stun_deadline_));
}

void RelayCheck::on_datagrams(std::span<UdpReceive> batch) {
    for (const UdpReceive& r : batch) {
        const auto answer = stun::decode_response(r.bytes);
        if (!answer || answer->tx != tx_) continue;
        const auto it = std::find(asked_.begin(), asked_.end(), r.from);
        if (it == asked_.end()) {
            if (strays_.size() < kMaxStrays) strays_.insert(r.from);
            continue;
        }
        stun_steps_.push_back({Kind::kGood, fmt::format("STUN: {} sees us as {}", r.from.str(), answer->mapped.str())});
        asked_.erase(it);
    }
    if (!asked_.empty() || stun_deadline_.is_zero()) return;
    stun_deadline_ = {};
    finish_if_over();
}

void RelayCheck::finish_if_over() {
    if (!relay_over_ || !stun_deadline_.is_zero() || finished_) return;
    for (Step& s : stun_steps_) say(s.kind, std::move(s.text));
    finish();
}

void RelayCheck::finish() {
    finished_ = true;
    stun_timer_.cancel();
    timer_.set(loop_.now());  // told in a turn of its own
}

}  // namespace mesh::relaycheck
