// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/control/h2.h"

#include <fmt/format.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>

#include "base/check.h"

namespace mesh::control {
namespace {

/// One direction of one stream's body, waiting for the peer's window.
struct Outgoing {
    std::string text;
    size_t sent = 0;
    bool ended = false;
    bool deferred = false;
};

nghttp2_nv field(std::string_view name, std::string_view value) {
    nghttp2_nv nv{};
    // nghttp2 takes pointers to non-const but copies (no NO_COPY flag is set).
    nv.name = const_cast<uint8_t*>(as_bytes(name).data());
    nv.namelen = name.size();
    nv.value = const_cast<uint8_t*>(as_bytes(value).data());
    nv.valuelen = value.size();
    return nv;
}

std::string_view text_of(const uint8_t* p, size_t n) { return as_text({p, n}); }

}  // namespace

struct H2Session::State {
    Role role;
    Limits limits;
    nghttp2_session* session = nullptr;
    std::deque<H2Event> events;
    std::map<int32_t, H2Event> heads;       // headers under way
    std::map<int32_t, size_t> head_bytes;   // of them
    std::map<int32_t, Outgoing> outgoing;

    static State& of(void* p) { return *static_cast<State*>(p); }

    static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* p) {
        State& s = of(p);
        H2Event& e = s.heads[frame->hd.stream_id];
        e = H2Event{};
        e.kind = H2Event::Kind::kHeaders;
        e.stream = frame->hd.stream_id;
        s.head_bytes[frame->hd.stream_id] = 0;
        return 0;
    }
    static int on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_len,
                         const uint8_t* value, size_t value_len, uint8_t, void* p) {
        State& s = of(p);
        const auto it = s.heads.find(frame->hd.stream_id);
        if (it == s.heads.end()) return 0;
        if ((s.head_bytes[frame->hd.stream_id] += name_len + value_len + 32) > s.limits.header_bytes)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        H2Event& e = it->second;
        if (e.headers.size() >= s.limits.header_fields) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        const std::string_view n = text_of(name, name_len);
        const std::string_view v = text_of(value, value_len);
        if (n == ":status")
            std::from_chars(v.data(), v.data() + v.size(), e.status);
        else if (n == ":method")
            e.method = v;
        else if (n == ":path")
            e.path = v;
        else if (!n.starts_with(':'))
            e.headers.emplace_back(n, v);
        return 0;
    }
    static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* p) {
        State& s = of(p);
        const int32_t id = frame->hd.stream_id;
        if (frame->hd.type == NGHTTP2_HEADERS) {
            if (auto node = s.heads.extract(id); !node.empty()) {
                s.head_bytes.erase(id);
                // 1xx answers and trailers carry nothing this protocol uses.
                const bool interim = node.mapped().status >= 100 && node.mapped().status < 200;
                const bool trailer = frame->headers.cat == NGHTTP2_HCAT_HEADERS && s.role == Role::kServer;
                const bool no_head = s.role == Role::kClient && node.mapped().status == 0;
                if (!interim && !trailer && !no_head) s.events.push_back(std::move(node.mapped()));
            }
        }
        if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
            H2Event e;
            e.kind = H2Event::Kind::kPong;
            s.events.push_back(std::move(e));
        }
        if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
            (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
            H2Event e;
            e.kind = H2Event::Kind::kEnd;
            e.stream = id;
            s.events.push_back(std::move(e));
        }
        return 0;
    }
    static int on_data(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t len, void* p) {
        State& s = of(p);
        if (len == 0) return 0;
        if (!s.events.empty() && s.events.back().kind == H2Event::Kind::kData && s.events.back().stream == id) {
            s.events.back().data.insert(s.events.back().data.end(), data, data + len);
            return 0;
        }
        H2Event e;
        e.stream = id;
        e.data.assign(data, data + len);
        s.events.push_back(std::move(e));
        return 0;
    }
    static int on_close(nghttp2_session*, int32_t id, uint32_t error, void* p) {
        State& s = of(p);
        s.outgoing.erase(id);
        s.heads.erase(id);
        s.head_bytes.erase(id);
        H2Event e;
        e.kind = H2Event::Kind::kClose;
        e.stream = id;
        e.error = error;
        s.events.push_back(std::move(e));
        return 0;
    }
    static ssize_t read_body(nghttp2_session*, int32_t id, uint8_t* buf, size_t len, uint32_t* flags,
                             nghttp2_data_source*, void* p) {
        State& s = of(p);
        const auto it = s.outgoing.find(id);
        if (it == s.outgoing.end()) {
            *flags |= NGHTTP2_DATA_FLAG_EOF;
            return 0;
        }
        Outgoing& o = it->second;
        const size_t n = std::min(len, o.text.size() - o.sent);
        std::copy_n(o.text.data() + o.sent, n, buf);
        o.sent += n;
        if (o.sent == o.text.size()) {
            o.text.clear();
            o.sent = 0;
            if (o.ended) {
                *flags |= NGHTTP2_DATA_FLAG_EOF;
            } else if (n == 0) {
                o.deferred = true;
                return NGHTTP2_ERR_DEFERRED;
            }
        }
        return static_cast<ssize_t>(n);
    }
};

