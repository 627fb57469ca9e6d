// SPDX-License-Identifier: BSD-3-Clause
#include <csignal>
#include <string_view>

#include "platform/system.h"
#include "tailscale-cli/commands.h"

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    (void)mesh::platform::forbid_core_dumps();  // an auth key may be among the arguments
    const mesh::cli::Args words(argv + 1, argv + argc);
    // The key must not stay in the list of processes while `up` waits.
    for (int i = 1; i < argc; ++i) {
        const std::string_view word(argv[i]);
        std::string_view name = word.substr(0, word.find('='));
        while (!name.empty() && name[0] == '-') name.remove_prefix(1);
        if (!word.starts_with("-")) continue;
        const bool secret =
            name == "auth-key" || name == "authkey" || name == "client-secret" || name == "id-token";
        if (!secret) continue;
        const int at = word.find('=') != std::string_view::npos ? i : i + 1;
        if (at < argc) mesh::platform::blank_argv(argc, argv, at);
    }
    return mesh::cli::run(words);
}
