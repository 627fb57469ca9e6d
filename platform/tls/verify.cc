// SPDX-License-Identifier: BSD-3-Clause
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>

#include "base/ip.h"
#include "base/log.h"
#include "platform/fd.h"
#include "platform/tls/certificate.h"
#include "platform/tls/openssl.h"

namespace mesh::platform::openssl {
namespace {

constexpr unsigned kHostFlags = X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
constexpr size_t kMaxNamesShown = 6;

/// Where distributions keep the bundle, for an OpenSSL whose built-in paths lead nowhere.
constexpr const char* kBundles[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                    "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};

std::string date(const ASN1_TIME* t) {
    tm parts{};
    if (t == nullptr || ASN1_TIME_to_tm(t, &parts) != 1) return "an unreadable date";
    char text[32];
    const size_t n = std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
    return std::string(text, n);
}

std::string expired(X509* cert) {
    return "its certificate expired on " + date(X509_get0_notAfter(cert)) + " (is this machine's clock right?)";
}
std::string not_yet(X509* cert) {
    return "its certificate is not valid before " + date(X509_get0_notBefore(cert)) +
           " (is this machine's clock right?)";
}

std::string names_of(X509* cert) {
    const NamesPtr names(
        static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(cert, NID_subject_alt_name, nullptr, nullptr)));
    std::string out;
    size_t shown = 0;
    const int count = names ? sk_GENERAL_NAME_num(names.get()) : 0;
    for (int i = 0; i < count; ++i) {
        const GENERAL_NAME* n = sk_GENERAL_NAME_value(names.get(), i);
        std::string text;
        if (n->type == GEN_DNS) {
            text.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(n->d.dNSName)),
                        static_cast<size_t>(ASN1_STRING_length(n->d.dNSName)));
        } else if (n->type == GEN_IPADD) {
            const unsigned char* p = ASN1_STRING_get0_data(n->d.iPAddress);
            const int len = ASN1_STRING_length(n->d.iPAddress);
            if (len == 4) text = Addr::v4_bytes(p).str();
            if (len == 16) text = Addr::v6_bytes(p, false).str();
        }
        if (text.empty()) continue;
        if (shown++ == kMaxNamesShown) {
            out += ", …";
            break;
        }
        if (!out.empty()) out += ", ";
        out += log::printable(text, 100);
    }
    if (!out.empty()) return out;
    const std::string cn = common_name(cert);
    return cn.empty() ? "no name at all" : "no name (only the old-style common name " + log::printable(cn, 100) + ")";
}

/// "" if the certificate is for `name`, a DNS name or an IP literal.
std::string name_problem(X509* cert, std::string name) {
    if (name.ends_with('.')) name.pop_back();
    const bool good = Addr::parse(name) ? X509_check_ip_asc(cert, name.c_str(), 0) == 1
                                        : X509_check_host(cert, name.data(), name.size(), kHostFlags, nullptr) == 1;
    if (good) return "";
    return "its certificate is for " + names_of(cert) + ", not for " + log::printable(name, 100);
}

std::string chain_problem(int code, X509* at) {
    switch (code) {
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
            return "its certificate is self-signed and not trusted by this system";
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
            return "its certificate comes from an authority this system does not trust (" +
                   log::printable(common_name(at), 100) + ")";
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: {
            char issuer[200] = "";
            if (at != nullptr) X509_NAME_oneline(X509_get_issuer_name(at), issuer, sizeof issuer);
            return "its certificate chain is incomplete (the server must send the intermediate certificate) or its "
                   "authority is not trusted by this system; missing: " +
                   log::printable(issuer, 200);
        }
        case X509_V_ERR_CERT_HAS_EXPIRED:
            return expired(at);
        case X509_V_ERR_CERT_NOT_YET_VALID:
            return not_yet(at);
        default:
            return std::string("its certificate was refused: ") + X509_verify_cert_error_string(code);
    }
}

StorePtr system_store(const std::string& extra_pem) {
    StorePtr store(X509_STORE_new());
    if (!store) return store;
    X509_STORE_set_default_paths(store.get());
    const char* file = std::getenv("SSL_CERT_FILE");
    const char* dir = std::getenv("SSL_CERT_DIR");
    const bool chosen = (file != nullptr && *file != '\0') || (dir != nullptr && *dir != '\0');
    if (!chosen && ::access(X509_get_default_cert_file(), R_OK) != 0 &&
        ::access(X509_get_default_cert_dir(), R_OK) != 0) {
        for (const char* bundle : kBundles)
            if (X509_STORE_load_file(store.get(), bundle) == 1) break;
    }
    if (!extra_pem.empty()) {
        const BioPtr bio = memory_bio(extra_pem);
        while (const X509Ptr cert{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)})
            X509_STORE_add_cert(store.get(), cert.get());
    }
    ERR_clear_error();
    return store;
}

