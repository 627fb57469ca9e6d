// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/portmap/mapper.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/log.h"
#include "magicsock/portmap/natpmp.h"

namespace mesh::portmap {
namespace {

constexpr Duration kFirstRetry = milliseconds(250);  // doubled with each try (RFC 6886 3.1)
constexpr unsigned kPxpTries = 3;
constexpr Duration kHttpPatience = seconds(4);       // for one answer; the owner's own limit is shorter
constexpr Duration kCheckEvery = minutes(5);
constexpr Duration kMinRenew = seconds(30);
constexpr uint32_t kMinLifetimeS = 60, kMaxLifetimeS = 24 * 3600;
constexpr Duration kLookGap = seconds(10);
constexpr Duration kProbePauses[] = {seconds(1), seconds(5), seconds(30), minutes(10)};
constexpr unsigned kPortTries = 4;
constexpr size_t kMaxReleases = 8;

/// An address that somebody outside could send to, be it a private one.
bool usable(const Addr& a) {
    return a.is_v4() && !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && !a.is_link_local() && a != Addr::v4(0xffffffff);
}

}  // namespace

std::string_view name(Protocol p) {
    return p == Protocol::kNatPmp ? "NAT-PMP" : p == Protocol::kPcp ? "PCP" : "UPnP";
}

bool Mapper::Epoch::update(uint32_t fresh, Time now) {
    const bool known = !at.is_zero();
    const int64_t expected = value + (now - at).ns / seconds(1).ns * 7 / 8;
    value = fresh;
    at = now;
    return known && int64_t{fresh} + 2 < expected;
}

void Mapper::set(const Network& network, uint16_t local_port, Time now) {
    if (network == network_ && local_port == port_) return;
    if (mapping_) take_back(*mapping_);
    mapping_.reset();
    network_ = network;
    port_ = local_port;
    found_ = {};
    probed_ = false;
    refusals_.clear();
    pmp_epoch_ = pcp_epoch_ = {};
    failures_ = 0;
    waiting_for_ = 0;
    again_at_ = check_at_ = step_at_ = Time::never();
    step_ = Step::kOff;
    prober_.start({}, now);
    if (network.usable() && local_port != 0) probe(now);
}

void Mapper::look_again(Time now) {
    if (step_ != Step::kResting) return;
    Time& when = mapping_ ? mapping_->renew_at : again_at_;
    when = min(when, max(now, looked_at_ + kLookGap));
    handle_timeout(now);
}

void Mapper::probe(Time now) {
    looked_at_ = now;
    tried_ = 0;
    step_ = Step::kProbing;
    step_at_ = again_at_ = Time::never();
    prober_.start(network_, now);
}

/// The next protocol that was found and not tried yet.
void Mapper::try_next(Time now) {
    for (const Protocol p : {Protocol::kNatPmp, Protocol::kPcp, Protocol::kUpnp}) {
        const bool there = p == Protocol::kNatPmp ? found_.natpmp : p == Protocol::kPcp ? found_.pcp : found_.upnp();
        if (!there || (tried_ & (1U << static_cast<unsigned>(p))) != 0) continue;
        tried_ |= 1U << static_cast<unsigned>(p);
        by_ = p;
        if (p == Protocol::kUpnp) return upnp_begin(now);
        step_ = Step::kPxp;
        tries_ = 0;
        pmp_external_ = {};
        pmp_mapped_.reset();
        // A renewal is known by the nonce of the first request.
        if (p == Protocol::kPcp && !(mapping_ && mapping_->by == Protocol::kPcp)) random_.fill(nonce_);
        return send_pxp(now);
    }
    give_up(now);
}

void Mapper::give_up(Time now) {
    const Duration pause = kProbePauses[std::min<size_t>(failures_, std::size(kProbePauses) - 1)];
    ++failures_;
    again_at_ = now + pause;
    if (mapping_) mapping_->renew_at = now + std::max(kMinRenew, (mapping_->good_until - now) / 2);
    rest(now);
}

void Mapper::rest(Time now) {
    step_ = Step::kResting;
    step_at_ = Time::never();
    waiting_for_ = 0;
    check_at_ = mapping_ && mapping_->by != Protocol::kUpnp ? now + kCheckEvery : Time::never();
}

/// By the protocol that gave the mapping; if that fails everything is looked at again while the mapping lasts.
void Mapper::renew(Time now) {
    looked_at_ = now;
    tried_ = ~(1U << static_cast<unsigned>(mapping_->by));
    try_next(now);
}

void Mapper::refused(Protocol by, std::string why, Time now) {
    refusals_[by] = std::move(why);
    const bool renewal = mapping_ && tried_ == ~0U;
    if (renewal)
        probe(now);
    else
        try_next(now);
}

void Mapper::succeeded(Protocol by, const Endpoint& external, uint32_t lifetime_s, Time now) {
    // Another protocol than before. One given by NAT-PMP or PCP lapses by itself; to take it back may take the new one along.
    if (mapping_ && mapping_->by == Protocol::kUpnp && by != Protocol::kUpnp && mapping_->external.port != external.port) take_back(*mapping_);
    const Duration granted = seconds(std::clamp(lifetime_s, kMinLifetimeS, kMaxLifetimeS));
    mapping_ = {by, external, now + std::max(kMinRenew, granted / 2), now + granted};
    refusals_.clear();
    failures_ = 0;
    again_at_ = Time::never();
    rest(now);
}

void Mapper::take_back(const Mapping& m) {
    if (m.by == Protocol::kUpnp) {
        if (releases_.size() < kMaxReleases)
            releases_.push_back(ask(chosen_.http_port, chosen_.service.control_path, upnp::delete_mapping(chosen_.service, m.external.port)));
        return;
    }
    const Endpoint to{network_.gateway, kPxpPort};
    const Bytes bytes = m.by == Protocol::kPcp ? pcp::encode_map(network_.self, {nonce_, port_, 0, {}}, 0)
                                               : to_bytes(natpmp::encode_map_request(port_, 0, 0));
    for (int i = 0; i < 2; ++i) out_.push_back({to, bytes});  // nobody waits for the answer
}

// ---- NAT-PMP and PCP -------------------------------------------------------------------------------------------------

void Mapper::send_pxp(Time now) {
    if (tries_ >= kPxpTries) return refused(by_, "it did not answer", now);
    step_at_ = now + kFirstRetry * (int64_t{1} << tries_);
    ++tries_;
    const Endpoint to{network_.gateway, kPxpPort};
    const uint16_t wished = mapping_ ? mapping_->external.port : uint16_t{0};
    if (by_ == Protocol::kPcp) {
        const Addr addr = mapping_ ? mapping_->external.addr : Addr();
        out_.push_back({to, pcp::encode_map(network_.self, {nonce_, port_, wished, addr}, kLifetimeS)});
        return;
    }
    if (!pmp_external_.is_valid()) out_.push_back({to, to_bytes(natpmp::encode_address_request())});
    if (!pmp_mapped_) out_.push_back({to, to_bytes(natpmp::encode_map_request(port_, wished, kLifetimeS))});
}

/// A router that forgot its mappings, ours among them, is asked anew.
void Mapper::note_epoch(Epoch& epoch, uint32_t fresh, Time now) {
    if (epoch.update(fresh, now) && mapping_ && mapping_->by != Protocol::kUpnp) look_again(now);
}

void Mapper::handle_pxp(ByteSpan datagram, Time now) {
    if (const auto answer = natpmp::decode(datagram)) {
        const bool mine = step_ == Step::kPxp && by_ == Protocol::kNatPmp;
        if (const auto* a = std::get_if<natpmp::AddressAnswer>(&*answer)) {
            if (a->result != 0) {
                if (mine && !pmp_external_.is_valid()) refused(by_, std::string(natpmp::result_text(a->result)), now);
                return;
            }
            if (mine) pmp_external_ = a->external;
            if (mapping_ && mapping_->by == Protocol::kNatPmp && usable(a->external)) mapping_->external.addr = a->external;
            note_epoch(pmp_epoch_, a->epoch, now);
        } else if (const auto& m = std::get<natpmp::MapAnswer>(*answer); mine) {
            if (m.result != 0) return refused(by_, std::string(natpmp::result_text(m.result)), now);
            if (m.internal != port_ || m.external == 0 || m.lifetime_s == 0) return;  // to another request: a late one, a deletion
            pmp_mapped_ = {m.external, m.lifetime_s};
            (void)pmp_epoch_.update(m.epoch, now);
        }
        if (step_ != Step::kPxp || by_ != Protocol::kNatPmp || !pmp_mapped_ || !pmp_external_.is_valid()) return;
        if (!usable(pmp_external_)) return refused(by_, "it has no Internet address itself", now);
        return succeeded(Protocol::kNatPmp, {pmp_external_, pmp_mapped_->first}, pmp_mapped_->second, now);
    }
    const auto answer = pcp::decode(datagram);
    if (!answer) return;
    const bool map = answer->op == pcp::kOpMap && answer->map && answer->map->nonce == nonce_ && answer->map->internal == port_;
    if (step_ == Step::kPxp && by_ == Protocol::kPcp && map) {
        if (answer->result != 0) return refused(by_, std::string(pcp::result_text(answer->result)), now);
        (void)pcp_epoch_.update(answer->epoch, now);
        if (answer->lifetime_s == 0) return;  // a deletion of before
        if (!usable(answer->map->external_addr) || answer->map->external == 0) return refused(by_, "it has no Internet address itself", now);
        return succeeded(Protocol::kPcp, {answer->map->external_addr, answer->map->external}, answer->lifetime_s, now);
    }
    if (answer->op == pcp::kOpAnnounce && answer->result == 0) note_epoch(pcp_epoch_, answer->epoch, now);
}

// ---- UPnP ------------------------------------------------------------------------------------------------------------

uint64_t Mapper::ask(uint16_t http_port, const std::string& path, std::optional<upnp::Call> call) {
    const uint64_t id = next_id_++;
    http_.push_back({id, fmt::format("http://{}{}", Endpoint{network_.gateway, http_port}.str(), path), std::move(call)});
    return id;
}

void Mapper::upnp_begin(Time now) {
    step_ = Step::kUpnp;
    candidates_.clear();
    next_igd_ = 0;
    tries_ = 0;
    lease_s_ = kLifetimeS;
    if (mapping_ && mapping_->by == Protocol::kUpnp) {  // where it was given
        candidates_ = {chosen_};
        wanted_port_ = mapping_->external.port;
        at_ = 0;
        upnp_step_ = UpnpStep::kExternal;
        return upnp_examine(now);
    }
    wanted_port_ = static_cast<uint16_t>(1024 + random_.below(65536 - 1024));
    upnp_describe(now);
}

/// One description after the other.
void Mapper::upnp_describe(Time now) {
    upnp_step_ = UpnpStep::kDescribe;
    if (next_igd_ < found_.igds.size()) {
        const ssdp::Answer& igd = found_.igds[next_igd_++];
        waiting_for_ = ask(igd.at.port, igd.path, std::nullopt);
        step_at_ = now + kHttpPatience;
        return;
    }
    if (candidates_.empty()) return refused(Protocol::kUpnp, "it announces an Internet gateway, but shows none that forwards ports", now);
    at_ = 0;
    upnp_step_ = candidates_.size() > 1 ? UpnpStep::kStatus : UpnpStep::kExternal;
    upnp_examine(now);
}

void Mapper::upnp_examine(Time now) {
    if (at_ >= candidates_.size()) return upnp_choose(now);
    const Candidate& c = candidates_[at_];
    waiting_for_ = ask(c.http_port, c.service.control_path,
                       upnp::make_call(c.service, upnp_step_ == UpnpStep::kStatus ? "GetStatusInfo" : "GetExternalIPAddress"));
    step_at_ = now + kHttpPatience;
}

/// Connected with a public address, else connected with any, else with any address at all.
void Mapper::upnp_choose(Time now) {
    const auto value = [](const Candidate& c) {
        if (!usable(c.external)) return 0;
        const bool open = !c.external.is_private() && !is_tailscale_range(c.external);
        return 1 + (c.connected ? 2 : 0) + (c.connected && open ? 1 : 0);
    };
    const auto best = std::max_element(candidates_.begin(), candidates_.end(),
                                       [&](const Candidate& a, const Candidate& b) { return value(a) < value(b); });
    if (value(*best) == 0) return refused(Protocol::kUpnp, "it has no Internet address itself", now);
    chosen_ = *best;
    upnp_add(now);
}

void Mapper::upnp_add(Time now) {
    upnp_step_ = UpnpStep::kAdd;
    ++tries_;
    waiting_for_ = ask(chosen_.http_port, chosen_.service.control_path,
                       upnp::add_mapping(chosen_.service, wanted_port_, {network_.self, port_}, lease_s_));
    step_at_ = now + kHttpPatience;
}

void Mapper::upnp_answer(std::string_view body, Time now) {
    waiting_for_ = 0;
    if (upnp_step_ == UpnpStep::kDescribe) {
        const uint16_t http_port = found_.igds[next_igd_ - 1].at.port;
        if (auto services = upnp::parse_description(body))
            for (upnp::Service& s : *services)
                if (candidates_.size() < upnp::kMaxServices) candidates_.push_back({std::move(s), http_port, false, {}});
        return upnp_describe(now);
    }
    const auto reply = upnp::parse_reply(body);
    const bool good = reply && reply->error == 0;
    if (upnp_step_ == UpnpStep::kAdd) return upnp_added(reply, now);
    Candidate& c = candidates_[at_];
    if (upnp_step_ == UpnpStep::kStatus) {
        c.connected = good && (reply->status == "Connected" || reply->status == "Up");
        upnp_step_ = UpnpStep::kExternal;
    } else {
        c.external = good ? Addr::parse(reply->external_ip).value_or(Addr()) : Addr();
        ++at_;
        if (at_ < candidates_.size()) upnp_step_ = UpnpStep::kStatus;
    }
    upnp_examine(now);
}

void Mapper::upnp_added(const Result<upnp::Reply>& reply, Time now) {
    if (!reply) return refused(Protocol::kUpnp, "it does not answer as UPnP asks", now);
    if (reply->error == 0) {
        uint16_t port = wanted_port_;
        if (const std::string& text = reply->reserved_port; !text.empty()) {
            uint16_t given = 0;
            const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), given);
            if (ec == std::errc() && end == text.data() + text.size() && given != 0) port = given;
        }
        // A lease without end is looked after like any other.
        return succeeded(Protocol::kUpnp, {chosen_.external, port}, kLifetimeS, now);
    }
    if (tries_ < kPortTries) {
        if ((reply->error == upnp::kOnlyPermanentLeases || reply->error == upnp::kInvalidArgs) && lease_s_ != 0) {
            lease_s_ = 0;
            return upnp_add(now);
        }
        if (reply->error == upnp::kConflict) {
            wanted_port_ = static_cast<uint16_t>(1024 + random_.below(65536 - 1024));
            return upnp_add(now);
        }
    }
    refused(Protocol::kUpnp, fmt::format("its answer is {}{}{}", reply->error, reply->error_text.empty() ? "" : ": ",
                                         log::printable(reply->error_text, 100)), now);
}

