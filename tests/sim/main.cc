// SPDX-License-Identifier: BSD-3-Clause
// sim --seed N [--trace]: one run, judged. sim --seeds A-B: many, failing seeds printed.

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/crypto/crypto.h"
#include "tests/sim/world.h"

namespace {

using mesh::sim::Outcome;
using mesh::sim::Scenario;

bool report(const Scenario& scenario, const Outcome& o, bool verbose) {
    if (verbose || !o.failures.empty()) std::fputs(scenario.describe().c_str(), stdout);
    for (const std::string& f : o.failures) std::printf("  FAILED: %s\n", f.c_str());
    if (verbose) {
        for (size_t i = 0; i < o.reached.size(); ++i) {
            const auto ms = [](mesh::Duration d) { return d.ns > mesh::seconds(3600).ns ? -1LL : static_cast<long long>(d.millis()); };
            std::printf("  flow %zu: first answer after %lld ms, direct after %lld ms\n", i, ms(o.reached[i].first), ms(o.reached[i].second));
        }
        std::printf("  %llu datagrams, %llu of %llu pings answered, %d pairs direct, %d relayed, trace %016llx\n",
                    static_cast<unsigned long long>(o.datagrams), static_cast<unsigned long long>(o.answers),
                    static_cast<unsigned long long>(o.pings), o.direct_pairs, o.relayed_pairs,
                    static_cast<unsigned long long>(o.trace_hash));
    }
    return o.failures.empty();
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Runs nodes made of the release objects on a simulated network."};
    uint64_t seed = 0;
    std::string seeds;
    bool trace = false;
    auto* one = app.add_option("--seed", seed, "run this seed and describe it");
    auto* many = app.add_option("--seeds", seeds, "run the seeds A-B and describe those that fail")->excludes(one);
    app.add_flag("--trace", trace, "print each datagram and event");
    CLI11_PARSE(app, argc, argv);
    mesh::crypto::init();
    if (one->count() > 0) {
        const Scenario s = mesh::sim::random_scenario(seed);
        const auto sink = [](const std::string& line) { std::printf("%s\n", line.c_str()); };
        return report(s, mesh::sim::run_scenario(s, trace ? mesh::sim::TraceSink(sink) : mesh::sim::TraceSink{}), true) ? 0 : 1;
    }
    unsigned long long first = 1, last = 50;
    if (many->count() > 0 && std::sscanf(seeds.c_str(), "%llu-%llu", &first, &last) != 2) {
        std::fprintf(stderr, "sim: --seeds wants A-B\n");
        return 2;
    }
    int bad = 0, direct = 0, relayed = 0;
    for (unsigned long long n = first; n <= last; ++n) {
        const Scenario s = mesh::sim::random_scenario(n);
        const Outcome o = mesh::sim::run_scenario(s);
        if (!report(s, o, false)) ++bad;
        direct += o.direct_pairs;
        relayed += o.relayed_pairs;
    }
    std::printf("%llu seeds, %d failed; %d pairs direct, %d relayed, as predicted\n", last - first + 1, bad, direct, relayed);
    return bad == 0 ? 0 : 1;
}
