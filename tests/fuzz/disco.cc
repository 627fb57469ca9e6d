// SPDX-License-Identifier: BSD-3-Clause
// Any bytes, as a decrypted payload and as a datagram: what parses must encode back to the same message, and nothing
// that is not sealed may open.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "magicsock/disco/disco.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace mesh;
    const ByteSpan bytes(data, size);
    if (const auto m = disco::parse(bytes)) {
        const auto again = disco::parse(disco::encode(*m));
        // Padding beyond the limit is cut when written; everything else must survive.
        const auto* ping = std::get_if<disco::Ping>(&*m);
        if (!again || (*again != *m && (ping == nullptr || ping->padding <= 65000))) std::abort();
    }
    static const DiscoPrivate mine = DiscoPrivate::from({1});
    static const DiscoPrivate theirs = DiscoPrivate::from({2});
    static const auto key = disco::SharedKey::derive(mine, theirs.public_key());
    if (!key) std::abort();
    if (disco::looks_like_disco(bytes)) {
        (void)disco::sender_of(bytes);
        if (key->open(bytes)) std::abort();
    }
    return 0;
}
