// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Facts about this host and process, and small services of the system.

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mesh::platform {

/// What a node tells about its host. Unknown fields are empty.
struct OsInfo {
    std::string hostname;         ///< as the kernel has it
    std::string kernel;           ///< uname release
    std::string machine;          ///< uname machine: "x86_64"
    std::string go_arch;          ///< the same in the words of Hostinfo: "amd64", "arm64"
    std::string distro;           ///< os-release ID: "debian"
    std::string distro_version;   ///< VERSION_ID: "12"
    std::string distro_codename;  ///< VERSION_CODENAME: "bookworm"
    std::string pretty_name;
    bool container = false;
};
[[nodiscard]] OsInfo read_os_info(const std::string& root = "");
/// ID, VERSION_ID … of an os-release(5) text.
[[nodiscard]] std::string os_release_value(std::string_view text, std::string_view key);

[[nodiscard]] bool is_root();
/// Processors that this process may run on; at least 1.
[[nodiscard]] size_t usable_cores();
/// No core dumps, not readable by other processes of the same user (PR_SET_DUMPABLE 0, RLIMIT_CORE 0).
Status forbid_core_dumps();
/// After a burst (a large map, a crowd of clients): gives free pages of the heap back to the kernel. Some milliseconds.
void give_memory_back();
/// After the start: machine code of the program and its libraries leaves this process's pages. It stays in the page cache, from
/// where what is used comes back by itself (16 pages a fault); what only logins need no longer looks as if it were in use.
void let_go_of_code();
/// Overwrites argv[index] in place so that `ps` no longer shows it (an auth key). In "--flag=value" only the value.
void blank_argv(int argc, char** argv, int index);
/// "READY=1", "STATUS=…" to systemd. Does nothing without NOTIFY_SOCKET. False if it is set but could not be told.
bool sd_notify(std::string_view state);

}  // namespace mesh::platform
