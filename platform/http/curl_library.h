// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// libcurl, loaded while somebody needs it: it brings some thirty further libraries, which a daemon that asks for a page
/// at start and then once in a while should neither load at start nor keep in memory (4 MB).

#define CURL_DISABLE_TYPECHECK 1
#include <curl/curl.h>

#include <memory>

#include "base/result.h"

namespace mesh::platform {

/// The functions of libcurl that we use. One thread only.
class CurlLibrary {
   public:
    /// Sanitizers want to name what belongs to a library: there it stays in memory.
    static const bool kStays;
    /// Loads it, or shares what is loaded already. It leaves memory with the last owner. Error: what could not be loaded.
    [[nodiscard]] static Result<std::shared_ptr<const CurlLibrary>> load();
    ~CurlLibrary();
    CurlLibrary(const CurlLibrary&) = delete;
    CurlLibrary& operator=(const CurlLibrary&) = delete;

    decltype(&curl_easy_init) easy_init = nullptr;
    decltype(&curl_easy_setopt) easy_setopt = nullptr;
    decltype(&curl_easy_getinfo) easy_getinfo = nullptr;
    decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
    decltype(&curl_easy_strerror) easy_strerror = nullptr;
    decltype(&curl_multi_init) multi_init = nullptr;
    decltype(&curl_multi_setopt) multi_setopt = nullptr;
    decltype(&curl_multi_add_handle) multi_add_handle = nullptr;
    decltype(&curl_multi_remove_handle) multi_remove_handle = nullptr;
    decltype(&curl_multi_socket_action) multi_socket_action = nullptr;
    decltype(&curl_multi_info_read) multi_info_read = nullptr;
    decltype(&curl_multi_cleanup) multi_cleanup = nullptr;
    decltype(&curl_slist_append) slist_append = nullptr;
    decltype(&curl_slist_free_all) slist_free_all = nullptr;

   private:
    CurlLibrary() = default;
    Status bind();

    void* handle_ = nullptr;
    decltype(&curl_global_init) global_init_ = nullptr;
    decltype(&curl_global_cleanup) global_cleanup_ = nullptr;
    bool started_ = false;
};

}  // namespace mesh::platform
