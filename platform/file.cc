// SPDX-License-Identifier: BSD-3-Clause
#include "platform/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

namespace mesh::platform {
namespace {

struct Fd {
    int fd = -1;
    ~Fd() {
        if (fd >= 0) ::close(fd);
    }
};

std::function<int(FileStep, const std::string&)>& file_fault() {
    static std::function<int(FileStep, const std::string&)> fault;
    return fault;
}

/// `call` returns -1 and sets errno if it fails, as system calls do.
template <class Call>
auto step(FileStep which, const std::string& path, Call call) -> decltype(call()) {
    if (const auto& fault = file_fault()) {
        if (const int e = fault(which, path); e != 0) {
            errno = e;
            return -1;
        }
    }
    return call();
}

std::string folder_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
    Fd f{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (f.fd < 0) return fail(errno == ENOENT ? Code::kNotFound : Code::kSystem, "open " + path, errno);
    std::string out;
    std::vector<char> buffer(16384);  // not on the stack: what is given back to the heap gets wiped, and it may be a key file
    for (;;) {
        const ssize_t n = ::read(f.fd, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("read " + path, errno);
        if (n == 0) return out;
        if (out.size() + static_cast<size_t>(n) > max_bytes) return fail(Code::kLimit, path + " is too large");
        out.append(buffer.data(), static_cast<size_t>(n));
    }
}

Status replace_file(const std::string& path, std::string_view content, unsigned mode) {
    const std::string temp = path + ".tmp";
    const auto give_up = [&temp](std::string what) {
        const int e = errno;
        ::unlink(temp.c_str());
        return fail_errno(std::move(what), e);
    };
    {
        Fd f{step(FileStep::kCreate, temp, [&] { return ::open(temp.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode); })};
        if (f.fd < 0) return fail_errno("create " + temp, errno);
        for (size_t done = 0; done < content.size();) {
            const ssize_t n = step(FileStep::kWrite, temp, [&] { return ::write(f.fd, content.data() + done, content.size() - done); });
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return give_up("write " + temp);
            done += static_cast<size_t>(n);
        }
        if (step(FileStep::kMode, temp, [&] { return ::fchmod(f.fd, mode); }) != 0) return give_up("chmod " + temp);
        if (step(FileStep::kSync, temp, [&] { return ::fsync(f.fd); }) != 0) return give_up("fsync " + temp);
    }
    if (step(FileStep::kRename, path, [&] { return ::rename(temp.c_str(), path.c_str()); }) != 0)
        return give_up("rename " + temp + " to " + path);
    const std::string folder = folder_of(path);
    const Fd d{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (d.fd < 0 || step(FileStep::kSyncFolder, folder, [&] { return ::fsync(d.fd); }) != 0) return fail_errno("fsync " + folder, errno);
    return {};
}

void set_file_fault(std::function<int(FileStep, const std::string& path)> fault) { file_fault() = std::move(fault); }

Status make_folders(const std::string& path, unsigned mode) {
    if (path.empty() || path == "/" || path == ".") return {};
    struct stat st{};
    if (::stat(path.c_str(), &st) == 0) {
        if (S_ISDIR(st.st_mode)) return {};
        return fail(Code::kInvalid, path + " is not a folder");
    }
    TRY(make_folders(folder_of(path), 0755));
    if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return fail_errno("mkdir " + path, errno);
    return {};
}

}  // namespace mesh::platform
