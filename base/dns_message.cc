// SPDX-License-Identifier: BSD-3-Clause
#include "base/dns_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace mesh::dns {

namespace {

constexpr size_t kMaxNameBytes = 255;
constexpr size_t kMaxLabel = 63;
constexpr uint16_t kOwnUdpSize = 4096;  // what we say we take
constexpr size_t kMaxRecords = 4096;    // no message of 64 KiB holds more

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Reads a name at `at`, following pointers backwards. Sets `at` behind it.
bool read_name(ByteSpan message, size_t& at, std::string& out) {
    out.clear();
    size_t pos = at, bytes = 0;
    size_t lowest = at;  // pointers must go back, or the walk might never end (RFC 1035 section 4.1.4: "prior occurrence")
    bool jumped = false;
    for (;;) {
        if (pos >= message.size()) return false;
        const uint8_t len = message[pos];
        if (len == 0) {
            if (!jumped) at = pos + 1;
            return true;
        }
        if ((len & 0xC0) == 0xC0) {
            if (pos + 1 >= message.size()) return false;
            const size_t to = static_cast<size_t>(len & 0x3F) << 8 | message[pos + 1];
            if (to >= lowest || to < kHeaderBytes) return false;  // there are no names in the header
            if (!jumped) at = pos + 2;
            jumped = true;
            lowest = pos = to;
            continue;
        }
        if (len > kMaxLabel || pos + 1 + len > message.size()) return false;
        bytes += 1U + len;
        if (bytes + 1 > kMaxNameBytes) return false;
        if (!out.empty()) out += '.';
        for (size_t i = 0; i < len; ++i) {
            const auto c = static_cast<char>(message[pos + 1 + i]);
            if (c <= ' ' || c == '.' || c == '\\' || c == '"' || c > '~')
                out += fmt::format("\\{:03}", static_cast<uint8_t>(c));
            else
                out += lower(c);
        }
        pos += 1U + len;
    }
}

bool read_record(ByteSpan message, size_t& at, Record& r) {
    if (!read_name(message, at, r.name) || at + 10 > message.size()) return false;
    const uint8_t* p = message.data() + at;
    r.type = load_be16(p);
    r.cls = load_be16(p + 2);
    r.ttl = load_be32(p + 4);
    const size_t n = load_be16(p + 8);
    at += 10;
    if (at + n > message.size()) return false;
    r.data_at = at;
    r.data = message.subspan(at, n);
    at += n;
    return true;
}

constexpr std::array<std::pair<std::string_view, uint16_t>, 27> kTypes{{
    {"A", 1}, {"NS", 2}, {"CNAME", 5}, {"SOA", 6}, {"PTR", 12}, {"HINFO", 13}, {"MX", 15}, {"TXT", 16}, {"AAAA", 28},
    {"SRV", 33}, {"NAPTR", 35}, {"DNAME", 39}, {"OPT", 41}, {"DS", 43}, {"SSHFP", 44}, {"RRSIG", 46}, {"NSEC", 47},
    {"DNSKEY", 48}, {"NSEC3", 50}, {"TLSA", 52}, {"SVCB", 64}, {"HTTPS", 65}, {"WKS", 11}, {"MINFO", 14}, {"AXFR", 252},
    {"ANY", 255}, {"CAA", 257}}};

void put_header(Bytes& out, const Header& h) {
    WireWriter w(out);
    w.be16(h.id);
    w.be16(static_cast<uint16_t>((h.response ? 0x8000 : 0) | (h.opcode & 0xF) << 11 | (h.authoritative ? 0x0400 : 0) |
                                 (h.truncated ? 0x0200 : 0) | (h.recursion_desired ? 0x0100 : 0) |
                                 (h.recursion_available ? 0x0080 : 0) | (h.rcode & 0xF)));
    w.be16(h.questions);
    w.be16(h.answers);
    w.be16(h.authorities);
    w.be16(h.additionals);
}

void put_opt(Bytes& out) {
    WireWriter w(out);
    w.u8(0);
    w.be16(kTypeOpt);
    w.be16(kOwnUdpSize);
    w.be32(0);
    w.be16(0);
}

Header reply_header(const Query& q, uint8_t rcode, bool authoritative) {
    Header h;
    h.id = q.header.id;
    h.response = true;
    h.opcode = q.header.opcode;
    h.authoritative = authoritative;
    h.recursion_desired = q.header.recursion_desired;
    h.recursion_available = true;
    h.rcode = rcode;
    h.questions = q.question.empty() ? 0 : 1;
    return h;
}

}  // namespace

