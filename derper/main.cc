// SPDX-License-Identifier: BSD-3-Clause
// derper: a DERP relay and STUN server.

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "base/crypto/crypto.h"
#include "base/log.h"
#include "derper/check.h"
#include "derper/options.h"
#include "derper/program.h"

int main(int argc, char** argv) {
    using namespace mesh;
    std::signal(SIGPIPE, SIG_IGN);
    crypto::init();
    const std::string program = argc > 0 ? argv[0] : "derper";
    const auto options = derper::parse_options(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
    if (!options) {
        std::fprintf(stderr, "%s\n(%s -h lists all flags)\n", options.error().message().c_str(), program.c_str());
        return 2;
    }
    if (options->help) {
        std::fputs(derper::usage(program).c_str(), stderr);
        return 0;
    }
    if (options->version) {
        std::puts(DERPER_VERSION);
        return 0;
    }
    if (!options->check.empty()) {
        const auto target = derper::parse_check_target(options->check);
        if (target) return derper::check_relay(*target, options->stun ? options->stun_port : -1) ? 0 : 1;
        std::fprintf(stderr, "%s\n", target.error().message().c_str());
        return 2;
    }
    if (const Status s = derper::run_relay(*options, DERPER_VERSION); !s) {
        log::info("derper: {}", s.error().message());
        return 1;
    }
    return 0;
}
