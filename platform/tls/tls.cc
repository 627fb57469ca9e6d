// SPDX-License-Identifier: BSD-3-Clause
#include "platform/tls/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/ip.h"
#include "base/log.h"
#include "platform/file.h"
#include "platform/spare_buffer.h"
#include "platform/tls/openssl.h"

namespace mesh::platform {
namespace {

using namespace openssl;

constexpr size_t kMaxPemBytes = size_t{1} << 20;
constexpr std::string_view kPinPrefix = "sha256-raw:";

/// ALPN wire form: length-prefixed names. "" if one does not fit.
std::string alpn_wire(const std::vector<std::string>& names) {
    std::string out;
    for (const std::string& n : names) {
        if (n.empty() || n.size() > 255) return "";
        out.push_back(static_cast<char>(n.size()));
        out += n;
    }
    return out;
}

void common_settings(SSL_CTX* ctx) {
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
}

int select_alpn(SSL*, const unsigned char** out, unsigned char* out_len, const unsigned char* in, unsigned in_len,
                void*) {
    static constexpr unsigned char kHttp1[] = "\x08http/1.1";
    unsigned char* chosen = nullptr;
    const int rc = SSL_select_next_proto(&chosen, out_len, kHttp1, sizeof kHttp1 - 1, in, in_len);
    *out = chosen;
    // RFC 7301 wants an alert here; a client that offers only something else still gets its bytes, without a promise.
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/// Ciphertext in and out, with no copy beside those OpenSSL makes itself.
struct Wire {
    Bytes kept;  // [kept_at, end): comes before `lent`
    size_t kept_at = 0;
    ByteSpan lent;
    bool ended = false;
    Bytes out;

    [[nodiscard]] bool empty() const { return kept_at == kept.size() && lent.empty(); }

    size_t read(MutByteSpan to) {
        size_t n = std::min(to.size(), kept.size() - kept_at);
        if (n > 0) {
            std::memcpy(to.data(), kept.data() + kept_at, n);
            kept_at += n;
            if (kept_at == kept.size()) {
                Bytes().swap(kept);
                kept_at = 0;
            }
            return n;
        }
        n = std::min(to.size(), lent.size());
        if (n > 0) std::memcpy(to.data(), lent.data(), n);
        lent = lent.subspan(n);
        return n;
    }

    void settle() {
        kept.insert(kept.end(), lent.begin(), lent.end());
        lent = {};
    }
};

Wire& wire_of(BIO* bio) { return *static_cast<Wire*>(BIO_get_data(bio)); }

int wire_read(BIO* bio, char* to, size_t len, size_t* done) {
    Wire& w = wire_of(bio);
    BIO_clear_retry_flags(bio);
    *done = w.read(MutByteSpan(reinterpret_cast<uint8_t*>(to), len));
    if (*done == 0 && !w.ended) BIO_set_retry_read(bio);
    return *done > 0 ? 1 : 0;
}

int wire_write(BIO* bio, const char* from, size_t len, size_t* done) {
    Bytes& out = wire_of(bio).out;
    borrow_memory(out);
    const auto* bytes = reinterpret_cast<const uint8_t*>(from);
    out.insert(out.end(), bytes, bytes + len);
    *done = len;
    return 1;
}

long wire_control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_EOF) return wire_of(bio).ended && wire_of(bio).empty() ? 1 : 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO* new_wire(Wire& wire) {
    static BIO_METHOD* const method = [] {
        BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
        CHECK(m != nullptr);
        BIO_meth_set_read_ex(m, wire_read);
        BIO_meth_set_write_ex(m, wire_write);
        BIO_meth_set_ctrl(m, wire_control);
        return m;
    }();
    BIO* bio = BIO_new(method);
    if (bio == nullptr) return nullptr;
    BIO_set_data(bio, &wire);
    BIO_set_init(bio, 1);
    return bio;
}

}  // namespace

Result<TlsClientOptions> derp_tls_options(std::string_view host_name, std::string_view cert_name,
                                          bool insecure_for_tests) {
    TlsClientOptions o;
    o.server_name = std::string(host_name);
    if (cert_name.starts_with(kPinPrefix)) {
        o.verify = TlsVerify::kPin;
        if (!hex_decode(cert_name.substr(kPinPrefix.size()), o.pin_sha256))
            return fail(Code::kInvalid, "CertName " + log::printable(cert_name) + " is not sha256-raw: and 64 hex digits");
    } else if (!cert_name.empty()) {
        o.verify_name = std::string(cert_name);
        if (o.server_name.empty()) o.server_name = o.verify_name;
    }
    if (insecure_for_tests) o.verify = TlsVerify::kInsecure;
    return o;
}

// ---- TlsServerContext

TlsServerContext::~TlsServerContext() { SSL_CTX_free(ctx_); }

Result<std::shared_ptr<const TlsServerContext>> TlsServerContext::create(std::string_view cert_chain_pem,
                                                                         std::string_view key_pem,
                                                                         const std::vector<Bytes>& extra_chain_der) {
    ERR_clear_error();
    if (cert_chain_pem.size() > kMaxPemBytes || key_pem.size() > kMaxPemBytes)
        return fail(Code::kLimit, "TLS certificate or key is too large");
    CtxPtr ctx(SSL_CTX_new(TLS_server_method()));
    if (!ctx) return fail(Code::kInternal, "TLS: " + last_error());
    common_settings(ctx.get());
    SSL_CTX_set_mode(ctx.get(), SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_num_tickets(ctx.get(), 0);
    SSL_CTX_set_options(ctx.get(), SSL_OP_NO_TICKET);
    SSL_CTX_set_alpn_select_cb(ctx.get(), select_alpn, nullptr);

    const BioPtr certs = memory_bio(cert_chain_pem);
    const X509Ptr leaf(PEM_read_bio_X509(certs.get(), nullptr, nullptr, nullptr));
    if (!leaf) return fail(Code::kInvalid, "TLS certificate: " + last_error());
    if (SSL_CTX_use_certificate(ctx.get(), leaf.get()) != 1)
        return fail(Code::kInvalid, "TLS certificate: " + last_error());
    while (const X509Ptr next{PEM_read_bio_X509(certs.get(), nullptr, nullptr, nullptr)})
        if (SSL_CTX_add1_chain_cert(ctx.get(), next.get()) != 1)
            return fail(Code::kInvalid, "TLS certificate chain: " + last_error());
    ERR_clear_error();
    for (const Bytes& der : extra_chain_der) {
        const X509Ptr extra = parse_der(der);
        if (!extra || SSL_CTX_add1_chain_cert(ctx.get(), extra.get()) != 1)
            return fail(Code::kInvalid, "TLS extra certificate: " + last_error());
    }
    const BioPtr key_bio = memory_bio(key_pem);
    const KeyPtr key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
    if (!key) return fail(Code::kInvalid, "TLS key: " + last_error());
    if (SSL_CTX_use_PrivateKey(ctx.get(), key.get()) != 1 || SSL_CTX_check_private_key(ctx.get()) != 1)
        return fail(Code::kInvalid, "TLS key does not belong to the certificate: " + last_error());
    return std::shared_ptr<const TlsServerContext>(new TlsServerContext(ctx.release()));
}

Result<std::shared_ptr<const TlsServerContext>> TlsServerContext::load(const std::string& cert_path,
                                                                       const std::string& key_path,
                                                                       const std::vector<Bytes>& extra_chain_der) {
    TRY_ASSIGN(const std::string cert, read_file(cert_path, kMaxPemBytes));
    TRY_ASSIGN(std::string key, read_file(key_path, kMaxPemBytes));
    auto out = create(cert, key, extra_chain_der);
    OPENSSL_cleanse(key.data(), key.size());
    if (!out) return tl::unexpected(std::move(out.error()).with(cert_path));
    return out;
}

// ---- TlsSession

struct TlsSession::State {
    // Of a client only, and apart: a relay holds thousands of these.
    struct ClientSide {
        Verifier verifier;  // before the context that points to it
        CtxPtr ctx;
    };
    std::unique_ptr<ClientSide> client;
    std::shared_ptr<const TlsServerContext> server;
    Wire wire;  // before the session that points to it
    SslPtr ssl;
    bool established = false;
    bool ended = false;

    Status open(SSL_CTX* from) {
        ssl.reset(SSL_new(from));
        BIO* bio = ssl ? new_wire(wire) : nullptr;
        if (bio == nullptr) return fail(Code::kInternal, "TLS: " + last_error());
        SSL_set_bio(ssl.get(), bio, bio);
        return {};
    }

    Error explain(int ssl_error) {
        const unsigned long code = ERR_peek_last_error();
        const int reason = ERR_GET_REASON(code);
        const bool from_ssl = ERR_GET_LIB(code) == ERR_LIB_SSL;
        if (client && !client->verifier.problem.empty() && from_ssl && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
            ERR_clear_error();
            return {Code::kDenied, 0, "TLS: " + client->verifier.problem};
        }
        if (ssl_error == SSL_ERROR_SYSCALL ||
            (from_ssl && reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)) {
            ERR_clear_error();
            return {Code::kUnavailable, 0,
                    established ? "the connection was cut" : "TLS: the other side closed during the handshake"};
        }
        std::string text = last_error();
        if (from_ssl && (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
                         reason == SSL_R_PACKET_LENGTH_TOO_LONG) && !established)
            return {Code::kUnsupported, 0, "TLS: the other side does not speak TLS on this port (" + text + ")"};
        // Reasons from 1000 on are alerts the other side sent.
        if (from_ssl && reason >= SSL_AD_REASON_OFFSET)
            return {Code::kDenied, 0, "TLS: the other side refused (" + text + ")"};
        return {Code::kInvalid, 0, "TLS: " + text};
    }
};

TlsSession::TlsSession(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsSession::~TlsSession() = default;

Result<std::unique_ptr<TlsSession>> TlsSession::client(TlsClientOptions options) {
    ERR_clear_error();
    if ((options.verify == TlsVerify::kSystem || options.verify == TlsVerify::kWarn) && options.server_name.empty() &&
        options.verify_name.empty())
        return fail(Code::kInvalid, "TLS: no name to check the certificate against");
    auto s = std::make_unique<State>();
    s->client = std::make_unique<State::ClientSide>();
    s->client->verifier.options = std::move(options);
    const TlsClientOptions& o = s->client->verifier.options;
    SSL_CTX* ctx = SSL_CTX_new(TLS_client_method());
    s->client->ctx.reset(ctx);
    if (ctx == nullptr) return fail(Code::kInternal, "TLS: " + last_error());
    common_settings(ctx);
    s->client->verifier.install(ctx);
    TRY(s->open(ctx));
    SSL_set_connect_state(s->ssl.get());
    std::string sni = o.server_name;
    if (sni.ends_with('.')) sni.pop_back();
    // SSL_set_tlsext_host_name() without the cast to void* its macro makes.
    if (!sni.empty() && !Addr::parse(sni) &&
        SSL_ctrl(s->ssl.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, sni.data()) != 1)
        return fail(Code::kInvalid, "TLS: bad server name: " + last_error());
    if (!o.alpn.empty()) {
        const std::string wire = alpn_wire(o.alpn);
        if (wire.empty() || SSL_set_alpn_protos(s->ssl.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                                                static_cast<unsigned>(wire.size())) != 0)
            return fail(Code::kInvalid, "TLS: bad ALPN list");
    }
    return std::unique_ptr<TlsSession>(new TlsSession(std::move(s)));
}

Result<std::unique_ptr<TlsSession>> TlsSession::server(std::shared_ptr<const TlsServerContext> context) {
    ERR_clear_error();
    auto s = std::make_unique<State>();
    s->server = std::move(context);
    TRY(s->open(s->server->get()));
    SSL_set_accept_state(s->ssl.get());
    return std::unique_ptr<TlsSession>(new TlsSession(std::move(s)));
}

void TlsSession::feed(ByteSpan ciphertext) {
    lend(ciphertext);
    settle();
}

void TlsSession::lend(ByteSpan ciphertext) {
    settle();
    state_->wire.lent = ciphertext;
}

void TlsSession::settle() { state_->wire.settle(); }

void TlsSession::feed_eof() { state_->wire.ended = true; }

Result<bool> TlsSession::handshake() {
    if (state_->established) return true;
    ERR_clear_error();
    const int rc = SSL_do_handshake(state_->ssl.get());
    if (rc == 1) {
        state_->established = true;
        return true;
    }
    const int error = SSL_get_error(state_->ssl.get(), rc);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return false;
    return tl::unexpected(state_->explain(error));
}

bool TlsSession::established() const { return state_->established; }

Result<size_t> TlsSession::read(MutByteSpan out) {
    if (state_->ended || out.empty()) return size_t{0};
    ERR_clear_error();
    size_t n = 0;
    if (SSL_read_ex(state_->ssl.get(), out.data(), out.size(), &n) == 1) return n;
    const int error = SSL_get_error(state_->ssl.get(), 0);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return size_t{0};
    if (error == SSL_ERROR_ZERO_RETURN) {
        state_->ended = true;
        return size_t{0};
    }
    return tl::unexpected(state_->explain(error));
}

bool TlsSession::ended() const { return state_->ended; }

Status TlsSession::write(ByteSpan plain) {
    CHECK(state_->established);
    ERR_clear_error();
    while (!plain.empty()) {
        size_t n = 0;
        if (SSL_write_ex(state_->ssl.get(), plain.data(), plain.size(), &n) != 1)
            return tl::unexpected(state_->explain(SSL_get_error(state_->ssl.get(), 0)));
        plain = plain.subspan(n);
    }
    return {};
}

void TlsSession::close_notify() {
    if (!state_->established) return;
    ERR_clear_error();
    SSL_shutdown(state_->ssl.get());
    ERR_clear_error();
}

size_t TlsSession::output_size() const { return state_->wire.out.size(); }

size_t TlsSession::take_output(Bytes& out) {
    Bytes& made = state_->wire.out;
    const size_t n = made.size();
    if (out.empty()) {
        out.swap(made);
    } else {
        out.insert(out.end(), made.begin(), made.end());
        return_memory(made);
    }
    return n;
}

std::string TlsSession::version() const { return SSL_get_version(state_->ssl.get()); }

std::string TlsSession::alpn() const {
    const unsigned char* p = nullptr;
    unsigned n = 0;
    SSL_get0_alpn_selected(state_->ssl.get(), &p, &n);
    return n == 0 ? std::string() : std::string(reinterpret_cast<const char*>(p), n);
}

std::vector<Bytes> TlsSession::peer_chain() const {
    std::vector<Bytes> out;
    STACK_OF(X509)* chain = SSL_get_peer_cert_chain(state_->ssl.get());
    for (int i = 0; i < sk_X509_num(chain); ++i) out.push_back(to_der(sk_X509_value(chain, i)));
    return out;
}

const std::string& TlsSession::certificate_problem() const {
    static const std::string none;
    return state_->client ? state_->client->verifier.problem : none;
}

}  // namespace mesh::platform