std::optional<Header> parse_header(ByteSpan m) {
    if (m.size() < kHeaderBytes) return std::nullopt;
    Header h;
    h.id = load_be16(m.data());
    const uint16_t f = load_be16(m.data() + 2);
    h.response = (f & 0x8000) != 0;
    h.opcode = static_cast<uint8_t>(f >> 11 & 0xF);
    h.authoritative = (f & 0x0400) != 0;
    h.truncated = (f & 0x0200) != 0;
    h.recursion_desired = (f & 0x0100) != 0;
    h.recursion_available = (f & 0x0080) != 0;
    h.rcode = static_cast<uint8_t>(f & 0xF);
    h.questions = load_be16(m.data() + 4);
    h.answers = load_be16(m.data() + 6);
    h.authorities = load_be16(m.data() + 8);
    h.additionals = load_be16(m.data() + 10);
    return h;
}

size_t Query::udp_limit() const {
    return edns_size ? std::clamp<size_t>(*edns_size, kPlainUdpBytes, kOwnUdpSize) : kPlainUdpBytes;
}

QueryError parse_query(ByteSpan m, Query& out) {
    out = {};
    const auto header = parse_header(m);
    if (!header || header->response) return QueryError::kIgnore;
    out.header = *header;
    if (header->opcode != 0) return QueryError::kNotImp;
    if (header->questions != 1 || m.size() > kMaxQueryBytes) return QueryError::kFormErr;
    size_t at = kHeaderBytes;
    if (!read_name(m, at, out.name) || at + 4 > m.size()) return QueryError::kFormErr;
    out.type = load_be16(m.data() + at);
    out.cls = load_be16(m.data() + at + 2);
    at += 4;
    // Additional records of a query: EDNS. What comes before it is nobody's business here, but must be readable.
    const size_t records = size_t{header->answers} + header->authorities + header->additionals;
    if (records > kMaxRecords) return QueryError::kFormErr;
    Bytes question = to_bytes(m.subspan(kHeaderBytes, at - kHeaderBytes));
    for (size_t i = 0; i < records; ++i) {
        Record r;
        if (!read_record(m, at, r)) return QueryError::kFormErr;
        if (r.type == kTypeOpt) out.edns_size = r.cls;
    }
    out.question = std::move(question);
    return QueryError::kNone;
}

bool answers(ByteSpan m, const Query& query, uint16_t id) {
    const auto h = parse_header(m);
    if (!h || !h->response || h->id != id) return false;
    // Servers that cannot read a query may leave the question out.
    if (h->questions == 0) return h->rcode != kNoError;
    size_t at = kHeaderBytes;
    std::string name;
    return h->questions == 1 && read_name(m, at, name) && at + 4 <= m.size() && name == query.name &&
           load_be16(m.data() + at) == query.type && load_be16(m.data() + at + 2) == query.cls;
}

std::optional<Message> parse_message(ByteSpan m) {
    const auto h = parse_header(m);
    if (!h) return std::nullopt;
    Message out;
    out.header = *h;
    size_t at = kHeaderBytes;
    for (unsigned i = 0; i < h->questions; ++i) {
        std::string name;
        if (!read_name(m, at, name) || at + 4 > m.size()) return std::nullopt;
        at += 4;
    }
    const size_t records = size_t{h->answers} + h->authorities + h->additionals;
    for (size_t i = 0; i < records; ++i) {
        Record r;
        if (!read_record(m, at, r)) return std::nullopt;
        if (i < h->answers) out.answers.push_back(std::move(r));
    }
    return out;
}

