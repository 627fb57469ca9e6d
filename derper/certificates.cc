// SPDX-License-Identifier: BSD-3-Clause
#include "derper/certificates.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "magicsock/derp/derp_map.h"
#include "platform/file.h"
#include "platform/tls/certificate.h"

namespace mesh::derper {
namespace {

constexpr size_t kMaxPem = 1U << 20;
constexpr Duration kDay = seconds(24LL * 3600);
constexpr int kWarnDays = 14;

bool worth_keeping(const std::string& pem, const std::vector<std::string>& names, WallTime now) {
    for (const std::string& name : names) {
        const auto facts = platform::describe_certificates(pem, name);
        if (facts && facts->name_problem.empty() && now < facts->not_after) return true;
    }
    return false;
}

}  // namespace

CertPaths cert_paths(const std::string& dir, const std::string& name) {
    return {dir + "/" + name + ".crt", dir + "/" + name + ".key"};
}

Status ensure_self_signed(const CertPaths& paths, const std::vector<std::string>& names, WallTime now, bool ours) {
    const auto have_crt = platform::read_file(paths.crt, kMaxPem);
    const auto have_key = platform::read_file(paths.key, kMaxPem);
    if (have_crt && have_key) {
        if (!ours || worth_keeping(*have_crt, names, now)) return {};
        log::info("derper: {} has expired or is for none of this host's addresses: making a new one, clients need its new hash",
                  paths.crt);
    } else {
        // One file alone is somebody's mistake, not ours to overwrite.
        if (have_crt || have_key)
            return fail(Code::kInvalid, fmt::format("only one of {} and {} can be read: restore the other, or remove it to "
                                                    "have both made", paths.crt, paths.key));
        for (const auto* r : {&have_crt, &have_key})
            if (r->error().code != Code::kNotFound) return tl::unexpected(r->error());
    }
    if (const size_t slash = paths.crt.rfind('/'); slash != std::string::npos && slash > 0)
        TRY(platform::make_folders(paths.crt.substr(0, slash)));
    platform::SelfSignedOptions options;
    options.names = names;
    options.now = now;
    options.valid_for = kDay * 3650;
    TRY_ASSIGN(const platform::CertificateAndKey made, platform::make_self_signed(options));
    TRY(platform::replace_file(paths.key, made.key_pem, 0600));
    TRY(platform::replace_file(paths.crt, made.cert_pem, 0644));
    return {};
}

Result<Certificate> load_certificate(const CertPaths& paths, const std::string& hostname, const NodePublic& key,
                                     WallTime now) {
    auto pem = platform::read_file(paths.crt, kMaxPem);
    if (!pem) {
        if (pem.error().code != Code::kNotFound) return tl::unexpected(std::move(pem.error()));
        return fail(Code::kNotFound, fmt::format("no certificate {} (with -certmode manual the files in -certdir are named after "
                                                 "-hostname: {} and {})", paths.crt, paths.crt, paths.key));
    }
    auto facts = platform::describe_certificates(*pem, hostname);
    if (!facts) return tl::unexpected(std::move(facts.error()).with(paths.crt));
    if (!facts->name_problem.empty())
        return fail(Code::kInvalid, fmt::format("{}: {}", paths.crt, facts->name_problem));
    Certificate out;
    out.not_after = facts->not_after;
    out.self_signed = facts->self_signed;
    if (facts->count == 1 && !facts->self_signed)
        out.warnings.push_back(fmt::format("{} holds only the server's certificate without the one that signed it; clients will "
                                           "refuse it: use fullchain.pem", paths.crt));
    if (now < facts->not_before)
        out.warnings.push_back(fmt::format("{} is valid only from {} on: check the clock", paths.crt,
                                           json::time_text(facts->not_before)));
    else if (facts->not_after < now)
        out.warnings.push_back(fmt::format("{} expired on {}: clients refuse it", paths.crt, json::time_text(facts->not_after)));
    else if (facts->not_after - now < kDay * kWarnDays)
        out.warnings.push_back(fmt::format("{} expires on {}", paths.crt, json::time_text(facts->not_after)));
    TRY_ASSIGN(const Bytes der, platform::pem_to_der(*pem));
    out.pin = std::string(derp::kCertPinPrefix) + hex_encode(platform::certificate_sha256(der));
    TRY_ASSIGN(Bytes meta, platform::make_derp_meta(key, now));
    TRY_ASSIGN(out.tls, platform::TlsServerContext::load(paths.crt, paths.key, {std::move(meta)}));
    return out;
}

bool certificate_covers(const CertPaths& paths, const std::string& name) {
    const auto pem = platform::read_file(paths.crt, kMaxPem);
    if (!pem) return false;
    const auto facts = platform::describe_certificates(*pem, name);
    return facts && facts->name_problem.empty();
}

std::string files_stamp(const std::vector<std::string>& paths) {
    std::string out;
    for (const std::string& path : paths) {
        struct stat st {};
        if (::stat(path.c_str(), &st) != 0)
            out += "-;";
        else
            out += fmt::format("{}.{}.{}.{};", st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_size, st.st_ino);
    }
    return out;
}

}  // namespace mesh::derper