std::string check_chain(const TlsClientOptions& options, X509* leaf, STACK_OF(X509) * untrusted) {
    const StorePtr store = system_store(options.extra_roots_pem);
    const StoreCtxPtr ctx(X509_STORE_CTX_new());
    if (!store || !ctx || X509_STORE_CTX_init(ctx.get(), store.get(), leaf, untrusted) != 1) return "out of memory";
    X509_STORE_CTX_set_default(ctx.get(), "ssl_server");
    // A certificate put into the roots is trusted for itself, whether or not it is an authority.
    X509_STORE_CTX_set_flags(ctx.get(), X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
    if (X509_verify_cert(ctx.get()) != 1) {
        X509* at = X509_STORE_CTX_get_current_cert(ctx.get());
        std::string text = chain_problem(X509_STORE_CTX_get_error(ctx.get()), at != nullptr ? at : leaf);
        ERR_clear_error();
        return text;
    }
    const std::string& name = options.verify_name.empty() ? options.server_name : options.verify_name;
    return name_problem(leaf, name);
}

/// fact sheet 3.7: one certificate besides the meta certificate, its hash, its names, its dates.
std::string check_pin(const TlsClientOptions& options, X509* leaf, STACK_OF(X509) * chain) {
    int others = 0;
    for (int i = 0; i < sk_X509_num(chain); ++i)
        if (!common_name(sk_X509_value(chain, i)).starts_with("derpkey")) ++others;
    if (others != 1 || common_name(leaf).starts_with("derpkey"))
        return "it must present exactly one certificate to be checked by fingerprint";
    const auto hash = certificate_sha256(to_der(leaf));
    if (hash != options.pin_sha256)
        return "its certificate has the fingerprint " + hex_encode(hash) + ", expected " +
               hex_encode(options.pin_sha256);
    if (X509_cmp_current_time(X509_get0_notBefore(leaf)) > 0) return not_yet(leaf);
    if (X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0) return expired(leaf);
    if (options.server_name.empty()) return "";
    return name_problem(leaf, options.server_name);
}

int verify_callback(X509_STORE_CTX* ctx, void* arg) {
    auto* v = static_cast<Verifier*>(arg);
    X509* leaf = X509_STORE_CTX_get0_cert(ctx);
    STACK_OF(X509)* chain = X509_STORE_CTX_get0_untrusted(ctx);
    X509_STORE_CTX_set_error(ctx, X509_V_OK);
    v->problem.clear();
    switch (v->options.verify) {
        case TlsVerify::kInsecure:
            return 1;
        case TlsVerify::kPin:
            v->problem = check_pin(v->options, leaf, chain);
            break;
        case TlsVerify::kSystem:
        case TlsVerify::kWarn:
            v->problem = check_chain(v->options, leaf, chain);
            break;
    }
    if (v->problem.empty() || v->options.verify == TlsVerify::kWarn) return 1;
    X509_STORE_CTX_set_error(ctx, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

}  // namespace

Bytes to_der(X509* cert) {
    const int len = i2d_X509(cert, nullptr);
    if (len <= 0) return {};
    Bytes out(static_cast<size_t>(len));
    unsigned char* p = out.data();
    i2d_X509(cert, &p);
    return out;
}

std::string common_name(X509* cert) {
    if (cert == nullptr) return "";
    X509_NAME* subject = X509_get_subject_name(cert);
    const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return "";
    unsigned char* utf8 = nullptr;
    const int len = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (len < 0) {
        ERR_clear_error();
        return "";
    }
    std::string out(reinterpret_cast<const char*>(utf8), static_cast<size_t>(len));
    OPENSSL_free(utf8);
    return out;
}

std::string last_error() {
    const unsigned long code = ERR_peek_last_error();
    ERR_clear_error();
    const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
    return reason == nullptr ? "unknown TLS error" : reason;
}

void Verifier::install(SSL_CTX* ctx) {
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_cert_verify_callback(ctx, verify_callback, this);
}

}  // namespace mesh::platform::openssl

namespace mesh::platform {
namespace {

WallTime wall_of(const ASN1_TIME* t) {
    tm parts{};
    if (ASN1_TIME_to_tm(t, &parts) != 1) return {};
    return {static_cast<int64_t>(timegm(&parts)) * 1'000'000'000};
}

}  // namespace

Result<CertificateFacts> describe_certificates(std::string_view pem, const std::string& name) {
    constexpr size_t kMaxCounted = 64;
    ERR_clear_error();
    if (pem.size() > static_cast<size_t>(std::numeric_limits<int>::max())) return fail(Code::kLimit, "PEM is too large");
    const openssl::BioPtr bio = openssl::memory_bio(pem);
    CertificateFacts out;
    while (out.count < kMaxCounted) {
        const openssl::X509Ptr cert(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
        if (!cert) break;
        if (++out.count > 1) continue;
        out.self_signed = X509_NAME_cmp(X509_get_subject_name(cert.get()), X509_get_issuer_name(cert.get())) == 0;
        out.not_before = wall_of(X509_get0_notBefore(cert.get()));
        out.not_after = wall_of(X509_get0_notAfter(cert.get()));
        if (!name.empty()) out.name_problem = openssl::name_problem(cert.get(), name);
    }
    if (out.count == 0) return fail(Code::kInvalid, "certificate: " + openssl::last_error());
    ERR_clear_error();
    return out;
}

}  // namespace mesh::platform
