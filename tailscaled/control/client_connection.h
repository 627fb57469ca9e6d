// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One TS2021 connection of the client, from the dial to its end: tries the ways there are to /ts2021 side by side, does
/// the handshake, then carries requests as HTTP/2 streams. Shell around upgrade.h, noise.h and h2.h; control loop only.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/http1.h"
#include "base/keys.h"
#include "base/random.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"
#include "platform/net/dialer.h"
#include "platform/net/source_address.h"
#include "tailscaled/control/h2.h"
#include "tailscaled/control/noise.h"
#include "tailscaled/control/upgrade.h"

namespace mesh::control {

class Connection : private platform::ByteStream::Listener {
   public:
    struct Config {
        http1::Url url;
        MachinePublic server_key;
        MachinePrivate machine_key;
        std::string user_agent;
        bool recently_dialled = false;
        Duration timeout = seconds(10);  ///< dial and handshake together
    };
    /// Callbacks are the last thing the connection does; it may be destroyed inside.
    class Owner {
       public:
        virtual ~Owner() = default;
        virtual void on_connection_up() = 0;
        /// Once, and nothing after it. `wrong_key`: the server took the upgrade and refused the handshake, so it may
        /// have another key by now.
        virtual void on_connection_down(const Error& why, bool wrong_key) = 0;
    };
    /// Events of one stream in order; the last is kClose (error ≠ 0 also when the connection was lost).
    using StreamCallback = std::function<void(H2Event&)>;

    Connection(platform::Loop& loop, platform::Dialer& dialer, Random& random, Config config, Owner& owner);
    ~Connection() override;

    [[nodiscard]] bool up() const { return h2_ != nullptr; }
    /// Only when up(). After cancel() no event of that stream comes.
    [[nodiscard]] Result<int32_t> send(std::string_view method, std::string_view path, const H2Headers& headers,
                                       std::string body, StreamCallback callback);
    void cancel(int32_t stream);
    /// Asks the server for a sign of life; without one the connection goes down.
    void probe();
    /// Does it stand on an address of ours that is not used for this server any more?
    [[nodiscard]] bool stranded() const { return platform::route_moved(stream_); }
    /// Stops taking data from the server for a while (flow control then holds it back).
    void pause(Duration d);

   private:
    class Attempt;
    void start_next_attempt();
    void attempt_done(Attempt& attempt, Result<NoiseKeys> result);
    void become_up(platform::ByteStream stream, const NoiseKeys& keys, ByteSpan rest);
    void go_down(Error why, bool wrong_key);
    void flush();
    void drain_events();
    void on_bytes(MutByteSpan bytes) override;
    void on_closed(const Status& why) override;

    platform::Loop& loop_;
    platform::Dialer& dialer_;
    Random& random_;
    Config config_;
    Owner& owner_;
    std::vector<UpgradeTarget> targets_;
    size_t next_target_ = 0;
    std::vector<std::unique_ptr<Attempt>> attempts_;
    std::string failures_;
    bool wrong_key_ = false;
    std::shared_ptr<char> alive_ = std::make_shared<char>();  // expires with this object

    std::unique_ptr<NoiseStream> noise_;
    EarlyPayload early_;
    std::unique_ptr<H2Session> h2_;
    std::map<int32_t, StreamCallback> streams_;
    bool draining_ = false;
    platform::Timer next_attempt_timer_, deadline_timer_, resume_timer_;
    platform::ByteStream stream_;  // last: dies first
};

}  // namespace mesh::control
