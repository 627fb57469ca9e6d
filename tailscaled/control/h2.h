// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// HTTP/2 with prior knowledge (RFC 9113) over a byte stream, both ends, by nghttp2. Pure: feed bytes, take events, take
/// output. Events come out of a list instead of callbacks, so that whoever handles one may do anything to the session.
///
/// WINDOW_UPDATEs are sent as data is taken in, so a response without end never stalls; whoever takes events must
/// bound what it keeps.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace mesh::control {

using H2Headers = std::vector<std::pair<std::string, std::string>>;

struct H2Event {
    enum class Kind : uint8_t {
        kHeaders,  ///< status (client) or method and path (server) and headers are set
        kData,
        kEnd,    ///< the peer's message is complete
        kClose,  ///< the stream is gone; `error` 0 = in good order
        kPong,   ///< answer to ping()
    } kind = Kind::kData;
    int32_t stream = 0;
    int status = 0;
    std::string method, path;
    H2Headers headers;
    Bytes data;
    uint32_t error = 0;
};

class H2Session {
   public:
    enum class Role : uint8_t { kClient, kServer };
    struct Limits {
        size_t header_bytes = 16U << 10;     ///< per message; more resets the stream
        size_t header_fields = 100;          ///< the same; one byte on the wire can stand for a whole field
        uint32_t concurrent_streams = 250;   ///< server
        uint32_t window_bytes = 1U << 20;    ///< receive window, per stream and connection
        size_t queued_body_bytes = 64U << 20;  ///< per stream, not yet taken by the peer; more resets it
    };
    H2Session(Role role, const Limits& limits);
    explicit H2Session(Role role) : H2Session(role, Limits{}) {}
    ~H2Session();
    H2Session(const H2Session&) = delete;
    H2Session& operator=(const H2Session&) = delete;

    /// Client: a request with its whole body. The stream's number, or an error when there can be no more.
    [[nodiscard]] Result<int32_t> request(std::string_view method, std::string_view authority, std::string_view path,
                                          const H2Headers& headers, std::string body);
    enum class Body : uint8_t { kWhole, kOpen };
    /// Server: kOpen = more follows by send_data.
    void respond(int32_t stream, int status, const H2Headers& headers, std::string body, Body kind = Body::kWhole);
    /// Server: more of an open body. False: the stream is gone or its queue was full (it is then reset).
    bool send_data(int32_t stream, ByteSpan data);
    void end_data(int32_t stream);
    /// CANCEL; the kClose event follows when the reset has been taken from the output.
    void reset(int32_t stream);
    /// Asks the peer for a sign of life.
    void ping();
    /// GOAWAY; open streams go on.
    void shut_down();

    /// Bytes from the peer. Error: the connection is beyond repair (output may still hold a GOAWAY worth sending).
    [[nodiscard]] Status receive(ByteSpan bytes);
    /// Next event; false if there is none.
    [[nodiscard]] bool next_event(H2Event& out);
    /// Appends what has to be sent now. Call after receive() and after every command.
    [[nodiscard]] Status take_output(Bytes& out);
    /// Nothing more to read or write: close the connection.
    [[nodiscard]] bool finished() const;

   private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace mesh::control
