// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Making and reading certificates: a self-signed one for servers without a domain, and DERP's meta certificate, which
/// carries the relay's key in its common name ("derpkey" + 64 hex digits) and the protocol version as serial number.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"

namespace mesh::platform {

struct CertificateAndKey {
    std::string cert_pem;
    std::string key_pem;
    std::array<uint8_t, 32> sha256{};  ///< over the certificate's DER: the pin
};

struct SelfSignedOptions {
    std::vector<std::string> names;  ///< DNS names and IP literals, at least one; the first is the common name
    WallTime now;
    Duration valid_before = minutes(60);
    Duration valid_for = seconds(365LL * 24 * 3600);
};
/// P-256, SAN for each name, CA:TRUE so that it can be trusted as a root.
[[nodiscard]] Result<CertificateAndKey> make_self_signed(const SelfSignedOptions& options);

/// DERP protocol version in the serial number.
inline constexpr unsigned kDerpMetaVersion = 2;
/// Ed25519, self-signed by a throw-away key, now ± 30 days. DER, for TlsServerContext's extra chain.
[[nodiscard]] Result<Bytes> make_derp_meta(const NodePublic& server_key, WallTime now);

struct DerpMeta {
    NodePublic server_key;
    unsigned version = 0;
};
/// From the chain a server presented (TlsSession::peer_chain). nullopt if there is none or it is malformed.
[[nodiscard]] std::optional<DerpMeta> find_derp_meta(const std::vector<Bytes>& chain_der);
/// Common name starts with "derpkey".
[[nodiscard]] bool is_derp_meta(ByteSpan der);

/// First certificate of a PEM text as DER; and the SHA-256 of a DER certificate.
[[nodiscard]] Result<Bytes> pem_to_der(std::string_view pem);
[[nodiscard]] std::array<uint8_t, 32> certificate_sha256(ByteSpan der);

/// What a server's operator should know of a certificate file.
struct CertificateFacts {
    size_t count = 0;          ///< certificates in the text
    bool self_signed = false;  ///< the first one: issuer = subject
    WallTime not_before, not_after;  ///< of the first one
    std::string name_problem;  ///< "" = the first one is for the name asked; else why not, in plain words
};
/// `pem`: leaf first, at most 64 certificates are counted. `name` "" = not checked.
[[nodiscard]] Result<CertificateFacts> describe_certificates(std::string_view pem, const std::string& name);

}  // namespace mesh::platform
