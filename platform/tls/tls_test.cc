// SPDX-License-Identifier: BSD-3-Clause
#include "platform/tls/tls.h"

#include <cstdlib>
#include <fstream>

#include "platform/test_support.h"
#include "platform/tls/certificate.h"

namespace mesh::platform {
namespace {

using ::testing::HasSubstr;
using testing::self_signed;
using testing::TempFolder;

struct Outcome {
    bool client_ok = false;
    std::string client_error;
    std::string problem;
    std::unique_ptr<TlsSession> client;
    std::unique_ptr<TlsSession> server;
};

/// One handshake in memory, `chunk` bytes at a time.
Outcome shake(std::unique_ptr<TlsSession> client, const CertificateAndKey& cert, const std::vector<Bytes>& extra = {},
              size_t chunk = 100000) {
    Outcome o;
    o.client = std::move(client);
    auto context = TlsServerContext::create(cert.cert_pem, cert.key_pem, extra);
    EXPECT_TRUE(context.has_value()) << (context ? "" : context.error().message());
    auto server = TlsSession::server(*context);
    EXPECT_TRUE(server.has_value());
    o.server = std::move(*server);
    const auto move_bytes = [chunk](TlsSession& from, TlsSession& to, auto&& step) {
        Bytes out;
        from.take_output(out);
        for (size_t at = 0; at < out.size(); at += chunk) {
            to.feed(ByteSpan(out).subspan(at, std::min(chunk, out.size() - at)));
            if (!step()) return;
        }
    };
    for (int i = 0; i < 10 && !(o.client->established() && o.server->established()); ++i) {
        auto c = o.client->handshake();
        if (!c) {
            o.client_error = c.error().message();
            return o;
        }
        move_bytes(*o.client, *o.server, [&] { return o.server->handshake().has_value(); });
        move_bytes(*o.server, *o.client, [&] {
            c = o.client->handshake();
            return c.has_value();
        });
        if (!c) {
            o.client_error = c.error().message();
            return o;
        }
    }
    o.client_ok = o.client->established();
    o.problem = o.client->certificate_problem();
    return o;
}

Outcome shake(TlsClientOptions options, const CertificateAndKey& cert, const std::vector<Bytes>& extra = {}) {
    auto client = TlsSession::client(std::move(options));
    EXPECT_TRUE(client.has_value());
    return shake(std::move(*client), cert, extra);
}

TlsClientOptions options_for(std::string name, TlsVerify verify = TlsVerify::kSystem) {
    TlsClientOptions o;
    o.server_name = std::move(name);
    o.verify = verify;
    return o;
}

TlsClientOptions pinned(std::string name, const CertificateAndKey& cert) {
    auto o = derp_tls_options(name, "sha256-raw:" + hex_encode(cert.sha256), false);
    EXPECT_TRUE(o.has_value());
    return *o;
}

Bytes meta_for(uint8_t fill) {
    NodePublic key;
    key.raw.fill(fill);
    auto der = make_derp_meta(key, read_wall_clock());
    EXPECT_TRUE(der.has_value()) << (der ? "" : der.error().message());
    return *der;
}

TEST(Tls, RefusesASelfSignedCertificateInPlainWords) {
    const auto o = shake(options_for("relay.example"), self_signed({"relay.example"}));
    EXPECT_FALSE(o.client_ok);
    EXPECT_THAT(o.client_error, HasSubstr("self-signed"));
}

TEST(Tls, AcceptsARootThatWasAdded) {
    const auto cert = self_signed({"relay.example"});
    TlsClientOptions opt = options_for("relay.example");
    opt.extra_roots_pem = cert.cert_pem;
    const auto o = shake(opt, cert);
    EXPECT_TRUE(o.client_ok) << o.client_error;
    EXPECT_EQ(o.client->version(), "TLSv1.3");
}

TEST(Tls, HonoursSslCertFile) {
    const TempFolder folder;
    const auto cert = self_signed({"relay.example"});
    std::ofstream(folder.path + "/roots.pem") << cert.cert_pem;
    ::setenv("SSL_CERT_FILE", (folder.path + "/roots.pem").c_str(), 1);
    const auto o = shake(options_for("relay.example"), cert);
    ::unsetenv("SSL_CERT_FILE");
    EXPECT_TRUE(o.client_ok) << o.client_error;
}

TEST(Tls, NamesTheNamesWhenTheNameIsWrong) {
    const auto cert = self_signed({"relay.example", "10.1.2.3"});
    TlsClientOptions opt = options_for("other.example");
    opt.extra_roots_pem = cert.cert_pem;
    const auto o = shake(opt, cert);
    EXPECT_FALSE(o.client_ok);
    EXPECT_THAT(o.client_error, HasSubstr("is for relay.example, 10.1.2.3, not for other.example"));
}

TEST(Tls, ChecksIpAddressesAgainstIpNames) {
    const auto cert = self_signed({"10.1.2.3", "fd00::1"});
    for (const char* name : {"10.1.2.3", "fd00::1"}) {
        TlsClientOptions opt = options_for(name);
        opt.extra_roots_pem = cert.cert_pem;
        EXPECT_TRUE(shake(opt, cert).client_ok) << name;
    }
    TlsClientOptions opt = options_for("10.1.2.4");
    opt.extra_roots_pem = cert.cert_pem;
    EXPECT_FALSE(shake(opt, cert).client_ok);
}

TEST(Tls, VerifiesForAnotherNameWhenTold) {
    const auto cert = self_signed({"front.example"});
    auto opt = derp_tls_options("relay.example", "front.example", false);
    ASSERT_TRUE(opt.has_value());
    EXPECT_EQ(opt->server_name, "relay.example");
    opt->extra_roots_pem = cert.cert_pem;
    EXPECT_TRUE(shake(*opt, cert).client_ok);
    opt->verify_name.clear();
    EXPECT_FALSE(shake(*opt, cert).client_ok);
}

TEST(Tls, SaysWhenACertificateHasExpiredOrIsNotYetValid) {
    const auto old = self_signed({"relay.example"}, minutes(120), minutes(-60));
    TlsClientOptions opt = options_for("relay.example");
    opt.extra_roots_pem = old.cert_pem;
    EXPECT_THAT(shake(opt, old).client_error, HasSubstr("expired on"));
    EXPECT_THAT(shake(pinned("relay.example", old), old).client_error, HasSubstr("expired on"));
    const auto early = self_signed({"relay.example"}, minutes(-60), minutes(120));
    opt.extra_roots_pem = early.cert_pem;
    EXPECT_THAT(shake(opt, early).client_error, HasSubstr("not valid before"));
    EXPECT_THAT(shake(pinned("relay.example", early), early).client_error, HasSubstr("not valid before"));
}

TEST(Tls, InsecureAcceptsAnything) {
    const auto o = shake(options_for("x.example", TlsVerify::kInsecure), self_signed({"y"}, minutes(120), minutes(-60)));
    EXPECT_TRUE(o.client_ok) << o.client_error;
}

TEST(Tls, WarnAcceptsAndRemembersTheProblem) {
    const auto o = shake(options_for("relay.example", TlsVerify::kWarn), self_signed({"relay.example"}));
    EXPECT_TRUE(o.client_ok) << o.client_error;
    EXPECT_THAT(o.problem, HasSubstr("self-signed"));
}

TEST(Tls, PinAcceptsThatCertificateWithAndWithoutMetaCertificate) {
    const auto cert = self_signed({"192.0.2.7"});
    EXPECT_TRUE(shake(pinned("192.0.2.7", cert), cert).client_ok);
    const auto o = shake(pinned("192.0.2.7", cert), cert, {meta_for(7)});
    EXPECT_TRUE(o.client_ok) << o.client_error;
}

TEST(Tls, PinRefusesAnotherCertificateAnotherNameOrASecondCertificate) {
    const auto cert = self_signed({"192.0.2.7"});
    const auto other = self_signed({"192.0.2.7"});
    EXPECT_THAT(shake(pinned("192.0.2.7", cert), other).client_error, HasSubstr("fingerprint " + hex_encode(other.sha256)));
    EXPECT_THAT(shake(pinned("192.0.2.8", cert), cert).client_error, HasSubstr("not for 192.0.2.8"));
    EXPECT_THAT(shake(pinned("192.0.2.7", cert), cert, {*pem_to_der(other.cert_pem)}).client_error,
                HasSubstr("exactly one certificate"));
    EXPECT_TRUE(shake(pinned("", cert), cert).client_ok);  // no server name was used: names are not compared
}

TEST(Tls, RejectsAMalformedPin) {
    EXPECT_FALSE(derp_tls_options("h", "sha256-raw:abcd", false).has_value());
    EXPECT_EQ(derp_tls_options("h", "", true)->verify, TlsVerify::kInsecure);
}

TEST(Tls, CarriesBytesBothWaysInAnySplit) {
    const auto cert = self_signed({"relay.example"});
    for (const size_t chunk : {size_t{1}, size_t{7}, size_t{100000}}) {
        auto client = TlsSession::client(options_for("relay.example", TlsVerify::kInsecure));
        auto o = shake(std::move(*client), cert, {}, chunk);
        ASSERT_TRUE(o.client_ok) << o.client_error;
        const std::string text(100'000, 'q');
        ASSERT_TRUE(o.client->write(as_bytes(text)).has_value());
        o.client->close_notify();
        Bytes wire;
        o.client->take_output(wire);
        std::string got;
        for (size_t at = 0; at < wire.size(); at += chunk) {
            o.server->feed(ByteSpan(wire).subspan(at, std::min(chunk, wire.size() - at)));
            uint8_t buffer[4096];
            for (;;) {
                const auto n = o.server->read(buffer);
                ASSERT_TRUE(n.has_value());
                if (*n == 0) break;
                got += as_text(ByteSpan(buffer, *n));
            }
        }
        EXPECT_EQ(got, text);
        EXPECT_TRUE(o.server->ended());
    }
}

TEST(Tls, TellsACutFromACleanEnd) {
    auto client = TlsSession::client(options_for("relay.example", TlsVerify::kInsecure));
    auto o = shake(std::move(*client), self_signed({"relay.example"}));
    ASSERT_TRUE(o.client_ok);
    o.server->feed_eof();
    uint8_t buffer[16];
    const auto n = o.server->read(buffer);
    ASSERT_FALSE(n.has_value());
    EXPECT_THAT(n.error().message(), HasSubstr("cut"));
}

TEST(Tls, SaysWhenTheOtherSideSpeaksNoTls) {
    auto client = TlsSession::client(options_for("relay.example", TlsVerify::kInsecure));
    ASSERT_TRUE((*client)->handshake().has_value());
    (*client)->feed(as_bytes("HTTP/1.1 400 Bad Request\r\n\r\n"));
    const auto done = (*client)->handshake();
    ASSERT_FALSE(done.has_value());
    EXPECT_THAT(done.error().message(), HasSubstr("does not speak TLS"));
}

TEST(Tls, AgreesOnHttp11) {
    TlsClientOptions opt = options_for("relay.example", TlsVerify::kInsecure);
    opt.alpn = {"h2", "http/1.1"};
    EXPECT_EQ(shake(opt, self_signed({"relay.example"})).client->alpn(), "http/1.1");
}

TEST(Certificate, MetaCertificateCarriesKeyAndVersionThroughAChain) {
    const auto cert = self_signed({"192.0.2.7"});
    const auto o = shake(pinned("192.0.2.7", cert), cert, {meta_for(0xAB)});
    ASSERT_TRUE(o.client_ok);
    const auto chain = o.client->peer_chain();
    ASSERT_EQ(chain.size(), 2U);
    EXPECT_EQ(certificate_sha256(chain[0]), cert.sha256);
    EXPECT_FALSE(is_derp_meta(chain[0]));
    EXPECT_TRUE(is_derp_meta(chain[1]));
    const auto meta = find_derp_meta(chain);
    ASSERT_TRUE(meta.has_value());
    EXPECT_EQ(meta->version, kDerpMetaVersion);
    EXPECT_EQ(meta->server_key.raw[31], 0xAB);
    EXPECT_FALSE(find_derp_meta({chain[0]}).has_value());
    EXPECT_FALSE(find_derp_meta({Bytes{1, 2, 3}}).has_value());
}

TEST(Certificate, RefusesNamesThatCouldSmuggleExtensions) {
    SelfSignedOptions o;
    o.now = read_wall_clock();
    EXPECT_FALSE(make_self_signed(o).has_value());
    o.names = {"a,DNS:b"};
    EXPECT_FALSE(make_self_signed(o).has_value());
}

TEST(TlsServerContext, SaysWhenKeyAndCertificateDoNotBelongTogether) {
    const auto a = self_signed({"a"});
    const auto b = self_signed({"b"});
    const auto bad = TlsServerContext::create(a.cert_pem, b.key_pem);
    ASSERT_FALSE(bad.has_value());
    EXPECT_THAT(bad.error().message(), HasSubstr("does not belong"));
    EXPECT_FALSE(TlsServerContext::create("nonsense", a.key_pem).has_value());
    EXPECT_FALSE(TlsServerContext::load("/nonexistent", "/nonexistent").has_value());
}

}  // namespace
}  // namespace mesh::platform
