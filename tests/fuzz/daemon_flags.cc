// SPDX-License-Identifier: BSD-3-Clause
// Command lines of the daemon: words separated by newlines, the first two are the environment's.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "tailscaled/flags.h"

using namespace mesh;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string_view rest = as_text({data, size});
    std::vector<std::string> words;
    while (!rest.empty() && words.size() < 100) {
        const std::string_view word = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), word.size() + 1));
        words.emplace_back(word);
    }
    words.resize(std::max<size_t>(words.size(), 2));
    const std::vector<std::string> args(words.begin() + 2, words.end());
    const auto f = daemon::parse_flags(args, words[0], words[1]);
    if (!f) {
        CHECK(!f.error().message().empty());
        return 0;
    }
    CHECK(!f->state_path().empty());
    if (f->state.empty() && !f->statedir.empty()) CHECK(f->state_path() == f->statedir + "/tailscaled.state");
    if (!f->state.empty()) CHECK(f->state_path() == f->state);
    (void)f->state_folder();
    return 0;
}