// ---- inputs ----------------------------------------------------------------------------------------------------------

std::optional<Datagram> Mapper::next_send() {
    if (out_.empty()) return prober_.next_send();
    Datagram d = std::move(out_.front());
    out_.erase(out_.begin());
    return d;
}

std::optional<HttpAsk> Mapper::next_http() {
    if (http_.empty()) return std::nullopt;
    HttpAsk a = std::move(http_.front());
    http_.erase(http_.begin());
    return a;
}

void Mapper::handle_datagram(ByteSpan datagram, const Endpoint& from, Time now) {
    if (step_ == Step::kOff) return;
    const bool news = prober_.handle(datagram, from);
    if (news) found_ = prober_.found();
    if (from == Endpoint{network_.gateway, kPxpPort}) handle_pxp(datagram, now);
    if (!news || mapping_) return;
    // PCP waits for NAT-PMP until the probe ends; an answer that comes after it is used at once.
    const bool now_at_once = step_ == Step::kProbing && found_.natpmp;
    if (now_at_once || step_ == Step::kResting) try_next(now);
}

// At most as often as look_again() allows; who forges the gateway's address wins one renewal.
void Mapper::handle_announcement(ByteSpan datagram, const Endpoint& from, Time now) {
    if (step_ == Step::kOff || from.addr != network_.gateway) return;
    const auto forgot = [&](Epoch& epoch, uint32_t fresh) {
        const bool first = epoch.at.is_zero();
        return epoch.update(fresh, now) || first;
    };
    bool news = false;
    if (const auto answer = natpmp::decode(datagram)) {
        const auto* a = std::get_if<natpmp::AddressAnswer>(&*answer);
        if (a == nullptr || a->result != 0) return;
        news = forgot(pmp_epoch_, a->epoch) || (mapping_ && mapping_->by == Protocol::kNatPmp && mapping_->external.addr != a->external);
    } else if (const auto announce = pcp::decode(datagram); announce && announce->op == pcp::kOpAnnounce && announce->result == 0) {
        news = forgot(pcp_epoch_, announce->epoch);
    } else {
        return;
    }
    if (news || !mapping_) look_again(now);
}

