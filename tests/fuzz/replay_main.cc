// SPDX-License-Identifier: BSD-3-Clause
// Runs a fuzz target without libFuzzer: every file of the corpus, then random mutations of them for a while. The same
// seed and number give the same input. A crash prints both, and the input in hex.
//
//   fuzz_NAME [--ms N] [--seed S] [--only I] [file or folder ...]

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxInput = 4096;
constexpr auto kTooSlow = std::chrono::seconds(5);

// For the signal handler.
const uint8_t* g_data = nullptr;
size_t g_size = 0;

void on_crash(int signal) {
    static const char kDigits[] = "0123456789abcdef";
    char line[128];
    size_t n = 0;
    const char head[] = "\ncrashed on this input (hex):\n";
    (void)!::write(2, head, sizeof head - 1);
    for (size_t i = 0; i < g_size; ++i) {
        line[n++] = kDigits[g_data[i] >> 4];
        line[n++] = kDigits[g_data[i] & 15];
        if (n == sizeof line || i + 1 == g_size) {
            (void)!::write(2, line, n);
            n = 0;
        }
    }
    (void)!::write(2, "\n", 1);
    std::signal(signal, SIG_DFL);
    (void)std::raise(signal);
}

void run(const Input& in, const std::string& what) {
    // An exact copy on the heap, so that a sanitizer sees a read beyond the end.
    Input copy(in);
    copy.shrink_to_fit();
    g_data = copy.data();
    g_size = copy.size();
    const auto start = Clock::now();
    LLVMFuzzerTestOneInput(copy.data(), copy.size());
    if (Clock::now() - start > kTooSlow) {
        std::fprintf(stderr, "%s took more than 5 s\n", what.c_str());
        on_crash(SIGABRT);
    }
}

Input read_file(const std::filesystem::path& path) {
    std::ifstream f(path, std::ios::binary);
    return Input(std::istreambuf_iterator<char>(f), {});
}

class Mutator {
   public:
    Mutator(const std::vector<Input>& corpus, uint64_t seed, uint64_t number) : corpus_(corpus), random_(seed * 0x9E3779B97F4A7C15ULL + number) {}

    Input next() {
        Input in = pick();
        for (size_t n = 1 + below(6); n > 0; --n) mutate(in);
        if (in.size() > kMaxInput) in.resize(kMaxInput);
        return in;
    }

   private:
    size_t below(size_t n) { return static_cast<size_t>(random_() % n); }
    uint8_t byte() { return static_cast<uint8_t>(random_()); }
    Input pick() { return corpus_.empty() ? Input{} : corpus_[below(corpus_.size())]; }
    static std::ptrdiff_t at(size_t i) { return static_cast<std::ptrdiff_t>(i); }

    void mutate(Input& in) {
        if (in.empty()) {
            in.resize(1 + below(64));
            for (uint8_t& b : in) b = byte();
            return;
        }
        const size_t i = below(in.size());
        switch (below(9)) {
            case 0:
                in[i] = static_cast<uint8_t>(in[i] ^ (1U << below(8)));
                break;
            case 1:
                in[i] = byte();
                break;
            case 2: {
                static const uint8_t kEdges[] = {0, 1, 0x7F, 0x80, 0xFF, 0x20, '"', '\n'};
                in[i] = kEdges[below(std::size(kEdges))];
                break;
            }
            case 3:
                in.insert(in.begin() + at(i), 1 + below(8), byte());
                break;
            case 4:
                in.erase(in.begin() + at(i), in.begin() + at(std::min(in.size(), i + 1 + below(16))));
                break;
            case 5:
                in.resize(i);
                break;
            case 6: {  // repeat a piece
                const Input piece(in.begin() + at(i), in.begin() + at(std::min(in.size(), i + 1 + below(32))));
                in.insert(in.begin() + at(below(in.size())), piece.begin(), piece.end());
                break;
            }
            case 7: {  // the end of another one
                const Input other = pick();
                in.resize(i);
                if (!other.empty()) in.insert(in.end(), other.begin() + at(below(other.size())), other.end());
                break;
            }
            default:  // a length field, say
                in[i] = static_cast<uint8_t>(in[i] + below(5) - 2);
                break;
        }
    }

    const std::vector<Input>& corpus_;
    std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
    long ms = 1000;
    uint64_t seed = (uint64_t{std::random_device{}()} << 8) | 1;
    bool have_only = false;
    uint64_t only = 0;
    std::vector<Input> corpus;
    for (const int s : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(s, on_crash);
    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        const bool has_value = i + 1 < argc;
        if (arg == "--ms" && has_value) {
            ms = std::strtol(argv[++i], nullptr, 10);
        } else if (arg == "--seed" && has_value) {
            seed = std::strtoull(argv[++i], nullptr, 10);
        } else if (arg == "--only" && has_value) {
            have_only = true;
            only = std::strtoull(argv[++i], nullptr, 10);
        } else if (std::filesystem::is_directory(arg)) {
            std::vector<std::filesystem::path> files;
            for (const auto& entry : std::filesystem::directory_iterator(arg))
                if (entry.is_regular_file()) files.push_back(entry.path());
            std::sort(files.begin(), files.end());  // the order of a folder is not part of the seed
            for (const auto& f : files) corpus.push_back(read_file(f));
        } else if (std::filesystem::exists(arg)) {
            corpus.push_back(read_file(arg));
        }
    }

    std::printf("%zu corpus files, seed %llu\n", corpus.size(), static_cast<unsigned long long>(seed));
    std::fflush(stdout);
    run({}, "the empty input");
    for (size_t i = 0; i < corpus.size(); ++i) run(corpus[i], "corpus file " + std::to_string(i));

    if (have_only) {
        run(Mutator(corpus, seed, only).next(), "the mutation");
        return 0;
    }
    uint64_t n = 0;
    // Printed before a batch runs, so that a crash can be found again: --seed S --only I for the numbers that follow.
    constexpr uint64_t kBatch = 4096;
    const auto end = Clock::now() + std::chrono::milliseconds(ms);
    for (; Clock::now() < end; ++n) {
        if (n % kBatch == 0) {
            std::printf("mutations from %llu\n", static_cast<unsigned long long>(n));
            std::fflush(stdout);
        }
        run(Mutator(corpus, seed, n).next(), "mutation " + std::to_string(n));
    }
    std::printf("%llu mutations\n", static_cast<unsigned long long>(n));
    return 0;
}
