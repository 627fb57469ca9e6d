// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/filter_rule.h"

#include <algorithm>
#include <array>

namespace mesh::netstack {

namespace {

using Bits = std::array<uint8_t, 16>;

Bits bits_of(const Addr& a) {
    Bits b{};
    const ByteSpan s = a.bytes();
    std::copy(s.begin(), s.end(), b.begin());
    return b;
}

Addr addr_of(const Bits& b, bool v4) { return v4 ? Addr::v4_bytes(b.data()) : Addr::v6_bytes(b.data(), false); }

bool bit(const Bits& b, unsigned i) { return ((b[i / 8] >> (7 - i % 8)) & 1) != 0; }
void set_bit(Bits& b, unsigned i, bool on) {
    const auto mask = static_cast<uint8_t>(0x80U >> (i % 8));
    b[i / 8] = static_cast<uint8_t>(on ? b[i / 8] | mask : b[i / 8] & ~mask);
}

/// Largest address of the prefix of `len` bits that starts at `first`.
Bits last_of(Bits first, unsigned len, unsigned width) {
    for (unsigned i = len; i < width; ++i) set_bit(first, i, true);
    return first;
}

/// Adds one; false on overflow.
bool increment(Bits& b, unsigned width) {
    for (unsigned i = width / 8; i-- > 0;) {
        b[i] = static_cast<uint8_t>(b[i] + 1);
        if (b[i] != 0) return true;
    }
    return false;
}

/// The fewest prefixes that cover first..last: at each step the largest block that starts here and does not overshoot.
void append_range(Bits first, const Bits& last, bool v4, std::vector<Prefix>& out) {
    const unsigned width = v4 ? 32 : 128;
    while (true) {
        unsigned len = width;
        while (len > 0 && !bit(first, len - 1) && last_of(first, len - 1, width) <= last) --len;
        out.push_back({addr_of(first, v4), static_cast<uint8_t>(len)});
        Bits next = last_of(first, len, width);
        if (next >= last || !increment(next, width)) return;
        first = next;
    }
}

}  // namespace

bool parse_ip_set(std::string_view text, std::vector<Prefix>& out) {
    if (text == "*") {
        out.push_back({Addr::v4(0), 0});
        const Bits zero{};
        out.push_back({addr_of(zero, false), 0});
        return true;
    }
    if (const size_t dash = text.find('-'); dash != std::string_view::npos) {
        const auto a = Addr::parse(text.substr(0, dash));
        const auto b = Addr::parse(text.substr(dash + 1));
        if (!a || !b || a->is_v4() != b->is_v4() || *b < *a) return false;
        append_range(bits_of(*a), bits_of(*b), a->is_v4(), out);
        return true;
    }
    const auto p = Prefix::parse(text);
    if (!p || p->masked() != *p) return false;
    out.push_back(*p);
    return true;
}

bool parse_source(std::string_view text, FilterRule& rule) {
    constexpr std::string_view kCap = "cap:";
    if (text.substr(0, kCap.size()) == kCap) {
        if (text.size() == kCap.size()) return false;
        rule.src_caps.emplace_back(text.substr(kCap.size()));
        return true;
    }
    return parse_ip_set(text, rule.src);
}

}  // namespace mesh::netstack
