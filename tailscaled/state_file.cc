// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/state_file.h"

#include <fmt/format.h>

#include "base/log.h"
#include "platform/file.h"

namespace mesh::daemon {

Result<ipn::StateStore> StateFile::load() {
    if (in_memory()) return ipn::StateStore{};
    const size_t slash = path_.rfind('/');
    if (slash != std::string::npos && slash > 0) TRY(platform::make_folders(path_.substr(0, slash), 0700));
    auto text = platform::read_file(path_);
    if (!text && text.error().code == Code::kNotFound) return ipn::StateStore{};
    if (!text) return tl::unexpected(std::move(text.error()));
    auto store = ipn::StateStore::parse(*text);
    if (store) {
        last_ = LockedText(*text);
        return store;
    }
    const std::string prev = path_ + ".prev";
    if (auto old = platform::read_file(prev)) {
        if (auto older = ipn::StateStore::parse(*old)) {
            log::info("state: {} is damaged ({}); going on with {}", path_, store.error().context, prev);
            return older;
        }
        return fail(Code::kInvalid, fmt::format("{0} and {1} are both damaged; move them away to start as a new node, or restore one of "
                                                "them from a backup", path_, prev));
    }
    return fail(Code::kInvalid, fmt::format("{} is damaged ({}) and there is no {}; move it away to start as a new node, or restore it "
                                            "from a backup", path_, store.error().context, prev));
}

Status StateFile::save(const ipn::StateStore& store) {
    if (in_memory()) return {};
    const std::string text = store.serialize();
    if (text == last_.view()) return {};
    if (!last_.empty()) TRY(platform::replace_file(path_ + ".prev", last_.view(), 0600));
    TRY(platform::replace_file(path_, text, 0600));
    last_ = LockedText(text);
    return {};
}

}  // namespace mesh::daemon
