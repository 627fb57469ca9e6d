// SPDX-License-Identifier: BSD-3-Clause
#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <ctime>
#include <mutex>

namespace mesh::log {
namespace {
std::atomic<int> g_level{0};
std::mutex g_mutex;
std::function<void(std::string_view)>& sink() {
    static std::function<void(std::string_view)> s;
    return s;
}
}  // namespace

void set_verbosity(int level) { g_level = level; }
int verbosity() { return g_level; }

void set_sink(std::function<void(std::string_view)> s) {
    const std::lock_guard lock(g_mutex);
    sink() = std::move(s);
}

void write(std::string_view line) {
    const std::lock_guard lock(g_mutex);
    if (sink()) {
        sink()(line);
        return;
    }
    const std::time_t t = std::time(nullptr);
    std::tm tm{};
    localtime_r(&t, &tm);
    char stamp[32];
    std::strftime(stamp, sizeof stamp, "%Y/%m/%d %H:%M:%S ", &tm);
    const std::string out = std::string(stamp) + std::string(line) + "\n";
    std::fwrite(out.data(), 1, out.size(), stderr);
}

/// Marks that change the direction of what follows (U+061C, U+200E, U+200F, U+202A..U+202E, U+2066..U+2069): with them a
/// name can look like another, or reorder the rest of a line.
static bool turns_text(std::string_view c) {
    if (c == "\xd8\x9c") return true;
    if (c.size() != 3 || c[0] != '\xe2') return false;
    const auto last = static_cast<unsigned char>(c[2]);
    if (c[1] == '\x80') return last == 0x8e || last == 0x8f || (last >= 0xaa && last <= 0xae);
    return c[1] == '\x81' && last >= 0xa6 && last <= 0xa9;
}

std::string printable(std::string_view text, size_t max) {
    std::string out;
    for (size_t i = 0; i < text.size() && out.size() < max;) {
        const auto c = static_cast<unsigned char>(text[i]);
        size_t n = c < 0x80 ? 1 : (c >> 5) == 6 ? 2 : (c >> 4) == 14 ? 3 : (c >> 3) == 30 ? 4 : 0;
        bool good = n != 0 && i + n <= text.size() && !(n == 1 && (c < 0x20 || c == 0x7f));
        // C1 controls (U+0080..U+009F) steer terminals too.
        if (good && n == 2 && c == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) good = false;
        for (size_t k = 1; good && k < n; ++k) good = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
        if (good && turns_text(text.substr(i, n))) {
            out.push_back('?');
            i += n;
            continue;
        }
        if (good) {
            out.append(text.substr(i, n));
            i += n;
        } else {
            out.push_back('?');
            ++i;
        }
    }
    return out;
}

}  // namespace mesh::log
