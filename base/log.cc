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

std::string printable(std::string_view text, size_t max) {
    std::string out;
    for (size_t i = 0; i < text.size() && out.size() < max;) {
        const auto c = static_cast<unsigned char>(text[i]);
        size_t n = c < 0x80 ? 1 : (c >> 5) == 6 ? 2 : (c >> 4) == 14 ? 3 : (c >> 3) == 30 ? 4 : 0;
        bool good = n != 0 && i + n <= text.size() && !(n == 1 && (c < 0x20 || c == 0x7f));
        // C1 controls (U+0080..U+009F) steer terminals too.
        if (good && n == 2 && c == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) good = false;
        for (size_t k = 1; good && k < n; ++k) good = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
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
