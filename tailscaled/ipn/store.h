// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The state file: a JSON object, string key → base64 of a value (facts: localapi-and-cli, "State file"). Pure: the
/// daemon reads and writes the bytes.
///
/// Entries: _machinekey ("privkey:…"), _current-profile ("profile-xxxx"), _profiles (JSON), profile-xxxx (Prefs JSON
/// with Config), and ours: _tailmesh (JSON: disco key and WireGuard timestamp floor, kept over restarts).

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/secret.h"

namespace mesh::ipn {

class StateStore {
   public:
    /// The content of a state file. Malformed JSON, base64 or types are an error: a state is never half read.
    [[nodiscard]] static Result<StateStore> parse(std::string_view file);
    [[nodiscard]] std::string serialize() const;

    [[nodiscard]] std::optional<std::string> get(const std::string& key) const;
    /// True if the content changed.
    bool set(const std::string& key, std::string_view value);
    bool erase(const std::string& key);
    [[nodiscard]] bool empty() const { return entries_.empty(); }

   private:
    // Some values hold keys.
    std::map<std::string, LockedText> entries_;
};

}  // namespace mesh::ipn