void Mapper::http_answer(uint64_t id, std::string_view body, Time now) {
    if (std::erase(releases_, id) > 0) return;
    if (step_ == Step::kUpnp && id == waiting_for_) upnp_answer(body, now);
}

Time Mapper::next_timeout() const {
    if (step_ == Step::kOff) return Time::never();
    Time t = prober_.next_timeout();
    if (step_ == Step::kPxp || step_ == Step::kUpnp) t = min(t, step_at_);
    if (mapping_) t = min(t, mapping_->good_until);
    if (step_ == Step::kResting) {
        t = min(t, again_at_);
        if (mapping_) t = min(t, min(mapping_->renew_at, check_at_));
    }
    return t;
}

void Mapper::handle_timeout(Time now) {
    if (step_ == Step::kOff) return;
    prober_.handle_timeout(now);
    probed_ = probed_ || prober_.done(now);
    if (mapping_ && now >= mapping_->good_until) {
        mapping_.reset();
        if (step_ == Step::kResting) return probe(now);
    }
    switch (step_) {
        case Step::kOff:
            break;
        case Step::kProbing:
            if (!prober_.done(now)) break;
            found_ = prober_.found();
            if (!found_.natpmp) refusals_.erase(Protocol::kNatPmp);
            if (!found_.pcp) refusals_.erase(Protocol::kPcp);
            if (!found_.upnp()) refusals_.erase(Protocol::kUpnp);
            try_next(now);
            break;
        case Step::kPxp:
            if (now >= step_at_) send_pxp(now);
            break;
        case Step::kUpnp:
            if (now >= step_at_) upnp_answer("", now);
            break;
        case Step::kResting:
            if (mapping_ && now >= mapping_->renew_at) return renew(now);
            if (now >= again_at_) return probe(now);
            if (mapping_ && now >= check_at_) {
                check_at_ = now + kCheckEvery;
                const Endpoint to{network_.gateway, kPxpPort};
                out_.push_back({to, mapping_->by == Protocol::kPcp ? pcp::encode_announce(network_.self)
                                                                   : to_bytes(natpmp::encode_address_request())});
            }
            break;
    }
}

