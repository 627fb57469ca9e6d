// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Links to the other derpers of a region. Each derper connects to every other one as a client with the shared mesh key,
/// watches who is there, and forwards packets to those clients.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "derper/relay.h"
#include "magicsock/derp/client_session.h"
#include "platform/net/dialer.h"

namespace mesh::derper {

/// Content of -mesh-psk-file: 64 lower-case hex digits, white space around them is nothing.
[[nodiscard]] Result<LockedKey> parse_mesh_key(std::string_view text);

struct MeshTarget {
    std::string host;      ///< name or IP literal its certificate is for
    uint16_t port = 443;
    std::string dial;      ///< connect to this host instead; "" = host
    std::string cert_name;  ///< "sha256-raw:<hex>" for a self-signed certificate; "" = trusted roots
    bool operator==(const MeshTarget&) const = default;
};
/// -mesh-with: "host[:port][/dial][#sha256-raw:<hex>]", comma between; at most 256.
[[nodiscard]] Result<std::vector<MeshTarget>> parse_mesh_with(std::string_view text);

/// What all links share. References outlive the links.
struct MeshContext {
    platform::Loop& loop;
    platform::Dialer& dialer;
    Random& random;
    Relay& relay;
    NodePrivate key;       ///< of this server, and its client key towards the others
    LockedKey mesh_key;
    std::function<void()> flush_soon;  ///< what the relay queued is written before the loop waits again
};

/// Connects, and again 5 s after every failure, until the other end turns out to be this very server.
class MeshLink final : public Forwarder, private platform::ByteStream::Listener {
   public:
    MeshLink(MeshContext& context, MeshTarget target);
    ~MeshLink() override;

    void forward(const NodePublic& from, const NodePublic& to, ByteSpan packet, Time now) override;
    /// Sends what forward() queued.
    void flush();
    [[nodiscard]] bool up() const { return up_; }
    [[nodiscard]] bool is_self() const { return self_; }

   private:
    void connect();
    void dialled(Result<platform::ByteStream> stream);
    void on_bytes(MutByteSpan bytes) override;
    void on_closed(const Status& why) override;
    void on_drained() override;
    void read_events();
    void pump();
    void arm();
    void on_timer();
    void drop(const std::string& why);
    void forget_clients();
    [[nodiscard]] std::string name() const;

    MeshContext& context_;
    const MeshTarget target_;
    const NodePublic own_key_;
    bool up_ = false;
    bool self_ = false;
    bool queued_ = false;
    std::string last_problem_;
    std::unordered_set<NodePublic> clients_;
    std::unique_ptr<derp::ClientSession> session_;
    Time stalled_since_;
    platform::Timer timer_;  // the session's, or until the next attempt
    std::unique_ptr<platform::Dial> dial_;
    platform::ByteStream stream_;
};

}  // namespace mesh::derper