std::string data_text(ByteSpan m, const Record& r) {
    const ByteSpan d = r.data;
    const auto name_at = [&](size_t offset) {
        std::string name;
        size_t at = r.data_at + offset;
        // Never beyond the record; pointers lead back.
        return offset < d.size() && read_name(m.first(r.data_at + d.size()), at, name) ? name + "." : std::string("?");
    };
    switch (r.type) {
        case kTypeA:
            if (d.size() == 4) return Addr::v4_bytes(d.data()).str();
            break;
        case kTypeAaaa:
            if (d.size() == 16) return Addr::v6_bytes(d.data(), false).str();
            break;
        case kTypeNs:
        case kTypeCname:
        case kTypePtr: return name_at(0);
        case kTypeMx:
            if (d.size() > 2) return fmt::format("{} {}", load_be16(d.data()), name_at(2));
            break;
        case kTypeSrv:
            if (d.size() > 6)
                return fmt::format("{} {} {} {}", load_be16(d.data()), load_be16(d.data() + 2), load_be16(d.data() + 4), name_at(6));
            break;
        case kTypeSoa: return name_at(0);
        case kTypeTxt: {
            std::string out;
            for (size_t at = 0; at < d.size();) {
                const size_t n = std::min<size_t>(d[at], d.size() - at - 1);
                out += out.empty() ? "\"" : " \"";
                for (const uint8_t c : d.subspan(at + 1, n))
                    out += c < ' ' || c > '~' || c == '"' || c == '\\' ? fmt::format("\\{:03}", c) : std::string(1, static_cast<char>(c));
                out += '"';
                at += 1 + n;
            }
            return out;
        }
        default: break;
    }
    return fmt::format("\\# {} {}", d.size(), hex_encode(d));
}

std::optional<uint16_t> parse_type(std::string_view text) {
    std::string upper(text);
    std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
    if (upper == "ALL") return kTypeAll;
    for (const auto& [name, type] : kTypes)
        if (name == upper) return type;
    unsigned n = 0;
    if (!upper.starts_with("TYPE") || upper.size() < 5) return std::nullopt;
    const auto [end, ec] = std::from_chars(upper.data() + 4, upper.data() + upper.size(), n);
    if (ec != std::errc() || end != upper.data() + upper.size() || n > 0xFFFF) return std::nullopt;
    return static_cast<uint16_t>(n);
}

std::string type_name(uint16_t type) {
    for (const auto& [name, t] : kTypes)
        if (t == type) return std::string(name);
    return fmt::format("TYPE{}", type);
}

bool append_name(Bytes& out, std::string_view name) {
    if (name.ends_with('.')) name.remove_suffix(1);
    const size_t start = out.size();
    while (!name.empty()) {
        Bytes label;
        size_t i = 0;
        for (; i < name.size() && name[i] != '.'; ++i) {
            unsigned value = 0;
            if (name[i] == '\\' && i + 3 < name.size() &&
                std::from_chars(name.data() + i + 1, name.data() + i + 4, value).ptr == name.data() + i + 4 && value < 256) {
                label.push_back(static_cast<uint8_t>(value));
                i += 3;
            } else {
                label.push_back(static_cast<uint8_t>(name[i]));
            }
        }
        if (label.empty() || label.size() > kMaxLabel || out.size() - start + label.size() + 2 > kMaxNameBytes) {
            out.resize(start);
            return false;
        }
        out.push_back(static_cast<uint8_t>(label.size()));
        out.insert(out.end(), label.begin(), label.end());
        name.remove_prefix(std::min(i + 1, name.size()));
    }
    out.push_back(0);
    return true;
}

Bytes make_query(uint16_t id, std::string_view name, uint16_t type) {
    Bytes out;
    Header h;
    h.id = id;
    h.recursion_desired = true;
    h.questions = 1;
    h.additionals = 1;
    put_header(out, h);
    if (!append_name(out, name)) return {};
    WireWriter w(out);
    w.be16(type);
    w.be16(kClassIn);
    put_opt(out);
    return out;
}

std::string canonical(std::string_view name) {
    if (name.ends_with('.')) name.remove_suffix(1);
    std::string out(name);
    std::transform(out.begin(), out.end(), out.begin(), lower);
    return out;
}

bool is_inside(std::string_view name, std::string_view zone) {
    if (zone.empty() || name == zone) return true;
    return name.size() > zone.size() && name.ends_with(zone) && name[name.size() - zone.size() - 1] == '.';
}

