// SPDX-License-Identifier: BSD-3-Clause
#include "platform/http/curl_library.h"

#include <dlfcn.h>

#include <string>

#include "base/sanitized.h"

namespace mesh::platform {
namespace {

constexpr const char* kFile = "libcurl.so.4";

std::string last_words() {
    const char* text = ::dlerror();
    return text != nullptr ? text : "unknown cause";
}

std::weak_ptr<const CurlLibrary>& loaded() {
    static std::weak_ptr<const CurlLibrary> library;
    return library;
}

}  // namespace

const bool CurlLibrary::kStays = MESH_SANITIZED != 0;

Result<std::shared_ptr<const CurlLibrary>> CurlLibrary::load() {
    if (auto shared = loaded().lock()) return shared;
    std::shared_ptr<CurlLibrary> fresh(new CurlLibrary);
    if (Status s = fresh->bind(); !s) return tl::unexpected(std::move(s.error()));
    loaded() = fresh;
    return std::shared_ptr<const CurlLibrary>(std::move(fresh));
}

Status CurlLibrary::bind() {
    handle_ = ::dlopen(kFile, RTLD_NOW | RTLD_LOCAL | (kStays ? RTLD_NODELETE : 0));
    if (handle_ == nullptr) return fail(Code::kUnavailable, "no library for HTTP requests (Debian package libcurl4): " + last_words());
    const char* missing = nullptr;
    const auto find = [&]<typename F>(F& function, const char* name) {
        function = reinterpret_cast<F>(::dlsym(handle_, name));
        if (function == nullptr) missing = name;
    };
    find(global_init_, "curl_global_init");
    find(global_cleanup_, "curl_global_cleanup");
    find(easy_init, "curl_easy_init");
    find(easy_setopt, "curl_easy_setopt");
    find(easy_getinfo, "curl_easy_getinfo");
    find(easy_cleanup, "curl_easy_cleanup");
    find(easy_strerror, "curl_easy_strerror");
    find(multi_init, "curl_multi_init");
    find(multi_setopt, "curl_multi_setopt");
    find(multi_add_handle, "curl_multi_add_handle");
    find(multi_remove_handle, "curl_multi_remove_handle");
    find(multi_socket_action, "curl_multi_socket_action");
    find(multi_info_read, "curl_multi_info_read");
    find(multi_cleanup, "curl_multi_cleanup");
    find(slist_append, "curl_slist_append");
    find(slist_free_all, "curl_slist_free_all");
    if (missing != nullptr) return fail(Code::kUnavailable, std::string(kFile) + " has no " + missing);
    if (global_init_(CURL_GLOBAL_DEFAULT) != CURLE_OK) return fail(Code::kInternal, std::string(kFile) + " does not start");
    started_ = true;
    return {};
}

CurlLibrary::~CurlLibrary() {
    if (started_) global_cleanup_();
    if (handle_ != nullptr) ::dlclose(handle_);
}

}  // namespace mesh::platform
