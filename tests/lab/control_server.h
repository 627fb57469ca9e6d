// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A small TS2021 control server for labs and tests, on the same codecs as the client. State is in memory.
///
///   GET  /key, POST /ts2021        as any control server
///   GET  /register/ID              approves a pending login (the AuthURL)
///   HEAD /machine/ping-response    answer to a ping
///   GET  /lab/nodes                all nodes, JSON
///   POST /lab/routes?id=N&routes=a,b   approve exactly these     POST /lab/expire?id=N
///   POST /lab/remove?id=N              POST /lab/ping?id=N       POST /lab/drop (closes all control connections)
///   POST /lab/raw?file=PATH            a map message as it stands in the file, to all polls; /lab/frame: bytes, unframed
///   POST /lab/derp-map?file=PATH       sends that DERP map to everybody

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/http1.h"
#include "base/random.h"
#include "platform/loop/loop.h"
#include "platform/net/listener.h"
#include "platform/tls/tls.h"
#include "tests/lab/registry.h"

namespace mesh::lab {

class ControlServer {
   public:
    struct Options {
        Endpoint listen;
        RegistryOptions registry;  ///< base_url "" = http(s)://listen
        Duration keepalive = seconds(50);
        Duration offline_delay = seconds(10);  ///< between the end of the last poll and "offline"
        bool early_payload = true;
        bool zstd = true;  ///< false: plain frames whatever was asked for
        std::shared_ptr<const platform::TlsServerContext> tls;
        std::function<void(const std::string&)> log;  ///< one line per event
    };
    [[nodiscard]] static Result<std::unique_ptr<ControlServer>> start(platform::Loop& loop, Random& random, Options options);
    ~ControlServer();

    [[nodiscard]] uint16_t port() const;
    [[nodiscard]] std::string base_url() const;
    [[nodiscard]] Registry& registry();
    /// Sends what the registry has to tell; call after changing it by hand.
    void deliver();
    /// As if the server had restarted with its data: connections break.
    void drop_connections();
    /// And with another Noise key.
    void change_key();
    /// Asks the node to answer with a HEAD request. The answers so far: answered_pings().
    void ping(NodeId node);
    [[nodiscard]] int answered_pings() const;
    /// Answers every register request with this status until the count is used up.
    void refuse_registers(int status, int count);
    [[nodiscard]] size_t open_polls() const;
    /// Whole map message, as is, to all polls.
    void send_raw(const std::string& json);

   private:
    class Session;
    struct State;
    explicit ControlServer(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace mesh::lab
