// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Log lines: "YYYY/MM/DD hh:mm:ss text" on stderr. Secrets are never arguments of a log line. Text from the network
/// must pass through printable(). Nothing on the packet path logs.

#include <fmt/core.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace mesh::log {

/// Lines with a level above this are dropped. 0 is the default, --verbose raises it.
void set_verbosity(int level);
[[nodiscard]] int verbosity();
/// Replaces stderr (tests, the CLI). Empty function: back to stderr.
void set_sink(std::function<void(std::string_view line)> sink);
void write(std::string_view line);

template <class... Args>
void info(fmt::format_string<Args...> f, Args&&... args) {
    write(fmt::format(f, std::forward<Args>(args)...));
}
/// Shown with --verbose=level or more.
template <class... Args>
void debug(int level, fmt::format_string<Args...> f, Args&&... args) {
    if (level <= verbosity()) write(fmt::format(f, std::forward<Args>(args)...));
}

/// Control bytes and invalid UTF-8 replaced by '?', cut at `max` bytes: for names, errors and URLs of other parties.
[[nodiscard]] std::string printable(std::string_view text, size_t max = 256);

}  // namespace mesh::log
