// SPDX-License-Identifier: BSD-3-Clause
// Addresses, endpoints, prefixes, keys, hex and base64 from text, and addresses from bytes: what is read is written and
// read again as the same.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/ip.h"
#include "base/keys.h"

using namespace mesh;

namespace {

template <class T>
void same_again(const std::optional<T>& value) {
    if (value) CHECK(T::parse(value->str()) == value);
}
template <class K>
void key_again(std::string_view text) {
    if (const auto key = K::parse(text)) CHECK(key->text().size() == text.size() && K::parse(key->text()) == key);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const ByteSpan bytes(data, size);
    const std::string_view text = as_text(bytes);
    const auto addr = Addr::parse(text);
    same_again(addr);
    if (addr) CHECK(text.find_first_not_of("0123456789abcdefABCDEF:.") == std::string_view::npos);
    same_again(Endpoint::parse(text));
    const auto prefix = Prefix::parse(text);
    same_again(prefix);
    if (prefix) {
        CHECK(prefix->len <= prefix->addr.bits());
        const Prefix m = prefix->masked();
        CHECK(m.masked() == m && m.contains(prefix->addr) && prefix->contains(m.addr) && m.overlaps(*prefix));
    }
    key_again<NodePublic>(text);
    key_again<MachinePublic>(text);
    key_again<DiscoPublic>(text);
    if (const auto secret = NodePrivate::parse(text)) CHECK(NodePrivate::parse(secret->secret_text()) == secret);
    if (const auto raw = base64_decode(text)) CHECK(base64_decode(base64_encode(*raw)) == raw);
    CHECK(base64_decode(base64_encode(bytes)) == to_bytes(bytes));
    Bytes back(size);
    CHECK(hex_decode(hex_encode(bytes), back) && std::equal(back.begin(), back.end(), bytes.begin(), bytes.end()));
    Bytes half(size / 2);
    (void)hex_decode(text, half);
    if (size >= 16) {
        const Addr a = Addr::v6_bytes(data);
        same_again(std::optional(a));
        CHECK(Addr::v6_bytes(a.mapped16().data()) == a);
        CHECK(a.is_v4() || Addr::v6_bytes(data, false) == a);
    }
    return 0;
}
