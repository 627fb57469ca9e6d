// SPDX-License-Identifier: BSD-3-Clause
#include "platform/system.h"

#include <elf.h>
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "platform/fd.h"
#include "platform/file.h"

namespace mesh::platform {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 10;

std::string go_arch_of(std::string_view machine) {
    if (machine == "x86_64") return "amd64";
    if (machine == "aarch64") return "arm64";
    if (machine.starts_with("arm")) return "arm";
    if (machine.size() == 4 && machine[0] == 'i' && machine.ends_with("86")) return "386";
    if (machine == "mips64el") return "mips64le";
    return std::string(machine);
}

bool exists(const std::string& path) {
    struct stat st{};
    return ::stat(path.c_str(), &st) == 0;
}

bool in_container(const std::string& root) {
    if (exists(root + "/.dockerenv") || exists(root + "/run/.containerenv")) return true;
    const auto cgroup = read_file(root + "/proc/1/cgroup", kMaxFileBytes);
    if (!cgroup) return false;
    for (const char* word : {"/docker", "/lxc", "/kubepods"})
        if (cgroup->find(word) != std::string::npos) return true;
    return false;
}

}  // namespace

std::string os_release_value(std::string_view text, std::string_view key) {
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const size_t equals = line.find('=');
        if (equals == std::string_view::npos || line.substr(0, equals) != key) continue;
        std::string_view value = line.substr(equals + 1);
        while (!value.empty() && (value.back() == ' ' || value.back() == '\r')) value.remove_suffix(1);
        if (value.size() < 2 || (value.front() != '"' && value.front() != '\'') || value.back() != value.front())
            return std::string(value);
        value = value.substr(1, value.size() - 2);
        std::string out;
        for (size_t i = 0; i < value.size(); ++i) {
            if (value[i] == '\\' && i + 1 < value.size()) ++i;
            out.push_back(value[i]);
        }
        return out;
    }
    return "";
}

OsInfo read_os_info(const std::string& root) {
    OsInfo info;
    utsname u{};
    if (::uname(&u) == 0) {
        info.hostname = u.nodename;
        info.kernel = u.release;
        info.machine = u.machine;
        info.go_arch = go_arch_of(u.machine);
    }
    auto text = read_file(root + "/etc/os-release", kMaxFileBytes);
    if (!text) text = read_file(root + "/usr/lib/os-release", kMaxFileBytes);
    if (text) {
        info.distro = os_release_value(*text, "ID");
        info.distro_version = os_release_value(*text, "VERSION_ID");
        info.distro_codename = os_release_value(*text, "VERSION_CODENAME");
        info.pretty_name = os_release_value(*text, "PRETTY_NAME");
    }
    info.container = in_container(root);
    return info;
}

bool is_root() { return ::geteuid() == 0; }

size_t usable_cores() { return uv_available_parallelism(); }

Status forbid_core_dumps() {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_CORE, &none) != 0) return fail_errno("forbid core dumps", errno);
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail_errno("forbid core dumps", errno);
    return {};
}

void give_memory_back() { ::malloc_trim(0); }

void let_go_of_code() {
    const auto each = [](dl_phdr_info* object, size_t, void*) {
        const std::span<const ElfW(Phdr)> parts(object->dlpi_phdr, object->dlpi_phnum);
        // Code that the loader had to change is in no file.
        for (const ElfW(Phdr)& p : parts) {
            if (p.p_type != PT_DYNAMIC) continue;
            for (const auto* d = reinterpret_cast<const ElfW(Dyn)*>(object->dlpi_addr + p.p_vaddr); d->d_tag != DT_NULL; ++d)
                if (d->d_tag == DT_TEXTREL || (d->d_tag == DT_FLAGS && (d->d_un.d_val & DF_TEXTREL) != 0)) return 0;
        }
        const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
        for (const ElfW(Phdr)& p : parts) {
            if (p.p_type != PT_LOAD || (p.p_flags & PF_X) == 0 || (p.p_flags & PF_W) != 0) continue;
            // Whole pages: what is at the ends may belong to another part.
            const uintptr_t begin = (object->dlpi_addr + p.p_vaddr + page - 1) / page * page;
            const uintptr_t end = (object->dlpi_addr + p.p_vaddr + p.p_filesz) / page * page;
            if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        }
        return 0;
    };
    ::dl_iterate_phdr(each, nullptr);
}

void blank_argv(int argc, char** argv, int index) {
    if (index < 0 || index >= argc || argv[index] == nullptr) return;
    char* from = argv[index];
    if (from[0] == '-')
        if (char* equals = std::strchr(from, '=')) from = equals + 1;
    // Volatile: nobody in this process reads the bytes again, but the kernel does, for ps.
    for (volatile char* p = from; *p != '\0'; ++p) *p = 'x';
}

bool sd_notify(std::string_view state) {
    const char* where = std::getenv("NOTIFY_SOCKET");
    if (where == nullptr || *where == '\0') return true;
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    const size_t len = std::strlen(where);
    if ((where[0] != '/' && where[0] != '@') || len >= sizeof at.sun_path) return false;
    std::memcpy(at.sun_path, where, len);
    if (where[0] == '@') at.sun_path[0] = '\0';  // abstract socket
    const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return false;
    const auto at_len = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + len);
    return ::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&at),
                    at_len) == static_cast<ssize_t>(state.size());
}

}  // namespace mesh::platform
