// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Owners for OpenSSL's objects, and its error queue as text. Included by tls/ and the HTTP client only.

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "platform/tls/tls.h"

namespace mesh::platform::openssl {

template <auto Free>
struct Deleter {
    template <class T>
    void operator()(T* p) const {
        Free(p);
    }
};
inline void free_bio(BIO* b) { BIO_free_all(b); }
inline void free_names(GENERAL_NAMES* n) { GENERAL_NAMES_free(n); }

using X509Ptr = std::unique_ptr<X509, Deleter<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using BioPtr = std::unique_ptr<BIO, Deleter<free_bio>>;
using CtxPtr = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Deleter<SSL_free>>;
using StorePtr = std::unique_ptr<X509_STORE, Deleter<X509_STORE_free>>;
using StoreCtxPtr = std::unique_ptr<X509_STORE_CTX, Deleter<X509_STORE_CTX_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, Deleter<free_names>>;
using ExtPtr = std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>>;

/// Read-only memory as a BIO; `text` must stay.
inline BioPtr memory_bio(std::string_view text) {
    return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}
[[nodiscard]] inline X509Ptr parse_der(ByteSpan der) {
    const unsigned char* p = der.data();
    return X509Ptr(d2i_X509(nullptr, &p, static_cast<long>(der.size())));
}
[[nodiscard]] Bytes to_der(X509* cert);
/// "" if there is none.
[[nodiscard]] std::string common_name(X509* cert);
/// Reason of the newest error in this thread's queue, and empties the queue.
[[nodiscard]] std::string last_error();

/// Judges a server's chain by TlsClientOptions. Lives as long as the SSL_CTX it is installed in is used.
struct Verifier {
    TlsClientOptions options;
    std::string problem;  ///< why the chain was refused, or (kWarn) would have been
    void install(SSL_CTX* ctx);
};

}  // namespace mesh::platform::openssl
