// SPDX-License-Identifier: BSD-3-Clause
// What a client puts into its info box, and a server into its own: any text under a genuine seal, and any bytes in place of
// the seal. What is understood means the same after being written again; nothing opens that was not sealed.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/crypto/crypto.h"
#include "magicsock/derp/frame.h"
#include "magicsock/derp/login.h"

using namespace mesh;

namespace {

struct Keys {
    SeededRandom random{1};
    NodePrivate client = NodePrivate::generate(random), server = NodePrivate::generate(random);
    crypto::Key32 shared{};
    Keys() { CHECK(crypto::box_precompute(shared, server.public_key().raw, client.secret())); }
};

/// `head`, nonce and box, as login.cc would write any text.
Bytes sealed(ByteSpan head, ByteSpan text, const crypto::Key32& shared) {
    Bytes out = to_bytes(head);
    out.resize(head.size() + derp::kNonceLen + text.size() + crypto::kTagLen);
    uint8_t* nonce = out.data() + head.size();
    crypto::box_seal(nonce + derp::kNonceLen, text, nonce, shared);
    return out;
}

void client_info(ByteSpan text, Keys& k) {
    const auto opened = derp::open_client_info(sealed(k.client.public_key().bytes(), text, k.shared), k.server);
    if (!opened) return;
    CHECK(opened->key == k.client.public_key());
    const auto again = derp::seal_client_info(opened->info, k.client, k.server.public_key(), k.random);
    CHECK(again);
    const auto reopened = derp::open_client_info(*again, k.server);
    CHECK(reopened && reopened->info.version == opened->info.version);
    CHECK(reopened->info.can_ack_pings == opened->info.can_ack_pings && reopened->info.is_prober == opened->info.is_prober);
    CHECK(reopened->info.mesh_key == opened->info.mesh_key && reopened->info.app_name == opened->info.app_name);
}

void server_info(ByteSpan text, Keys& k) {
    const auto opened = derp::open_server_info(sealed({}, text, k.shared), k.client, k.server.public_key());
    if (!opened) return;
    const auto again = derp::seal_server_info(*opened, k.server, k.client.public_key(), k.random);
    CHECK(again);
    const auto reopened = derp::open_server_info(*again, k.client, k.server.public_key());
    CHECK(reopened && reopened->version == opened->version);
    CHECK(reopened->token_bucket_bytes_per_second == opened->token_bucket_bytes_per_second);
    CHECK(reopened->token_bucket_bytes_burst == opened->token_bucket_bytes_burst);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    static Keys keys;
    const ByteSpan rest(data + 1, size - 1);
    switch (data[0] % 3) {
        case 0: client_info(rest, keys); break;
        case 1: server_info(rest, keys); break;
        default:
            CHECK(!derp::open_client_info(rest, keys.server));
            CHECK(!derp::open_server_info(rest, keys.client, keys.server.public_key()));
            if (const auto key = derp::parse_server_key(rest)) CHECK(!key->is_zero() && rest.size() >= sizeof derp::kMagic + derp::kKeyLen);
            break;
    }
    return 0;
}
