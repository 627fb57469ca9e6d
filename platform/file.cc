// SPDX-License-Identifier: BSD-3-Clause
#include "platform/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace mesh::platform {
namespace {

struct Fd {
    int fd = -1;
    ~Fd() {
        if (fd >= 0) ::close(fd);
    }
};

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
    char buffer[16384];
    for (;;) {
        const ssize_t n = ::read(f.fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("read " + path, errno);
        if (n == 0) return out;
        if (out.size() + static_cast<size_t>(n) > max_bytes) return fail(Code::kLimit, path + " is too large");
        out.append(buffer, static_cast<size_t>(n));
    }
}

Status replace_file(const std::string& path, std::string_view content, unsigned mode) {
    const std::string temp = path + ".tmp";
    {
        Fd f{::open(temp.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)};
        if (f.fd < 0) return fail_errno("create " + temp, errno);
        for (size_t done = 0; done < content.size();) {
            const ssize_t n = ::write(f.fd, content.data() + done, content.size() - done);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) {
                const int e = errno;
                ::unlink(temp.c_str());
                return fail_errno("write " + temp, e);
            }
            done += static_cast<size_t>(n);
        }
        if (::fchmod(f.fd, mode) != 0 || ::fsync(f.fd) != 0) {
            const int e = errno;
            ::unlink(temp.c_str());
            return fail_errno("fsync " + temp, e);
        }
    }
    if (::rename(temp.c_str(), path.c_str()) != 0) {
        const int e = errno;
        ::unlink(temp.c_str());
        return fail_errno("rename " + temp + " to " + path, e);
    }
    const std::string folder = folder_of(path);
    Fd d{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (d.fd < 0 || ::fsync(d.fd) != 0) return fail_errno("fsync " + folder, errno);
    return {};
}

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
