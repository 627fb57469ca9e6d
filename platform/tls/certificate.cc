// SPDX-License-Identifier: BSD-3-Clause
#include "platform/tls/certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include <limits>

#include "base/ip.h"
#include "platform/tls/openssl.h"

namespace mesh::platform {
namespace {

using namespace openssl;

constexpr std::string_view kMetaPrefix = "derpkey";

std::string take_text(BIO* bio) {
    char* data = nullptr;
    const long n = BIO_get_mem_data(bio, &data);
    return n <= 0 ? std::string() : std::string(data, static_cast<size_t>(n));
}

bool set_dates(X509* cert, WallTime from, WallTime until) {
    const auto secs = [](WallTime t) { return static_cast<time_t>(t.unix_ns / 1'000'000'000); };
    return ASN1_TIME_adj(X509_getm_notBefore(cert), secs(from), 0, 0) != nullptr &&
           ASN1_TIME_adj(X509_getm_notAfter(cert), secs(until), 0, 0) != nullptr;
}

/// Not through the table of limits: DERP's common name is longer than X.520's 64 characters.
bool set_common_name(X509* cert, std::string_view name) {
    X509_NAME* subject = X509_get_subject_name(cert);
    return X509_NAME_add_entry_by_NID(subject, NID_commonName, V_ASN1_UTF8STRING,
                                      reinterpret_cast<const unsigned char*>(name.data()),
                                      static_cast<int>(name.size()), -1, 0) == 1 &&
           X509_set_issuer_name(cert, subject) == 1;
}

bool add_extension(X509* cert, int nid, const std::string& value) {
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, cert, cert, nullptr, nullptr, 0);
    const ExtPtr ext(X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str()));
    return ext && X509_add_ext(cert, ext.get(), -1) == 1;
}

tl::unexpected<Error> failed(const char* what) { return fail(Code::kInternal, std::string(what) + ": " + last_error()); }

/// Only characters that cannot end an element of an extension's text form.
bool name_ok(std::string_view name) {
    if (name.empty() || name.size() > 253) return false;
    return name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._*:") ==
           std::string_view::npos;
}

}  // namespace

Result<CertificateAndKey> make_self_signed(const SelfSignedOptions& options) {
    ERR_clear_error();
    if (options.names.empty()) return fail(Code::kInvalid, "a certificate needs a name");
    std::string san;
    for (const std::string& name : options.names) {
        if (!name_ok(name)) return fail(Code::kInvalid, "not a DNS name or IP address: " + name);
        if (!san.empty()) san += ",";
        san += (Addr::parse(name) ? "IP:" : "DNS:") + name;
    }
    const KeyPtr key(EVP_EC_gen("P-256"));
    const X509Ptr cert(X509_new());
    if (!key || !cert) return failed("make key");
    unsigned char serial[16];
    if (RAND_bytes(serial, sizeof serial) != 1) return failed("random serial number");
    serial[0] = static_cast<unsigned char>((serial[0] & 0x3F) | 0x40);  // positive, and always 16 bytes
    BIGNUM* number = BN_bin2bn(serial, sizeof serial, nullptr);
    const bool numbered = number != nullptr && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert.get())) != nullptr;
    BN_free(number);
    if (!numbered || X509_set_version(cert.get(), X509_VERSION_3) != 1 || X509_set_pubkey(cert.get(), key.get()) != 1 ||
        !set_dates(cert.get(), options.now + options.valid_before * -1, options.now + options.valid_for) ||
        !set_common_name(cert.get(), options.names.front()) ||
        !add_extension(cert.get(), NID_basic_constraints, "critical,CA:TRUE") ||
        !add_extension(cert.get(), NID_key_usage, "critical,digitalSignature,keyCertSign") ||
        !add_extension(cert.get(), NID_ext_key_usage, "serverAuth") ||
        !add_extension(cert.get(), NID_subject_alt_name, san) ||
        X509_sign(cert.get(), key.get(), EVP_sha256()) == 0)
        return failed("make certificate");
    const BioPtr cert_out(BIO_new(BIO_s_mem()));
    const BioPtr key_out(BIO_new(BIO_s_secmem()));
    if (!cert_out || !key_out || PEM_write_bio_X509(cert_out.get(), cert.get()) != 1 ||
        PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
        return failed("write certificate");
    return CertificateAndKey{take_text(cert_out.get()), take_text(key_out.get()), certificate_sha256(to_der(cert.get()))};
}

Result<Bytes> make_derp_meta(const NodePublic& server_key, WallTime now) {
    ERR_clear_error();
    EVP_PKEY* raw = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
    const KeyPtr key(raw);
    const X509Ptr cert(X509_new());
    if (!key || !cert) return failed("make key");
    const Duration month = seconds(30LL * 24 * 3600);
    if (X509_set_version(cert.get(), X509_VERSION_3) != 1 ||
        ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), kDerpMetaVersion) != 1 ||
        X509_set_pubkey(cert.get(), key.get()) != 1 || !set_dates(cert.get(), now + month * -1, now + month) ||
        !set_common_name(cert.get(), std::string(kMetaPrefix) + hex_encode(server_key.bytes())) ||
        !add_extension(cert.get(), NID_basic_constraints, "critical,CA:FALSE") ||
        X509_sign(cert.get(), key.get(), nullptr) == 0)
        return failed("make meta certificate");
    return to_der(cert.get());
}

bool is_derp_meta(ByteSpan der) {
    const X509Ptr cert = parse_der(der);
    ERR_clear_error();
    return cert && common_name(cert.get()).starts_with(kMetaPrefix);
}

std::optional<DerpMeta> find_derp_meta(const std::vector<Bytes>& chain_der) {
    for (const Bytes& der : chain_der) {
        const X509Ptr cert = parse_der(der);
        ERR_clear_error();
        if (!cert) continue;
        const std::string name = common_name(cert.get());
        if (!name.starts_with(kMetaPrefix)) continue;
        DerpMeta meta;
        uint64_t serial = 0;
        if (!hex_decode(std::string_view(name).substr(kMetaPrefix.size()), meta.server_key.raw) ||
            ASN1_INTEGER_get_uint64(&serial, X509_get0_serialNumber(cert.get())) != 1 || serial > 255) {
            ERR_clear_error();
            continue;
        }
        meta.version = static_cast<unsigned>(serial);
        return meta;
    }
    return std::nullopt;
}

Result<Bytes> pem_to_der(std::string_view pem) {
    ERR_clear_error();
    if (pem.size() > static_cast<size_t>(std::numeric_limits<int>::max())) return fail(Code::kLimit, "PEM is too large");
    const BioPtr bio = memory_bio(pem);
    const X509Ptr cert(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!cert) return fail(Code::kInvalid, "certificate: " + last_error());
    return to_der(cert.get());
}

std::array<uint8_t, 32> certificate_sha256(ByteSpan der) {
    std::array<uint8_t, 32> out{};
    EVP_Digest(der.data(), der.size(), out.data(), nullptr, EVP_sha256(), nullptr);
    return out;
}

}  // namespace mesh::platform
