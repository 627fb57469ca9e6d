// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/ipn/store.h"

#include "base/bytes.h"
#include "base/json.h"

namespace mesh::ipn {

Result<StateStore> StateStore::parse(std::string_view file) {
    TRY_ASSIGN(const Json j, json::parse(file, 16U << 20));
    if (!j.is_object()) return fail(Code::kInvalid, "the state is not a JSON object");
    StateStore out;
    for (const auto& [key, value] : j.items()) {
        if (!value.is_string()) return fail(Code::kInvalid, "the state entry " + key + " is not a string");
        const auto raw = base64_decode(value.get<std::string>());
        if (!raw) return fail(Code::kInvalid, "the state entry " + key + " is not base64");
        out.entries_[key] = LockedText(as_text(*raw));
    }
    return out;
}

std::string StateStore::serialize() const {
    Json j = Json::object();
    for (const auto& [key, value] : entries_) j[key] = base64_encode(as_bytes(value.view()));
    return json::dump(j, "  ");
}

std::optional<std::string> StateStore::get(const std::string& key) const {
    const auto it = entries_.find(key);
    if (it == entries_.end()) return std::nullopt;
    return std::string(it->second.view());
}

bool StateStore::set(const std::string& key, std::string_view value) {
    auto [it, fresh] = entries_.try_emplace(key);
    if (!fresh && it->second.view() == value) return false;
    it->second = LockedText(value);
    return true;
}

bool StateStore::erase(const std::string& key) { return entries_.erase(key) > 0; }

}  // namespace mesh::ipn
