// SPDX-License-Identifier: BSD-3-Clause
#include "derper/certificates.h"

#include "magicsock/derp/derp_map_json.h"
#include "platform/file.h"
#include "platform/tls/certificate.h"

namespace mesh::derper {
namespace {

constexpr size_t kMaxPem = 1U << 20;
constexpr int kCustomRegion = 900;

std::string path_of(const std::string& dir, const std::string& hostname, const char* ending) {
    return dir + "/" + hostname + ending;
}

}  // namespace

Status ensure_self_signed(const std::string& dir, const std::string& ip, WallTime now) {
    const std::string crt = path_of(dir, ip, ".crt");
    const std::string key = path_of(dir, ip, ".key");
    const auto have_crt = platform::read_file(crt, kMaxPem);
    const auto have_key = platform::read_file(key, kMaxPem);
    if (have_crt && have_key) return {};
    // One file alone is somebody's mistake, not ours to overwrite.
    if (have_crt || have_key) return fail(Code::kInvalid, "only one of " + crt + " and " + key + " can be read");
    for (const auto* r : {&have_crt, &have_key})
        if (r->error().code != Code::kNotFound) return tl::unexpected(r->error());
    TRY(platform::make_folders(dir));
    platform::SelfSignedOptions options;
    options.names = {ip};
    options.now = now;
    TRY_ASSIGN(const platform::CertificateAndKey made, platform::make_self_signed(options));
    TRY(platform::replace_file(key, made.key_pem, 0600));
    TRY(platform::replace_file(crt, made.cert_pem, 0644));
    return {};
}

Result<std::shared_ptr<const platform::TlsServerContext>> load_tls(const std::string& dir, const std::string& hostname,
                                                                   const NodePublic& key, WallTime now) {
    TRY_ASSIGN(Bytes meta, platform::make_derp_meta(key, now));
    return platform::TlsServerContext::load(path_of(dir, hostname, ".crt"), path_of(dir, hostname, ".key"),
                                            {std::move(meta)});
}

Result<std::string> certificate_pin(const std::string& dir, const std::string& hostname) {
    TRY_ASSIGN(const std::string pem, platform::read_file(path_of(dir, hostname, ".crt"), kMaxPem));
    TRY_ASSIGN(const Bytes der, platform::pem_to_der(pem));
    return std::string(derp::kCertPinPrefix) + hex_encode(platform::certificate_sha256(der));
}

std::string node_json(const std::string& hostname, const std::string& pin, uint16_t derp_port, int stun_port) {
    derp::DerpNode n;
    n.name = "custom";
    n.region_id = kCustomRegion;
    n.host_name = hostname;
    n.cert_name = pin;
    if (stun_port != 3478) n.stun_port = stun_port;
    if (derp_port != 443) n.derp_port = derp_port;
    return json::dump(derp::derp_node_json(n));
}

}  // namespace mesh::derper