std::optional<Endpoint> Mapper::mapping() const { return mapping_ ? std::optional(mapping_->external) : std::nullopt; }
std::optional<Protocol> Mapper::protocol() const { return mapping_ ? std::optional(mapping_->by) : std::nullopt; }

std::vector<Note> Mapper::notes() const {
    std::vector<Note> out;
    using Kind = Note::Kind;
    const std::string gateway = network_.gateway.is_valid() ? network_.gateway.str() : "";
    if (mapping_) {
        const Addr& a = mapping_->external.addr;
        if (a.is_private() || is_tailscale_range(a))
            out.push_back({Kind::kPrivateAddress,
                           fmt::format("The router {} opened a port, but its own address is {}, which is {}: another NAT lies before it. The "
                                       "port helps only once that one lets it through too.",
                                       gateway, a.str(), a.is_private() ? "a private one" : "a carrier's shared one")});
        return out;
    }
    if (!found_.strangers.empty() && !found_.natpmp && !found_.pcp && refusals_.contains(Protocol::kUpnp)) {
        std::string who;
        for (const Addr& a : found_.strangers) who += (who.empty() ? "" : ", ") + a.str();
        out.push_back({Kind::kWrongGateway,
                       fmt::format("{} offers to open ports by UPnP, but it is not this host's gateway ({}), which does not: a port opened "
                                   "there would not lead here, so it is not used. Turn on UPnP or NAT-PMP on {}, or make {} the gateway.",
                                   who, gateway, gateway, found_.strangers.front().str())});
        return out;
    }
    for (const auto& [by, why] : refusals_)
        out.push_back({Kind::kRefused, fmt::format("The router {} does not open a port by {}: {}.", gateway, name(by), why)});
    return out;
}

}  // namespace mesh::portmap
