// SPDX-License-Identifier: BSD-3-Clause
// Command lines of `up` and `set`: words separated by newlines; then the decision against fresh prefs.

#include <cstdint>

#include "tailscale-cli/flags.h"
#include "tailscale-cli/settings.h"

using namespace mesh;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto words = cli::split({reinterpret_cast<const char*>(data), size}, '\n');
    api::DaemonStatus status;
    status.backend_state = api::State::kRunning;
    api::Prefs current;
    current.control_url = "http://example.test";
    current.hostname = "a b'c";
    {
        cli::UpArgs args;
        cli::FlagSet flags("tailscale up", "[flags]", "");
        cli::add_up_flags(flags, args, cli::Command::kUp);
        if (flags.parse(words) == cli::FlagSet::Outcome::kOk) {
            auto built = cli::prefs_from_up(args.settings, status);
            if (built) (void)cli::decide_up(args, flags, built->prefs, current, status, {"root"});
        }
        (void)flags.usage();
    }
    {
        cli::SettingArgs args;
        cli::FlagSet flags("tailscale set", "[flags]", "");
        cli::add_setting_flags(flags, args, cli::Command::kSet);
        if (flags.parse(words) == cli::FlagSet::Outcome::kOk) (void)cli::edit_from_set(args, flags, current, status);
    }
    if (!words.empty()) {
        (void)cli::parse_duration(words[0]);
        (void)cli::shell_quoted(words[0]);
    }
    return 0;
}
