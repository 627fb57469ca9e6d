// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// DNS messages on the wire (RFC 1035, EDNS: RFC 6891). Names are text in lower case without the final dot, "" is the
/// root; bytes that do not belong into a host name, a dot inside a label among them, are written as \DDD.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/ip.h"

namespace mesh::dns {

enum Type : uint16_t {
    kTypeA = 1, kTypeNs = 2, kTypeCname = 5, kTypeSoa = 6, kTypePtr = 12, kTypeHinfo = 13, kTypeMx = 15, kTypeTxt = 16,
    kTypeAaaa = 28, kTypeSrv = 33, kTypeOpt = 41, kTypeAxfr = 252, kTypeAll = 255,
};
enum Rcode : uint8_t { kNoError = 0, kFormErr = 1, kServFail = 2, kNxDomain = 3, kNotImp = 4, kRefused = 5 };

inline constexpr uint16_t kClassIn = 1;
inline constexpr size_t kHeaderBytes = 12;
inline constexpr size_t kMaxQueryBytes = 4096;
inline constexpr size_t kPlainUdpBytes = 512;  ///< what a client without EDNS takes (RFC 1035 section 2.3.4)

struct Header {
    uint16_t id = 0;
    bool response = false, authoritative = false, truncated = false, recursion_desired = false, recursion_available = false;
    uint8_t opcode = 0;
    uint8_t rcode = 0;
    uint16_t questions = 0, answers = 0, authorities = 0, additionals = 0;
};
[[nodiscard]] std::optional<Header> parse_header(ByteSpan message);

/// A question that can be answered or passed on: one question, opcode QUERY.
struct Query {
    Header header;
    std::string name;
    uint16_t type = 0;
    uint16_t cls = 0;
    Bytes question;  ///< as it came: name, type, class
    std::optional<uint16_t> edns_size;  ///< UDP size the client takes, if it speaks EDNS
    /// Largest answer over UDP.
    [[nodiscard]] size_t udp_limit() const;
};
enum class QueryError : uint8_t {
    kNone,
    kIgnore,   ///< no header, or a response: silence, so that two servers never talk for ever
    kFormErr,
    kNotImp,   ///< another opcode
};
/// After kFormErr and kNotImp `out.header` is good and `out.question` empty.
[[nodiscard]] QueryError parse_query(ByteSpan message, Query& out);

/// Is `message` an answer to `query`: response bit, ID `id`, the same question (case aside)?
[[nodiscard]] bool answers(ByteSpan message, const Query& query, uint16_t id);

struct Record {
    std::string name;
    uint16_t type = 0;
    uint16_t cls = 0;
    uint32_t ttl = 0;
    size_t data_at = 0;  ///< offset of the data in the message
    ByteSpan data;
};
struct Message {
    Header header;
    std::vector<Record> answers;
};
/// Reads everything and keeps header and answers. nullopt if any part of it is malformed.
[[nodiscard]] std::optional<Message> parse_message(ByteSpan message);
/// The data for people: an address, a name, quoted texts, "10 mail.example."; of unknown types the bytes in hex.
[[nodiscard]] std::string data_text(ByteSpan message, const Record& record);

/// "A" → 1; also "TYPE257". nullopt for unknown words.
[[nodiscard]] std::optional<uint16_t> parse_type(std::string_view text);
[[nodiscard]] std::string type_name(uint16_t type);  ///< "A", "TYPE257"

/// A query of our own. Empty if the name does not fit (label over 63, name over 253 bytes).
[[nodiscard]] Bytes make_query(uint16_t id, std::string_view name, uint16_t type);
/// Appends a name in wire form; false if it does not fit (and nothing appended).
[[nodiscard]] bool append_name(Bytes& out, std::string_view name);
/// Lower case (ASCII), final dot removed.
[[nodiscard]] std::string canonical(std::string_view name);
/// "a.b.c" is inside "b.c" and inside itself; everything is inside "".
[[nodiscard]] bool is_inside(std::string_view name, std::string_view zone);
/// The address a reverse name stands for ("4.3.2.1.in-addr.arpa"), if complete.
[[nodiscard]] std::optional<Addr> parse_reverse(std::string_view name);
[[nodiscard]] std::string reverse_name(const Addr& a);

/// Builds one answer to one query. Names are written in full, as the original does.
class Reply {
   public:
    Reply(const Query& query, Rcode rcode, bool authoritative);
    /// A record under the asked name.
    void add(uint16_t type, uint32_t ttl, ByteSpan data);
    void add_address(const Addr& a, uint32_t ttl);
    /// The authority record that tells caches how long "no" holds (RFC 2308).
    void add_soa(std::string_view zone, uint32_t ttl);
    [[nodiscard]] Bytes finish();

   private:
    Bytes out_;
    Bytes name_;  ///< the asked name as it came
    bool edns_ = false;
    uint16_t answers_ = 0, authorities_ = 0;
};
/// An answer without records.
[[nodiscard]] Bytes error_reply(const Query& query, Rcode rcode);
/// What goes to a UDP client in place of an answer that is too long: question and TC bit, so that it comes back by TCP.
[[nodiscard]] Bytes truncated_reply(const Query& query, ByteSpan answer);

}  // namespace mesh::dns
