// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Who may change things: root, the daemon's own user, and the user named by the OperatorUser pref.

#include <sys/types.h>

#include <optional>
#include <string>

namespace mesh::localapi {

/// By the system's user database; a number is taken as it is. nullopt if there is no such user.
[[nodiscard]] std::optional<uid_t> find_uid(const std::string& user);

[[nodiscard]] bool may_write(uid_t uid, uid_t daemon_uid, const std::string& operator_user);

}  // namespace mesh::localapi
