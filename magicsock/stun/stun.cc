// SPDX-License-Identifier: BSD-3-Clause
#include "magicsock/stun/stun.h"

#include <algorithm>
#include <cstring>

namespace mesh::stun {
namespace {

constexpr uint32_t kCookie = 0x2112a442;
constexpr size_t kHeaderLen = 20;
constexpr uint16_t kBindingRequest = 0x0001;
constexpr uint16_t kBindingSuccess = 0x0101;
constexpr uint16_t kMappedAddress = 0x0001;
constexpr uint16_t kXorMappedAddress = 0x0020;
constexpr uint16_t kXorMappedAddressAlt = 0x8020;
constexpr uint16_t kSoftware = 0x8022;
constexpr uint16_t kFingerprint = 0x8028;
constexpr uint32_t kFingerprintXor = 0x5354554e;
constexpr char kSoftwareValue[] = "tailnode";
constexpr size_t kFingerprintLen = 8;  // with its attribute header
constexpr uint8_t kFamilyV4 = 1;
constexpr uint8_t kFamilyV6 = 2;

/// CRC-32 (IEEE 802.3), bit by bit: 32 bytes per request need no table.
uint32_t crc32(ByteSpan bytes) {
    uint32_t crc = 0xffffffff;
    for (const uint8_t b : bytes) {
        crc ^= b;
        for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1)));
    }
    return ~crc;
}

/// Calls visit(type, value, offset of the attribute); false if the attributes are malformed.
template <class Visit>
bool for_each_attribute(ByteSpan message, Visit visit) {
    size_t at = kHeaderLen;
    while (at < message.size()) {
        if (message.size() - at < 4) return false;
        const uint16_t type = load_be16(&message[at]);
        const size_t len = load_be16(&message[at + 2]);
        const size_t padded = (len + 3) & ~size_t{3};
        if (message.size() - at - 4 < len) return false;
        visit(type, message.subspan(at + 4, len), at);
        if (message.size() - at - 4 < padded) return true;  // the last one without its padding
        at += 4 + padded;
    }
    return true;
}

/// Value of a (XOR-)MAPPED-ADDRESS; `tx` null = not XORed.
Endpoint read_address(ByteSpan value, const uint8_t* cookie_and_tx) {
    if (value.size() < 8) return {};
    uint16_t port = load_be16(&value[2]);
    const size_t len = value[1] == kFamilyV4 ? 4 : value[1] == kFamilyV6 ? 16 : 0;
    if (len == 0 || value.size() < 4 + len) return {};
    uint8_t raw[16];
    std::memcpy(raw, &value[4], len);
    if (cookie_and_tx) {
        port = static_cast<uint16_t>(port ^ (kCookie >> 16));
        for (size_t i = 0; i < len; ++i) raw[i] = static_cast<uint8_t>(raw[i] ^ cookie_and_tx[i]);
    }
    return {len == 4 ? Addr::v4_bytes(raw) : Addr::v6_bytes(raw), port};
}

}  // namespace

bool looks_like_stun(ByteSpan d) {
    return d.size() >= kHeaderLen && (d[0] & 0xc0) == 0 && load_be32(&d[4]) == kCookie;
}

RequestBytes encode_request(const TxId& tx) {
    RequestBytes out{};
    store_be16(&out[0], kBindingRequest);
    store_be16(&out[2], kRequestLen - kHeaderLen);
    store_be32(&out[4], kCookie);
    std::memcpy(&out[8], tx.data(), tx.size());
    store_be16(&out[20], kSoftware);
    store_be16(&out[22], 8);
    std::memcpy(&out[24], kSoftwareValue, 8);
    store_be16(&out[32], kFingerprint);
    store_be16(&out[34], 4);
    store_be32(&out[36], crc32(ByteSpan(out).first(32)) ^ kFingerprintXor);
    return out;
}

std::optional<TxId> decode_request(ByteSpan d) {
    if (!looks_like_stun(d) || load_be16(&d[0]) != kBindingRequest) return std::nullopt;
    if (d.size() < kHeaderLen + kFingerprintLen || load_be16(&d[2]) != d.size() - kHeaderLen) return std::nullopt;
    bool software = false;
    bool fingerprint = false;
    const bool well_formed = for_each_attribute(d, [&](uint16_t type, ByteSpan value, size_t at) {
        if (type == kSoftware && as_text(value) == kSoftwareValue) software = true;
        if (type == kFingerprint && value.size() == 4 && at + kFingerprintLen == d.size())
            fingerprint = load_be32(value.data()) == (crc32(d.first(at)) ^ kFingerprintXor);
    });
    if (!well_formed || !software || !fingerprint) return std::nullopt;
    TxId tx;
    std::memcpy(tx.data(), &d[8], tx.size());
    return tx;
}

size_t encode_response(const TxId& tx, const Endpoint& from, uint8_t out[kMaxResponseLen]) {
    const ByteSpan addr = from.addr.bytes();
    store_be16(out, kBindingSuccess);
    store_be16(out + 2, static_cast<uint16_t>(4 + 4 + addr.size()));
    store_be32(out + 4, kCookie);
    std::memcpy(out + 8, tx.data(), tx.size());
    store_be16(out + 20, kXorMappedAddress);
    store_be16(out + 22, static_cast<uint16_t>(4 + addr.size()));
    out[24] = 0;
    out[25] = from.addr.is_v4() ? kFamilyV4 : kFamilyV6;
    store_be16(out + 26, static_cast<uint16_t>(from.port ^ (kCookie >> 16)));
    for (size_t i = 0; i < addr.size(); ++i) out[28 + i] = static_cast<uint8_t>(addr[i] ^ out[4 + i]);
    return 28 + addr.size();
}

std::optional<Response> decode_response(ByteSpan d) {
    if (!looks_like_stun(d) || load_be16(&d[0]) != kBindingSuccess) return std::nullopt;
    const size_t body = load_be16(&d[2]);
    if (body > d.size() - kHeaderLen) return std::nullopt;
    const ByteSpan message = d.first(kHeaderLen + body);
    Endpoint xored, plain;
    const bool well_formed = for_each_attribute(message, [&](uint16_t type, ByteSpan value, size_t) {
        if ((type == kXorMappedAddress || type == kXorMappedAddressAlt) && !xored.is_valid())
            xored = read_address(value, &d[4]);
        else if (type == kMappedAddress && !plain.is_valid())
            plain = read_address(value, nullptr);
    });
    Response r;
    r.mapped = xored.is_valid() ? xored : plain;
    if (!well_formed || !r.mapped.is_valid() || r.mapped.port == 0) return std::nullopt;
    std::memcpy(r.tx.data(), &d[8], r.tx.size());
    return r;
}

}  // namespace mesh::stun
