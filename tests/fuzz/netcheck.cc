// SPDX-License-Identifier: BSD-3-Clause
// A net check among liars: the input is a script of answers, silences, names and clock steps. Every report is over in
// time, speaks only of regions that exist, and can be printed; probes go to usable addresses and are not too many.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "magicsock/derp/derp_map_json.h"
#include "magicsock/netcheck/format.h"
#include "magicsock/netcheck/netcheck.h"
#include "magicsock/stun/stun.h"
#include "tests/fuzz/growth.h"

using namespace mesh;

namespace {

std::shared_ptr<const derp::DerpMap> relays() {
    static const auto map = [] {
        const auto j = json::parse(R"({"HomeParams":{"RegionScore":{"2":0.5}},"Regions":{
            "1":{"RegionID":1,"RegionCode":"a","Nodes":[{"Name":"1a","RegionID":1,"HostName":"a.test","IPv4":"192.0.2.1","IPv6":"2001:db8::1"},
                                                       {"Name":"1b","RegionID":1,"HostName":"192.0.2.9","STUNPort":3479}]},
            "2":{"RegionID":2,"RegionCode":"b","Nodes":[{"Name":"2a","RegionID":2,"HostName":"b.test","IPv6":"none"}]},
            "3":{"RegionID":3,"RegionCode":"c","NoMeasureNoHome":true,"Nodes":[{"Name":"3a","RegionID":3,"HostName":"c.test","IPv4":"192.0.2.3"}]},
            "900":{"RegionID":900,"RegionCode":"d","Nodes":[{"Name":"900a","RegionID":900,"HostName":"d.test","STUNPort":-1,"IPv4":"192.0.2.4"}]}}})");
        CHECK(j);
        const auto parsed = derp::parse_derp_map(*j);
        CHECK(parsed);
        return std::make_shared<const derp::DerpMap>(*parsed);
    }();
    return map;
}

class Play {
   public:
    explicit Play(WireReader script) : script_(script) {}

    void run() {
        start(0x05);
        while (script_.remaining() > 0) step();
        end();
    }

   private:
    void start(uint8_t how) {
        netcheck::StartOptions o;
        o.map = relays();
        o.wall = WallTime{1'800'000'000LL * 1'000'000'000};
        o.full = (how & 1) != 0;
        o.have_v6 = o.os_has_ipv6 = (how & 2) != 0;
        o.have_v4 = (how & 4) != 0;
        if ((how & 8) != 0) o.force_preferred = how >> 4;
        check_.start(o, now_);
        started_ = now_;
        sent_in_run_ = 0;
        drain();
    }

    void step() {
        const uint8_t op = script_.u8();
        switch (op % 11) {
            case 0: pass(milliseconds(script_.u8() * 4)); break;
            case 1:
            case 2: answer(); break;
            case 3: {
                const size_t n = script_.u8();
                const ByteSpan raw = script_.take(std::min(n, script_.remaining()));
                (void)check_.handle_stun(raw, {*Addr::parse("192.0.2.1"), 3478}, now_);
                break;
            }
            case 4: name(); break;
            case 5:
                if (!sent_.empty()) check_.send_failed(pick().to, now_);
                break;
            case 6: check_.https_latency(script_.u8() % 5, milliseconds(script_.u8()), Addr::Family::kV4, now_); break;
            case 7: check_.https_failed(script_.u8() % 5, now_); break;
            case 8: start(script_.u8()); return;
            case 9: check_.heard_derp(script_.u8() % 5, now_); break;
            default:
                check_.icmp_latency(script_.u8() % 5, milliseconds(script_.u8()), now_);
                check_.set_captive_portal((op & 0x40) != 0);
                check_.set_portmap((op & 0x80) != 0, std::nullopt, true);
                break;
        }
        drain();
    }

    const netcheck::Send& pick() { return sent_[script_.u8() % sent_.size()]; }

    void answer() {
        if (sent_.empty()) return;
        const netcheck::Send& s = pick();
        const auto tx = stun::decode_request(s.datagram);
        CHECK(tx);
        uint8_t out[stun::kMaxResponseLen];
        Endpoint mapped{*Addr::parse("203.0.113.1"), static_cast<uint16_t>(script_.be16())};
        if (script_.u8() % 4 == 0) mapped.addr = *Addr::parse("2001:db8:5::1");
        const size_t n = stun::encode_response(*tx, mapped, out);
        const Endpoint from = script_.u8() % 8 == 0 ? Endpoint{*Addr::parse("198.51.100.1"), 1} : s.to;
        (void)check_.handle_stun(ByteSpan(out, n), from, now_);
    }

    void name() {
        const auto names = check_.names_needed();
        for (size_t i = 0; i < names.size(); ++i) CHECK(std::find(names.begin() + static_cast<std::ptrdiff_t>(i) + 1, names.end(), names[i]) == names.end());
        if (names.empty()) return;
        std::vector<Addr> addrs;
        for (uint8_t n = script_.u8() % 4; n > 0; --n)
            addrs.push_back(n % 2 == 0 ? Addr::v4(192, 0, 2, script_.u8()) : *Addr::parse("2001:db8::7"));
        check_.addresses(names[script_.u8() % names.size()], addrs, now_);
    }

    void pass(Duration d) {
        const Time until = now_ + d;
        for (int turns = 0; check_.next_timeout() <= until; ++turns) {
            CHECK(turns < 1000);  // a timer that does not advance
            now_ = max(now_, check_.next_timeout());
            check_.handle_timeout(now_);
            drain();
        }
        now_ = until;
    }

    void drain() {
        while (const auto s = check_.next_send(now_)) {
            CHECK(s->to.is_valid() && s->to.port != 0 && stun::decode_request(s->datagram));
            CHECK(++sent_in_run_ <= 64);
            if (sent_.size() >= 64) sent_.erase(sent_.begin());
            sent_.push_back(*s);
        }
        for (const int region : check_.take_https_wanted()) CHECK(relays()->region(region) != nullptr);
        if (const auto r = check_.take_report()) check_report(*r);
        if (check_.running()) CHECK(now_ - started_ <= seconds(6));
    }

    void check_report(const netcheck::Report& r) {
        CHECK(!check_.running());
        CHECK(r.preferred_derp == 0 || relays()->region(r.preferred_derp) != nullptr);
        for (const auto* latencies : {&r.region_latency, &r.region_v4_latency, &r.region_v6_latency})
            for (const auto& [region, latency] : *latencies) CHECK(relays()->region(region) != nullptr && latency.ns >= 0);
        CHECK(!r.global_v4.is_valid() || r.global_v4.addr.is_v4());
        CHECK(!r.global_v6.is_valid() || r.global_v6.addr.is_v6());
        CHECK(json::parse(netcheck::format_json(r)) && json::parse(netcheck::format_json_line(r)));
        CHECK(netcheck::format_text(r, *relays(), true).ends_with('\n'));
        CHECK(check_.last_report() != nullptr);
    }

    void end() {
        if (!check_.running()) return;
        pass(seconds(6));
        CHECK(!check_.running() && check_.last_report() != nullptr);
    }

    WireReader script_;
    SeededRandom random_{1};
    netcheck::Netcheck check_{random_};
    Time now_{1'000'000'000'000};
    Time started_;
    size_t sent_in_run_ = 0;
    std::vector<netcheck::Send> sent_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size > 2048) return 0;
    Play(WireReader({data, size})).run();
    return 0;
}
