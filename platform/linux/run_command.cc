// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/run_command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ctime>

#include "platform/fd.h"

namespace mesh::platform {
namespace {

constexpr size_t kMaxOutput = size_t{64} << 20;

int64_t monotonic_ms() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

/// A file in memory: the program can read it at any pace, and nobody gets SIGPIPE if it does not.
Result<UniqueFd> memory_file(std::string_view content) {
    UniqueFd fd(::memfd_create("stdin", MFD_CLOEXEC));
    if (!fd.valid()) return fail_errno("memfd_create", errno);
    while (!content.empty()) {
        const ssize_t n = ::write(fd.get(), content.data(), content.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("write memfd", errno);
        content.remove_prefix(static_cast<size_t>(n));
    }
    ::lseek(fd.get(), 0, SEEK_SET);
    return fd;
}

struct Pipe {
    UniqueFd read;
    UniqueFd write;
};
Result<Pipe> make_pipe() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) < 0) return fail_errno("pipe", errno);
    return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// Reads both streams to their ends. False and errno-free Error on time-out or too much output.
Status collect(UniqueFd (&streams)[2], std::string* (&texts)[2], int64_t deadline, const std::string& what) {
    while (streams[0].valid() || streams[1].valid()) {
        pollfd polls[2] = {{streams[0].get(), POLLIN, 0}, {streams[1].get(), POLLIN, 0}};
        const int64_t left = deadline - monotonic_ms();
        if (left <= 0) return fail(Code::kTimeout, what + " takes too long");
        if (::poll(polls, 2, static_cast<int>(left)) < 0 && errno != EINTR) return fail_errno("poll", errno);
        for (int i = 0; i < 2; ++i) {
            if (!streams[i].valid() || polls[i].revents == 0) continue;
            char buffer[16384];
            const ssize_t n = ::read(streams[i].get(), buffer, sizeof buffer);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                streams[i].reset();
                continue;
            }
            if (texts[i]->size() + static_cast<size_t>(n) > kMaxOutput)
                return fail(Code::kLimit, what + " prints too much");
            texts[i]->append(buffer, static_cast<size_t>(n));
        }
    }
    return {};
}

}  // namespace

std::string find_program(std::string_view name) {
    if (name.find('/') != std::string_view::npos) return std::string(name);
    const char* env = std::getenv("PATH");
    const std::string path = std::string(env == nullptr ? "" : env) + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
    for (size_t at = 0; at < path.size();) {
        const size_t end = std::min(path.find(':', at), path.size());
        if (end > at && path[at] == '/') {  // no relative folders
            std::string full = path.substr(at, end - at) + "/" + std::string(name);
            if (::access(full.c_str(), X_OK) == 0) return full;
        }
        at = end + 1;
    }
    return {};
}

Result<CommandOutput> run_command(const std::vector<std::string>& argv, std::string_view input, Duration limit) {
    const std::string program = argv.empty() ? std::string() : find_program(argv[0]);
    if (program.empty()) return fail(Code::kNotFound, (argv.empty() ? "program" : argv[0]) + " is not installed");
    TRY_ASSIGN(const UniqueFd in, memory_file(input));
    TRY_ASSIGN(Pipe out, make_pipe());
    TRY_ASSIGN(Pipe err, make_pipe());

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.get(), 0);
    posix_spawn_file_actions_adddup2(&actions, out.write.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err.write.get(), 2);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    sigset_t usual;
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    std::vector<char*> args;
    for (const std::string& a : argv) args.push_back(const_cast<char*>(a.c_str()));
    args.push_back(nullptr);
    pid_t pid = 0;
    const int spawned = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, args.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (spawned != 0) return fail_errno("run " + program, spawned);

    out.write.reset();
    err.write.reset();
    CommandOutput result;
    UniqueFd streams[2] = {std::move(out.read), std::move(err.read)};
    std::string* texts[2] = {&result.out, &result.err};
    const Status collected = collect(streams, texts, monotonic_ms() + limit.millis(), argv[0]);
    if (!collected) ::kill(-pid, SIGKILL);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return fail_errno("wait for " + program, errno);
    TRY(collected);
    result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result;
}

}  // namespace mesh::platform
