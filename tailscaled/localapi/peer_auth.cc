// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/localapi/peer_auth.h"

#include <pwd.h>

#include <charconv>
#include <vector>

namespace mesh::localapi {

std::optional<uid_t> find_uid(const std::string& user) {
    if (user.empty()) return std::nullopt;
    passwd entry{};
    passwd* found = nullptr;
    std::vector<char> buffer(16384);
    if (getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found) == 0 && found) return entry.pw_uid;
    uid_t uid = 0;
    const auto [end, ec] = std::from_chars(user.data(), user.data() + user.size(), uid);
    if (ec == std::errc() && end == user.data() + user.size()) return uid;
    return std::nullopt;
}

bool may_write(uid_t uid, uid_t daemon_uid, const std::string& operator_user) {
    if (uid == 0 || uid == daemon_uid) return true;
    const auto op = find_uid(operator_user);
    return op && *op == uid;
}

}  // namespace mesh::localapi
