// SPDX-License-Identifier: BSD-3-Clause
#include <malloc.h>

#include <cstdio>
#include <cstdlib>

#include "base/crypto/crypto.h"
#include "base/log.h"
#include "base/version.h"
#include "tailscaled/daemon.h"
#include "tailscaled/flags.h"

namespace {
std::string env(const char* name) {
    const char* v = std::getenv(name);
    return v ? v : "";
}
}  // namespace

int main(int argc, char** argv) {
    mesh::crypto::init();
#ifdef __GLIBC__
    // Fixed, so that the room a large map (or a refused bomb) took goes back to the system at once; the library's own rule
    // raises the threshold with the first large block and keeps up to twice that much.
    ::mallopt(M_MMAP_THRESHOLD, 256 << 10);
#endif
    const std::vector<std::string> args(argv + 1, argv + argc);
    const auto flags = mesh::daemon::parse_flags(args, env("PORT"), env("TS_LOG_VERBOSITY"));
    if (!flags) {
        if (flags.error().code == mesh::Code::kInvalid) {
            std::fprintf(stderr, "%s\n%s", flags.error().context.c_str(), mesh::daemon::usage().c_str());
            return 2;
        }
        mesh::log::info("{}", flags.error().context);
        return 1;
    }
    if (flags->help) {
        std::fputs(mesh::daemon::usage().c_str(), stderr);
        return 0;
    }
    if (flags->version) {
        std::printf("%s\n  long version: %s\n", std::string(mesh::kVersion).c_str(), std::string(mesh::kLongVersion).c_str());
        return 0;
    }
    mesh::log::set_verbosity(flags->verbose);
    return flags->cleanup ? mesh::daemon::run_cleanup(*flags) : mesh::daemon::run_daemon(*flags);
}
