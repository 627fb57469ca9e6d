// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Who this installation is: machine key, current login with its prefs and node key, disco key and the floor for
/// WireGuard's timestamps. Reads and edits a StateStore; the daemon writes it to disk after each change.
///
/// The disco key is kept over restarts (the original makes a new one at every start) so that peers go on to understand
/// our pings at once; that asks for WireGuard timestamps that never go back, hence the floor.

#include <string>
#include <vector>

#include "base/keys.h"
#include "base/random.h"
#include "base/result.h"
#include "base/time.h"
#include "tailscaled/api/prefs.h"
#include "tailscaled/ipn/store.h"

namespace mesh::ipn {

class Profiles {
   public:
    /// Takes over `store`; makes what is missing. Damaged entries are an error: an identity is never replaced silently.
    [[nodiscard]] static Result<Profiles> load(StateStore store, Random& random);

    [[nodiscard]] const MachinePrivate& machine_key() const { return machine_; }
    [[nodiscard]] const DiscoPrivate& disco_key() const { return disco_; }
    [[nodiscard]] const api::Prefs& prefs() const { return prefs_; }
    [[nodiscard]] const api::LoginProfile& current() const { return profile_; }
    [[nodiscard]] bool has_node_key() const {
        return prefs_.persist.has_value() && !prefs_.persist->private_node_key.is_zero();
    }

    /// Replaces the prefs including `persist`.
    void set_prefs(api::Prefs prefs, Random& random, WallTime now);
    /// Logout: this login goes, others and the machine key stay; prefs return to fresh ones.
    void forget_login(Random& random);
    /// What the server calls the network of this login. True if the store changed.
    bool note_network(const std::string& magic_dns_name, const std::string& domain_name);

    /// All logins this installation knows, by name.
    [[nodiscard]] std::vector<api::LoginProfile> all() const;
    /// Another of them becomes the current one. kNotFound: none of that id; kInvalid: it is damaged.
    [[nodiscard]] Status select(const std::string& id, Random& random);
    /// The next login becomes one more, with fresh prefs; the current one stays as it is.
    void begin_another(Random& random);
    /// Forgets one that is not the current one. Unknown ones are no error.
    void remove(const std::string& id);

    /// Timestamps of WireGuard initiations start above this (nanoseconds since the epoch).
    [[nodiscard]] int64_t timestamp_floor(WallTime now) const;
    /// To be called with the newest stamp used; true if the store changed and must be written.
    bool note_timestamp(int64_t unix_ns, bool clean_stop);

    [[nodiscard]] const StateStore& store() const { return store_; }

   private:
    void write_ours();
    void write_profile();
    /// The current one goes if nobody ever logged in with it.
    void drop_unused();
    void become(api::LoginProfile profile, api::Prefs prefs, Random& random);

    StateStore store_;
    MachinePrivate machine_;
    DiscoPrivate disco_;
    api::Prefs prefs_;
    api::LoginProfile profile_;
    int64_t stamp_ns_ = 0;
    bool stamp_clean_ = true;
};

}  // namespace mesh::ipn
