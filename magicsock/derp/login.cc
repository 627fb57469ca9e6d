// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/derp/login.h"

#include <cstring>

#include "base/crypto/crypto.h"
#include "base/json.h"
#include "magicsock/derp/frame.h"

namespace mesh::derp {
namespace {

constexpr size_t kMaxInfo = 1U << 20;

Result<Bytes> seal(ByteSpan prefix, std::string_view text, const NodePublic& them, const NodePrivate& us,
                   Random& random) {
    crypto::Key32 shared;
    if (!crypto::box_precompute(shared, them.raw, us.secret())) return fail(Code::kInvalid, "DERP key is not usable");
    Bytes out(prefix.size() + kNonceLen + text.size() + crypto::kTagLen);
    if (!prefix.empty()) std::memcpy(out.data(), prefix.data(), prefix.size());
    uint8_t* nonce = out.data() + prefix.size();
    random.fill({nonce, kNonceLen});
    crypto::box_seal(nonce + kNonceLen, as_bytes(text), nonce, shared);
    crypto::wipe(shared);
    return out;
}

Result<Json> open(ByteSpan sealed, const NodePublic& them, const NodePrivate& us) {
    if (sealed.size() < kNonceLen + crypto::kTagLen || sealed.size() > kMaxInfo + kNonceLen + crypto::kTagLen)
        return fail(Code::kInvalid, "DERP login message has a bad length");
    crypto::Key32 shared;
    if (!crypto::box_precompute(shared, them.raw, us.secret())) return fail(Code::kInvalid, "DERP key is not usable");
    std::string text(sealed.size() - kNonceLen - crypto::kTagLen, '\0');
    const bool ok = crypto::box_open(reinterpret_cast<uint8_t*>(text.data()), sealed.subspan(kNonceLen),
                                     sealed.data(), shared);
    crypto::wipe(shared);
    if (!ok) return fail(Code::kDenied, "DERP login message cannot be opened");
    return json::parse(text, kMaxInfo);
}

}  // namespace

Result<Bytes> seal_client_info(const ClientInfo& info, const NodePrivate& client, const NodePublic& server,
                               Random& random) {
    Json j = Json::object();
    if (!info.mesh_key.is_zero()) j["meshKey"] = hex_encode(info.mesh_key.bytes());
    j["version"] = info.version;
    j["CanAckPings"] = info.can_ack_pings;
    if (info.is_prober) j["IsProber"] = true;
    if (!info.app_name.empty()) j["AppName"] = info.app_name;
    return seal(client.public_key().bytes(), json::dump(j), server, client, random);
}

Result<OpenedClientInfo> open_client_info(ByteSpan payload, const NodePrivate& server) {
    if (payload.size() < kKeyLen + kNonceLen) return fail(Code::kInvalid, "DERP ClientInfo is too short");
    OpenedClientInfo out;
    out.key = NodePublic::from(payload.first(kKeyLen));
    if (out.key.is_zero()) return fail(Code::kInvalid, "DERP ClientInfo with a zero key");
    TRY_ASSIGN(const Json j, open(payload.subspan(kKeyLen), out.key, server));
    if (!hex_decode(json::str(j, "meshKey"), out.info.mesh_key.bytes())) out.info.mesh_key.wipe();
    out.info.version = json::integer(j, "version");
    out.info.can_ack_pings = json::boolean(j, "CanAckPings");
    out.info.is_prober = json::boolean(j, "IsProber");
    out.info.app_name = json::str(j, "AppName");
    return out;
}

Result<Bytes> seal_server_info(const ServerInfo& info, const NodePrivate& server, const NodePublic& client,
                               Random& random) {
    Json j = Json::object();
    j["version"] = info.version;
    if (info.token_bucket_bytes_per_second != 0) j["TokenBucketBytesPerSecond"] = info.token_bucket_bytes_per_second;
    if (info.token_bucket_bytes_burst != 0) j["TokenBucketBytesBurst"] = info.token_bucket_bytes_burst;
    return seal({}, json::dump(j), client, server, random);
}

Result<ServerInfo> open_server_info(ByteSpan payload, const NodePrivate& client, const NodePublic& server) {
    TRY_ASSIGN(const Json j, open(payload, server, client));
    ServerInfo info;
    info.version = json::integer(j, "version");
    info.token_bucket_bytes_per_second = json::integer(j, "TokenBucketBytesPerSecond");
    info.token_bucket_bytes_burst = json::integer(j, "TokenBucketBytesBurst");
    return info;
}

std::optional<NodePublic> parse_server_key(ByteSpan payload) {
    if (payload.size() < sizeof kMagic + kKeyLen || std::memcmp(payload.data(), kMagic, sizeof kMagic) != 0)
        return std::nullopt;
    const NodePublic key = NodePublic::from(payload.subspan(sizeof kMagic, kKeyLen));
    if (key.is_zero()) return std::nullopt;
    return key;
}

}  // namespace mesh::derp
