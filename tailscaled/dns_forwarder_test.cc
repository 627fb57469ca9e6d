// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/dns_forwarder.h"

#include <gtest/gtest.h>

#include "base/dns_message.h"
#include "platform/net/udp_socket.h"
#include "platform/test_support.h"
#include "tailscaled/dns_tcp.h"

namespace mesh::daemon {
namespace {

using platform::testing::turn_until;

/// A name server on the loopback address: answers by UDP, TCP or not at all.
class Server final : public platform::UdpSocket::Listener {
   public:
    Server(platform::Loop& loop, uint8_t host) : addr_(Addr::v4(127, 0, 0, host)) {
        platform::UdpSocket::Options options;
        options.bind_addr = addr_;
        options.protect = platform::Protect::kNo;
        options.bulk = false;
        udp_ = *platform::UdpSocket::open(options);
        udp_->attach(loop, *this);
    }
    void on_datagrams(std::span<UdpReceive> batch) override {
        for (const UdpReceive& r : batch) {
            ++asked;
            Bytes reply;
            dns::Query q;
            if (silent || dns::parse_query(r.bytes, q) != dns::QueryError::kNone) continue;
            if (truncate)
                reply = dns::truncated_reply(q, dns::error_reply(q, dns::kNoError));
            else if (rcode != dns::kNoError)
                reply = dns::error_reply(q, rcode);
            else
                reply = answer(q);
            if (forged) {
                // Guesses first, for an address of the guesser's: a wrong ID, another question.
                Bytes bad = answer(q, Addr::v4(127, 66, 66, 66));
                const Bytes other = bad;
                bad[0] = static_cast<uint8_t>(bad[0] ^ 0xFF);
                udp_->send(r.from, bad);
                bad = other;
                bad[13] = static_cast<uint8_t>(bad[13] ^ 0x01);
                udp_->send(r.from, bad);
            }
            udp_->send(r.from, reply);
        }
    }
    void on_send_error(const Endpoint&, int) override {}
    [[nodiscard]] Bytes answer(const dns::Query& q) const { return answer(q, addr_); }
    [[nodiscard]] Bytes answer(const dns::Query& q, const Addr& address) const {
        dns::Reply reply(q, dns::kNoError, false);
        for (size_t i = 0; i < records; ++i) reply.add_address(address, 60);
        return reply.finish();
    }
    [[nodiscard]] dns::Upstream upstream() const { return *dns::parse_upstream(Endpoint{addr_, udp_->local_port()}.str(), {}); }

    size_t asked = 0, records = 1;
    bool silent = false, truncate = false, forged = false;
    dns::Rcode rcode = dns::kNoError;

   private:
    Addr addr_;
    std::unique_ptr<platform::UdpSocket> udp_;
};

class ForwarderTest : public ::testing::Test {
   protected:
    /// Asks and waits; the reply's first record or the word for its code.
    std::string ask(std::string_view name, DnsForwarder::Client client = DnsForwarder::Client::kUdp, bool edns = true) {
        Bytes query = dns::make_query(0x4242, name, dns::kTypeA);
        if (!edns) {
            query.resize(query.size() - 11);
            store_be16(query.data() + 10, 0);
        }
        std::optional<Bytes> got;
        const Time began = loop.now();
        forwarder.ask(query, client, [&](Bytes reply) { got = std::move(reply); });
        if (!turn_until(loop, [&] { return got.has_value(); })) return "silence";
        took = loop.now() - began;
        last = *got;
        const auto m = dns::parse_message(*got);
        if (!m || m->header.id != 0x4242) return "broken";
        if (m->header.truncated) return "truncated";
        if (m->header.rcode != dns::kNoError) return m->header.rcode == dns::kServFail ? "SERVFAIL" : m->header.rcode == dns::kRefused ? "REFUSED" : "other";
        return m->answers.empty() ? "empty" : dns::data_text(*got, m->answers[0]);
    }
    void route(std::vector<dns::Upstream> servers, std::string_view suffix = "") {
        routes.set(suffix, std::move(servers));
        forwarder.set_routes(routes, nullptr);
    }

