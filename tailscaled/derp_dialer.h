// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Opens connections to DERP regions on the control loop: nodes in order, TLS, HTTP upgrade, login. What comes out is an
/// established connection (stream and session with its leftover bytes) that the packet loop adopts. Failures are retried
/// with growing pauses for as long as the region is wanted.

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/keys.h"
#include "base/random.h"
#include "magicsock/derp/client_session.h"
#include "magicsock/derp/derp_map.h"
#include "platform/loop/loop.h"
#include "platform/net/byte_stream.h"
#include "platform/net/dialer.h"

namespace mesh::daemon {

struct DerpLink {
    int region = 0;
    platform::ByteStream stream;  ///< detached
    std::unique_ptr<derp::ClientSession> session;
    std::string where;  ///< "10.0.0.1:12345 (TLSv1.3)"
};

class DerpDialer {
   public:
    using OnLink = std::function<void(DerpLink)>;
    using OnFailure = std::function<void(int region, const std::string& why)>;
    DerpDialer(platform::Dialer& dialer, Random& random, OnLink on_link, OnFailure on_failure);
    ~DerpDialer();
    DerpDialer(const DerpDialer&) = delete;
    DerpDialer& operator=(const DerpDialer&) = delete;

    void set_node_key(const NodePrivate& key);  ///< zero: nothing is dialled
    void set_map(std::shared_ptr<const derp::DerpMap> map);
    /// host:port of a control server reached by plain http: a relay there speaks plain HTTP too.
    void set_plain_control(std::string host_port) { plain_control_ = std::move(host_port); }
    /// Wants a connection to this region; does nothing if one is being opened.
    void want(int region);
    void forget(int region);
    void forget_all();
    /// The network changed: retry now.
    void retry_now();

   private:
    class Attempt;
    struct Region {
        std::unique_ptr<Attempt> attempt;
        std::unique_ptr<platform::Timer> retry;
        int64_t failures = 0;
        Time connected_at;  ///< zero: not since the last want()
    };
    void begin(int region);
    void retry_later(int region, Region& state);
    void failed(int region, const std::string& why);
    void done(int region, DerpLink link);
    [[nodiscard]] bool may_be_plain(const derp::DerpNode& node) const;

    platform::Dialer& dialer_;
    Random& random_;
    OnLink on_link_;
    OnFailure on_failure_;
    NodePrivate node_key_;
    std::shared_ptr<const derp::DerpMap> map_;
    std::string plain_control_;
    std::map<int, Region> regions_;
};

}  // namespace mesh::daemon
