// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/sysctl.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "platform/fd.h"
#include "platform/file.h"

namespace mesh::platform {

std::optional<std::string> read_sysctl(const std::string& key) {
    auto text = read_file("/proc/sys/" + key, 4096);
    if (!text) return std::nullopt;
    while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
    return std::move(*text);
}

Status write_sysctl(const std::string& key, std::string_view value) {
    const std::string path = "/proc/sys/" + key;
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.valid()) return fail_errno("open " + path, errno);
    if (::write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
        return fail_errno("write " + path, errno);
    return {};
}

}  // namespace mesh::platform
