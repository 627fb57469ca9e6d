// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/peer_api_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "platform/net/stream_pair.h"

namespace mesh::daemon {

namespace {
constexpr size_t kMaxRefusal = 1000;
}

PeerApiProbe::PeerApiProbe(platform::Loop& loop, const Endpoint& to, const std::function<void(Outgoing)>& dial, Done done)
    : loop_(loop), began_(platform::read_clock()), done_(std::move(done)) {
    parser_.stop_at_headers();
    auto pair = platform::stream_pair();
    if (!pair) return;  // its asker's patience ends as without an answer
    stream_ = std::move(pair->first);
    stream_.attach(loop_, *this);
    stream_.write(fmt::format("HEAD / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", to.str()));
    Outgoing out;
    out.client = std::move(pair->second);
    out.to = to;
    out.greeting = "+";
    out.refusal = [](const Error& e) { return "-" + e.message(); };
    dial(std::move(out));
}

void PeerApiProbe::on_bytes(MutByteSpan all) {
    ByteSpan bytes = all;
    if (heard_ != "+") {
        const size_t n = heard_.empty() && bytes[0] == '+' ? 1 : std::min(bytes.size(), kMaxRefusal - std::min(kMaxRefusal, heard_.size()));
        heard_.append(as_text(bytes.first(n)));
        bytes = bytes.subspan(n);
        if (heard_ != "+" || bytes.empty()) return;
    }
    if (!parser_.feed(bytes)) return end(fail(Code::kInvalid, "its answer is not HTTP"));
    if (!parser_.headers_done()) return;
    const unsigned status = parser_.take_response().status;
    if (status != 200) return end(fail(Code::kUnavailable, fmt::format("HTTP status {}", status)));
    end(platform::read_clock() - began_);
}

void PeerApiProbe::on_closed(const Status& /*why*/) {
    end(fail(Code::kUnavailable, heard_.size() > 1 ? log::printable(heard_.substr(1)) : "it closed the connection"));
}

void PeerApiProbe::end(const Result<Duration>& result) {
    stream_.close();
    const Done done = std::exchange(done_, nullptr);
    if (done) done(result);
}

}  // namespace mesh::daemon
