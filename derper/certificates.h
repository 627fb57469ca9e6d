// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Certificates from a folder: <hostname>.crt and <hostname>.key as with the original's -certmode manual, or a pair made
/// here for a server without a domain, which clients then know by the certificate's hash.

#include <memory>
#include <string>
#include <vector>

#include "base/keys.h"
#include "base/result.h"
#include "base/time.h"
#include "platform/tls/tls.h"

namespace mesh::derper {

struct CertPaths {
    std::string crt;
    std::string key;
};
[[nodiscard]] CertPaths cert_paths(const std::string& dir, const std::string& name);

/// Makes the pair for `names` (IP literals, at least one; good for ten years, since the hash is what is trusted) unless both
/// files exist. `ours`: a pair that has expired or is for none of `names` is replaced.
[[nodiscard]] Status ensure_self_signed(const CertPaths& paths, const std::vector<std::string>& names, WallTime now,
                                        bool ours);

struct Certificate {
    std::shared_ptr<const platform::TlsServerContext> tls;
    std::string pin;                    ///< "sha256-raw:<hex>"
    WallTime not_after;
    bool self_signed = false;
    std::vector<std::string> warnings;  ///< fit to be printed as they are
};
/// Loads the pair and appends the meta certificate that names `key`, good for 30 days. An error if the certificate is
/// not for `hostname` ("" = do not look); warnings if clients will not trust it for another reason.
[[nodiscard]] Result<Certificate> load_certificate(const CertPaths& paths, const std::string& hostname,
                                                   const NodePublic& key, WallTime now);
/// The certificate in the file is for that IP literal or name.
[[nodiscard]] bool certificate_covers(const CertPaths& paths, const std::string& name);
/// Changes when one of the files does (or what a link of Let's Encrypt's client points to).
[[nodiscard]] std::string files_stamp(const std::vector<std::string>& paths);

}  // namespace mesh::derper