    platform::Loop loop;
    platform::Resolver resolver{loop, {}};
    platform::Dialer dialer{loop, resolver};
    platform::HttpClient http{loop, resolver};
    SeededRandom random{1};
    DnsForwarder forwarder{loop, dialer, http, random};
    dns::Routes routes;
    Server a{loop, 1}, b{loop, 2};
    Bytes last;
    Duration took;
};

TEST_F(ForwarderTest, ByTheLongestSuffix) {
    route({a.upstream()});
    route({b.upstream()}, "corp.example");
    EXPECT_EQ(ask("www.example.org"), "127.0.0.1");
    EXPECT_EQ(ask("Wiki.CORP.example"), "127.0.0.2");
    EXPECT_EQ(a.asked, 1U);
    EXPECT_EQ(forwarder.outstanding(), 0U);
}

TEST_F(ForwarderTest, ADeadServerBesideALivingOneCostsNothing) {
    a.silent = true;
    route({a.upstream(), b.upstream()});
    EXPECT_EQ(ask("www.example.org"), "127.0.0.2");
    EXPECT_LT(took, seconds(1)) << "before anything is asked again";
    EXPECT_FALSE(forwarder.failing());
}

TEST_F(ForwarderTest, SilenceBecomesServfailBeforeAClientGivesUp) {
    a.silent = true;
    route({a.upstream()});
    EXPECT_EQ(ask("www.example.org"), "SERVFAIL");
    EXPECT_LT(took, seconds(5));
    EXPECT_EQ(a.asked, 2U) << "asked once more";
}

TEST_F(ForwarderTest, FailuresWaitForABetterAnswer) {
    a.rcode = dns::kServFail;
    route({a.upstream(), b.upstream()});
    EXPECT_EQ(ask("www.example.org"), "127.0.0.2");
    b.rcode = dns::kRefused;
    EXPECT_EQ(ask("www.example.org"), "SERVFAIL");
    a.rcode = dns::kRefused;
    EXPECT_EQ(ask("www.example.org"), "REFUSED");
}

TEST_F(ForwarderTest, NobodyToAskIsServfailAtOnce) {
    EXPECT_EQ(ask("www.example.org"), "SERVFAIL");
    route({}, "corp.example");
    route({a.upstream()});
    EXPECT_EQ(ask("x.corp.example"), "SERVFAIL") << "not the next best server: that name is nobody else's business";
    EXPECT_EQ(a.asked, 0U);
}

TEST_F(ForwarderTest, GuessedAnswersAreNotTaken) {
    a.forged = true;
    route({a.upstream()});
    EXPECT_EQ(ask("www.example.org"), "127.0.0.1");
}

TEST_F(ForwarderTest, LongAnswersSendUdpClientsToTcp) {
    a.records = 40;
    route({a.upstream()});
    EXPECT_EQ(ask("www.example.org"), "127.0.0.1");
    EXPECT_EQ(ask("www.example.org", DnsForwarder::Client::kUdp, false), "truncated");
    EXPECT_LE(last.size(), dns::kPlainUdpBytes);
    EXPECT_EQ(ask("www.example.org", DnsForwarder::Client::kTcp, false), "127.0.0.1");
}

TEST_F(ForwarderTest, ATruncatedAnswerIsFetchedByTcpForTcpClients) {
    Server c(loop, 3);
    // Our own server for DNS over TCP stands for the other side's, on the same port as its UDP.
    auto tcp = *DnsTcp::start(loop, "", [&](ByteSpan query, const DnsTcp::Reply& reply) {
        dns::Query q;
        ASSERT_EQ(dns::parse_query(query, q), dns::QueryError::kNone);
        reply(c.answer(q));
    });
    platform::UdpSocket::Options options;
    options.bind_addr = Addr::v4(127, 0, 0, 4);
    options.port = tcp->port();
    options.exact_port = true;
    options.protect = platform::Protect::kNo;
    options.bulk = false;
    auto udp = *platform::UdpSocket::open(options);
    struct Truncating final : platform::UdpSocket::Listener {
        platform::UdpSocket* socket = nullptr;
        void on_datagrams(std::span<UdpReceive> batch) override {
            for (const UdpReceive& r : batch) {
                dns::Query q;
                if (dns::parse_query(r.bytes, q) == dns::QueryError::kNone) socket->send(r.from, dns::truncated_reply(q, dns::error_reply(q, dns::kNoError)));
            }
        }
        void on_send_error(const Endpoint&, int) override {}
    } listener;
    listener.socket = udp.get();
    udp->attach(loop, listener);
    route({*dns::parse_upstream(Endpoint{Addr::v4(127, 0, 0, 4), tcp->port()}.str(), {})});
    EXPECT_EQ(ask("www.example.org"), "truncated") << "a UDP client comes back by itself";
    EXPECT_EQ(ask("www.example.org", DnsForwarder::Client::kTcp), "127.0.0.3");
}

TEST_F(ForwarderTest, AtMostSoManyAtOnceAndTheRestHearsSoAtOnce) {
    a.silent = true;
    route({a.upstream()});
    size_t answered = 0;
    for (size_t i = 0; i < DnsForwarder::kMaxOutstanding + 10; ++i)
        forwarder.ask(dns::make_query(1, "n" + std::to_string(i) + ".example.org", dns::kTypeA), DnsForwarder::Client::kUdp, [&](const Bytes&) { ++answered; });
    EXPECT_EQ(forwarder.outstanding(), DnsForwarder::kMaxOutstanding);
    EXPECT_EQ(answered, 10U);
    EXPECT_TRUE(turn_until(loop, [&] { return forwarder.outstanding() == 0; }));
    EXPECT_EQ(answered, DnsForwarder::kMaxOutstanding + 10);
}

TEST_F(ForwarderTest, ACircleIsCut) {
    // A server that asks us again for what we ask it.
    a.silent = true;
    route({a.upstream()});
    size_t answered = 0;
    for (int i = 0; i < 50; ++i)
        forwarder.ask(dns::make_query(1, "www.example.org", dns::kTypeA), DnsForwarder::Client::kUdp, [&](const Bytes&) { ++answered; });
    EXPECT_EQ(forwarder.outstanding(), DnsForwarder::kMaxSame);
    EXPECT_EQ(answered, 50 - DnsForwarder::kMaxSame);
}

}  // namespace
}  // namespace mesh::daemon
