// SPDX-License-Identifier: BSD-3-Clause
// sim --seed N [--trace]: one run, judged. sim --seeds A-B [--jobs N]: many at once, failing seeds printed. sim --predict: for the
// labs in namespaces, which pairs of networks allow a direct path.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>

#include "base/crypto/crypto.h"
#include "tests/sim/predict.h"
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

// Each seed is a world of its own, so they run side by side.
int run_many(uint64_t first, uint64_t last, unsigned jobs) {
    std::atomic<uint64_t> next{first};
    std::mutex mutex;  // of all below
    uint64_t done = 0, bad = 0, direct = 0, late = 0, relayed = 0, datagrams = 0;
    const auto start = std::chrono::steady_clock::now();
    auto told = start;
    const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
    const auto work = [&] {
        for (uint64_t n = next++; n <= last; n = next++) {
            const Scenario s = mesh::sim::random_scenario(n);
            const Outcome o = mesh::sim::run_scenario(s);
            const std::lock_guard lock(mutex);
            if (!report(s, o, false)) ++bad;
            ++done;
            direct += static_cast<uint64_t>(o.direct_pairs);
            late += static_cast<uint64_t>(o.direct_late);
            relayed += static_cast<uint64_t>(o.relayed_pairs);
            datagrams += o.datagrams;
            if (std::chrono::steady_clock::now() - told < std::chrono::seconds(10)) continue;
            told = std::chrono::steady_clock::now();
            std::printf("%.0f s: %llu seeds, %llu failed\n", elapsed(), static_cast<unsigned long long>(done), static_cast<unsigned long long>(bad));
            std::fflush(stdout);
        }
    };
    std::vector<std::thread> threads;
    for (unsigned i = 1; i < jobs; ++i) threads.emplace_back(work);
    work();
    for (std::thread& t : threads) t.join();
    std::printf("seeds %llu to %llu in %.0f s: %llu flows direct (%llu of them after more than a second), %llu relayed, as predicted; %llu datagrams\n",
                static_cast<unsigned long long>(first), static_cast<unsigned long long>(last), elapsed(), static_cast<unsigned long long>(direct),
                static_cast<unsigned long long>(late),
                static_cast<unsigned long long>(relayed), static_cast<unsigned long long>(datagrams));
    if (late * 50 > direct) {
        std::printf("FAILED: more than 2 %% of the flows were direct only after a second\n");
        ++bad;
    }
    std::printf("%llu passed, %llu failed\n", static_cast<unsigned long long>(done - std::min(bad, done)), static_cast<unsigned long long>(bad));
    return bad == 0 && done > 0 ? 0 : 1;
}

/// The networks that tests/netns builds, by their names there, as JSON: {"easy": {"hard": false, …}, …}.
void print_predictions() {
    using namespace mesh::sim;
    struct Kind {
        const char* name;
        Place place;
    };
    // A NAT of the easy kind behind another one is seen as one of them.
    const Kind kinds[] = {{"open", {.v4 = kOpen}},
                          {"easy", {.v4 = kEasy}},
                          {"range", {.v4 = kEasyRandomPort}},
                          {"hard", {.v4 = kHard}},
                          {"double", {.v4 = kEasyRandomPort}},
                          {"blocked", {.v4 = kBlocked}},
                          {"six", {.v4 = kBlocked, .has_v6 = true}},
                          {"dual", {.v4 = kHard, .has_v6 = true, .v6_filter = Depends::kAddressAndPort}}};
    std::string out;
    for (const Kind& a : kinds) {
        out += std::string(out.empty() ? "{" : ",\n ") + '"' + a.name + "\": {";
        for (const Kind& b : kinds) {
            Place pa = a.place, pb = b.place;
            pa.site = 1;
            pb.site = 2;
            if (&b != kinds) out += ", ";
            out += std::string("\"") + b.name + "\": " + (direct_path_possible(pa, pb) ? "true" : "false");
        }
        out += "}";
    }
    std::printf("%s}\n", out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Runs nodes made of the release objects on a simulated network."};
    uint64_t seed = 0;
    std::string seeds;
    bool trace = false, predict = false;
    unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
    auto* one = app.add_option("--seed", seed, "run this seed and describe it");
    auto* many = app.add_option("--seeds", seeds, "run the seeds A-B and describe those that fail")->excludes(one);
    app.add_flag("--predict", predict, "print for which pairs of networks a direct path is possible");
    app.add_flag("--trace", trace, "print each datagram and event");
    app.add_option("--jobs", jobs, "threads for --seeds")->check(CLI::Range(1, 256))->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    if (predict) {
        print_predictions();
        return 0;
    }
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
    return run_many(first, last, jobs);
}