std::optional<Addr> parse_reverse(std::string_view name) {
    const auto labels = [](std::string_view text) {
        std::vector<std::string_view> out;
        while (out.size() <= 32) {
            const size_t dot = text.find('.');
            out.push_back(text.substr(0, dot));
            if (dot == std::string_view::npos) break;
            text.remove_prefix(dot + 1);
        }
        std::reverse(out.begin(), out.end());
        return out;
    };
    constexpr std::string_view k4 = ".in-addr.arpa", k6 = ".ip6.arpa";
    if (name.ends_with(k4)) {
        const auto parts = labels(name.substr(0, name.size() - k4.size()));
        if (parts.size() != 4) return std::nullopt;
        const auto a = Addr::parse(fmt::format("{}", fmt::join(parts, ".")));
        return a && a->is_v4() ? a : std::nullopt;
    }
    if (name.ends_with(k6)) {
        const auto parts = labels(name.substr(0, name.size() - k6.size()));
        if (parts.size() != 32) return std::nullopt;
        std::string hex;
        for (const auto p : parts) {
            if (p.size() != 1) return std::nullopt;
            hex += p;
        }
        std::array<uint8_t, 16> bytes{};
        if (!hex_decode(hex, bytes)) return std::nullopt;
        return Addr::v6_bytes(bytes.data(), false);
    }
    return std::nullopt;
}

std::string reverse_name(const Addr& a) {
    std::string out;
    const ByteSpan b = a.bytes();
    for (size_t i = b.size(); i-- > 0;) {
        if (a.is_v4())
            out += fmt::format("{}.", b[i]);
        else
            out += fmt::format("{:x}.{:x}.", b[i] & 0xF, b[i] >> 4);
    }
    return out + (a.is_v4() ? "in-addr.arpa" : "ip6.arpa");
}

Reply::Reply(const Query& query, Rcode rcode, bool authoritative) : edns_(query.edns_size.has_value()) {
    put_header(out_, reply_header(query, rcode, authoritative));
    out_.insert(out_.end(), query.question.begin(), query.question.end());
    if (query.question.size() >= 4) name_.assign(query.question.begin(), query.question.end() - 4);
}

void Reply::add(uint16_t type, uint32_t ttl, ByteSpan data) {
    out_.insert(out_.end(), name_.begin(), name_.end());
    WireWriter w(out_);
    w.be16(type);
    w.be16(kClassIn);
    w.be32(ttl);
    w.be16(static_cast<uint16_t>(data.size()));
    w.bytes(data);
    ++answers_;
}

void Reply::add_address(const Addr& a, uint32_t ttl) { add(a.is_v4() ? kTypeA : kTypeAaaa, ttl, a.bytes()); }

void Reply::add_soa(std::string_view zone, uint32_t ttl) {
    if (!append_name(out_, zone)) return;
    WireWriter w(out_);
    w.be16(kTypeSoa);
    w.be16(kClassIn);
    w.be32(ttl);
    w.be16(2 + 5 * 4);
    w.u8(0);  // primary server and mailbox: the root, we have none to name
    w.u8(0);
    w.be32(1);
    for (int i = 0; i < 3; ++i) w.be32(ttl);
    w.be32(ttl);  // minimum: how long "no" holds
    ++authorities_;
}

Bytes Reply::finish() {
    if (edns_) put_opt(out_);
    store_be16(out_.data() + 6, answers_);
    store_be16(out_.data() + 8, authorities_);
    store_be16(out_.data() + 10, edns_ ? 1 : 0);
    return std::move(out_);
}

Bytes error_reply(const Query& query, Rcode rcode) { return Reply(query, rcode, false).finish(); }

Bytes truncated_reply(const Query& query, ByteSpan answer) {
    Bytes out = Reply(query, kNoError, false).finish();
    if (answer.size() >= kHeaderBytes) {
        // Flags as the server gave them (AA, AD, rcode), ours is only TC.
        const uint16_t flags = load_be16(answer.data() + 2);
        store_be16(out.data() + 2, static_cast<uint16_t>(flags | 0x8200));
    }
    return out;
}

}  // namespace mesh::dns