H2Session::H2Session(Role role, const Limits& limits) : state_(std::make_unique<State>()) {
    state_->role = role;
    state_->limits = limits;
    nghttp2_session_callbacks* callbacks = nullptr;
    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, State::on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, State::on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, State::on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, State::on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, State::on_close);
    nghttp2_option* option = nullptr;
    CHECK(nghttp2_option_new(&option) == 0);
    // Closed streams are not kept for priorities, which nobody uses here.
    nghttp2_option_set_no_closed_streams(option, 1);
    const int rc = role == Role::kClient
                       ? nghttp2_session_client_new2(&state_->session, callbacks, state_.get(), option)
                       : nghttp2_session_server_new2(&state_->session, callbacks, state_.get(), option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    CHECK(rc == 0);

    std::vector<nghttp2_settings_entry> settings = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits.window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(limits.header_bytes)},
    };
    if (role == Role::kClient)
        settings.push_back({NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
    else
        settings.push_back({NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.concurrent_streams});
    CHECK(nghttp2_submit_settings(state_->session, NGHTTP2_FLAG_NONE, settings.data(), settings.size()) == 0);
    nghttp2_session_set_local_window_size(state_->session, NGHTTP2_FLAG_NONE, 0,
                                          static_cast<int32_t>(limits.window_bytes));
}

H2Session::~H2Session() { nghttp2_session_del(state_->session); }

Result<int32_t> H2Session::request(std::string_view method, std::string_view authority, std::string_view path,
                                   const H2Headers& headers, std::string body) {
    std::vector<nghttp2_nv> fields = {field(":method", method), field(":scheme", "https"), field(":authority", authority),
                                      field(":path", path)};
    const std::string length = fmt::format("{}", body.size());
    if (!body.empty()) fields.push_back(field("content-length", length));
    for (const auto& [name, value] : headers) fields.push_back(field(name, value));
    nghttp2_data_provider provider{};
    provider.read_callback = State::read_body;
    const bool has_body = !body.empty();
    const int32_t id = nghttp2_submit_request(state_->session, nullptr, fields.data(), fields.size(),
                                              has_body ? &provider : nullptr, nullptr);
    if (id < 0) return fail(Code::kUnavailable, fmt::format("HTTP/2: {}", nghttp2_strerror(id)));
    if (has_body) {
        Outgoing& o = state_->outgoing[id];
        o.text = std::move(body);
        o.ended = true;
    }
    return id;
}

void H2Session::respond(int32_t stream, int status, const H2Headers& headers, std::string body, Body kind) {
    const std::string code = fmt::format("{}", status);
    const std::string length = fmt::format("{}", body.size());
    std::vector<nghttp2_nv> fields = {field(":status", code)};
    if (kind == Body::kWhole) fields.push_back(field("content-length", length));
    for (const auto& [name, value] : headers) fields.push_back(field(name, value));
    nghttp2_data_provider provider{};
    provider.read_callback = State::read_body;
    const bool has_body = kind == Body::kOpen || !body.empty();
    if (nghttp2_submit_response(state_->session, stream, fields.data(), fields.size(), has_body ? &provider : nullptr) != 0)
        return;
    if (has_body) {
        Outgoing& o = state_->outgoing[stream];
        o.text = std::move(body);
        o.ended = kind == Body::kWhole;
    }
}

bool H2Session::send_data(int32_t stream, ByteSpan data) {
    const auto it = state_->outgoing.find(stream);
    if (it == state_->outgoing.end() || it->second.ended) return false;
    Outgoing& o = it->second;
    if (o.text.size() - o.sent + data.size() > state_->limits.queued_body_bytes) {
        reset(stream);
        return false;
    }
    if (o.sent > 0 && o.sent >= o.text.size() / 2) {
        o.text.erase(0, o.sent);
        o.sent = 0;
    }
    o.text.append(as_text(data));
    if (o.deferred) {
        o.deferred = false;
        nghttp2_session_resume_data(state_->session, stream);
    }
    return true;
}

void H2Session::end_data(int32_t stream) {
    const auto it = state_->outgoing.find(stream);
    if (it == state_->outgoing.end()) return;
    it->second.ended = true;
    if (it->second.deferred) {
        it->second.deferred = false;
        nghttp2_session_resume_data(state_->session, stream);
    }
}

void H2Session::reset(int32_t stream) {
    nghttp2_submit_rst_stream(state_->session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
}

void H2Session::ping() { nghttp2_submit_ping(state_->session, NGHTTP2_FLAG_NONE, nullptr); }

void H2Session::shut_down() { nghttp2_session_terminate_session(state_->session, NGHTTP2_NO_ERROR); }

Status H2Session::receive(ByteSpan bytes) {
    const ssize_t n = nghttp2_session_mem_recv(state_->session, bytes.data(), bytes.size());
    if (n < 0) return fail(Code::kInvalid, fmt::format("HTTP/2: {}", nghttp2_strerror(static_cast<int>(n))));
    return {};
}

bool H2Session::next_event(H2Event& out) {
    if (state_->events.empty()) return false;
    out = std::move(state_->events.front());
    state_->events.pop_front();
    return true;
}

Status H2Session::take_output(Bytes& out) {
    for (;;) {
        const uint8_t* data = nullptr;
        const ssize_t n = nghttp2_session_mem_send(state_->session, &data);
        if (n < 0) return fail(Code::kInternal, fmt::format("HTTP/2: {}", nghttp2_strerror(static_cast<int>(n))));
        if (n == 0) return {};
        out.insert(out.end(), data, data + n);
    }
}

bool H2Session::finished() const {
    return nghttp2_session_want_read(state_->session) == 0 && nghttp2_session_want_write(state_->session) == 0;
}

}  // namespace mesh::control
