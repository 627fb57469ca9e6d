// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/ipn/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/json.h"

namespace mesh::ipn {
namespace {

constexpr const char* kMachineKey = "_machinekey";
constexpr const char* kCurrent = "_current-profile";
constexpr const char* kProfiles = "_profiles";
constexpr const char* kOurs = "_tailmesh";
/// The stamp on disk is renewed when it is this much behind, so an unclean stop may have used stamps up to this later.
constexpr int64_t kStampStride_ns = minutes(10).ns;

std::string hex4(Random& random) { return fmt::format("{:04x}", random.below(65536)); }

/// "profile-" and an id. Under any other name a save would overwrite an entry of another kind or could not be read back.
bool is_profile_key(std::string_view key) {
    constexpr std::string_view kPrefix = "profile-";
    return key.starts_with(kPrefix) && key.size() > kPrefix.size() && key.size() <= 64 &&
           std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

api::LoginProfile read_profile(const std::string& id, const Json& j) {
    api::LoginProfile p;
    p.id = id;
    p.key = json::str(j, "Key");
    p.name = json::str(j, "Name");
    p.node_id = json::str(j, "NodeID");
    p.control_url = json::str(j, "ControlURL");
    if (const Json* n = json::find(j, "NetworkProfile")) {
        p.magic_dns_name = json::str(*n, "MagicDNSName");
        p.domain_name = json::str(*n, "DomainName");
        p.display_name = json::str(*n, "DisplayName");
    }
    if (const Json* u = json::find(j, "UserProfile"))
        p.user_profile = {json::integer(*u, "ID"), json::str(*u, "LoginName"), json::str(*u, "DisplayName"), json::str(*u, "ProfilePicURL")};
    p.created = json::parse_time(json::str(j, "Created")).value_or(WallTime{});
    return p;
}

/// The list of logins, with what others wrote into it.
Json stored_profiles(const StateStore& store) {
    if (const auto text = store.get(kProfiles))
        if (auto j = json::parse(*text, 4U << 20); j && j->is_object()) return std::move(*j);
    return Json::object();
}

}  // namespace

Result<Profiles> Profiles::load(StateStore store, Random& random) {
    Profiles p;
    p.store_ = std::move(store);
    if (const auto text = p.store_.get(kMachineKey)) {
        const auto key = MachinePrivate::parse(*text);
        if (!key) return fail(Code::kInvalid, "the machine key in the state file is damaged");
        p.machine_ = *key;
    } else {
        p.machine_ = MachinePrivate::generate(random);
        p.store_.set(kMachineKey, p.machine_.secret_text());
    }
    p.disco_ = DiscoPrivate::generate(random);
    if (const auto text = p.store_.get(kOurs)) {
        TRY_ASSIGN(const Json j, json::parse(*text, 65536));
        if (const auto key = DiscoPrivate::parse(json::str(j, "DiscoKey"))) p.disco_ = *key;
        p.stamp_ns_ = std::clamp<int64_t>(json::integer(j, "Stamp"), 0, INT64_MAX / 2);
        p.stamp_clean_ = json::boolean(j, "StampClean", true);
    }
    p.write_ours();
    if (const auto current = p.store_.get(kCurrent); current && !current->empty()) {
        if (!is_profile_key(*current)) return fail(Code::kInvalid, "the name of the current profile in the state file is damaged");
        p.profile_.key = *current;
        if (const auto text = p.store_.get(*current)) {
            auto prefs = api::parse_prefs(*text);
            if (!prefs) return fail(Code::kInvalid, "the profile in the state file is damaged: " + prefs.error().context);
            p.prefs_ = std::move(*prefs);
        }
    }
    if (const auto text = p.store_.get(kProfiles)) {
        TRY_ASSIGN(const Json all, json::parse(*text, 4U << 20));
        if (all.is_object())
            for (const auto& [id, j] : all.items())
                if (!p.profile_.key.empty() && json::str(j, "Key") == p.profile_.key) p.profile_ = read_profile(id, j);
    }
    return p;
}

void Profiles::set_prefs(api::Prefs prefs, Random& random, WallTime now) {
    prefs_ = std::move(prefs);
    if (prefs_.persist) {
        profile_.user_profile = prefs_.persist->user_profile;
        profile_.node_id = prefs_.persist->node_id;
    }
    profile_.control_url = prefs_.control_url;
    profile_.name = prefs_.profile_name.empty() ? profile_.user_profile.login_name : prefs_.profile_name;
    if (profile_.key.empty()) {
        do profile_.id = hex4(random);
        while (stored_profiles(store_).contains(profile_.id));
        profile_.key = "profile-" + profile_.id;
        profile_.created = now;
    }
    write_profile();
}

void Profiles::become(api::LoginProfile profile, api::Prefs prefs, Random& random) {
    profile_ = std::move(profile);
    prefs_ = std::move(prefs);
    // Another login is another node for everybody else: its pings must not be taken for the old one's.
    disco_ = DiscoPrivate::generate(random);
    if (profile_.key.empty())
        store_.erase(kCurrent);
    else
        store_.set(kCurrent, profile_.key);
    write_ours();
}

void Profiles::forget_login(Random& random) {
    if (!profile_.key.empty()) store_.erase(profile_.key);
    Json all = stored_profiles(store_);
    all.erase(profile_.id);
    store_.set(kProfiles, json::dump(all));
    become({}, {}, random);
}

bool Profiles::note_network(const std::string& magic_dns_name, const std::string& domain_name) {
    if (profile_.key.empty() || (profile_.magic_dns_name == magic_dns_name && profile_.domain_name == domain_name)) return false;
    profile_.magic_dns_name = magic_dns_name;
    profile_.domain_name = domain_name;
    write_profile();
    return true;
}

std::vector<api::LoginProfile> Profiles::all() const {
    std::vector<api::LoginProfile> out;
    const Json all = stored_profiles(store_);
    for (const auto& [id, j] : all.items()) {
        api::LoginProfile p = read_profile(id, j);
        if (is_profile_key(p.key)) out.push_back(std::move(p));
    }
    std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return out;
}

void Profiles::drop_unused() {
    if (!profile_.key.empty() && !has_node_key()) remove(profile_.id);
}

Status Profiles::select(const std::string& id, Random& random) {
    const auto known = all();
    const auto it = std::find_if(known.begin(), known.end(), [&](const api::LoginProfile& p) { return p.id == id; });
    if (it == known.end()) return fail(Code::kNotFound, "profile not found");
    if (it->key == profile_.key) return {};
    const auto text = store_.get(it->key);
    auto prefs = text ? api::parse_prefs(*text) : fail(Code::kNotFound, "no settings");
    if (!prefs) return fail(Code::kInvalid, "the profile in the state file is damaged: " + prefs.error().context);
    drop_unused();
    become(*it, std::move(*prefs), random);
    return {};
}

void Profiles::begin_another(Random& random) {
    drop_unused();
    become({}, {}, random);
}

void Profiles::remove(const std::string& id) {
    Json all = stored_profiles(store_);
    if (!all.contains(id)) return;
    if (const std::string key = json::str(all[id], "Key"); is_profile_key(key)) store_.erase(key);
    all.erase(id);
    store_.set(kProfiles, json::dump(all));
}

int64_t Profiles::timestamp_floor(WallTime now) const {
    if (stamp_clean_) return stamp_ns_;
    const int64_t worst = stamp_ns_ + kStampStride_ns;
    // After an unclean stop stamps of up to a stride later may have been used. A clock well past that settles it.
    return now.unix_ns > worst ? stamp_ns_ : worst;
}

bool Profiles::note_timestamp(int64_t unix_ns, bool clean_stop) {
    if (unix_ns <= 0) return false;
    if (clean_stop) {
        if (stamp_clean_ && stamp_ns_ == unix_ns) return false;
    } else if (!stamp_clean_ && unix_ns <= stamp_ns_ + kStampStride_ns) {
        return false;
    }
    stamp_ns_ = unix_ns;
    stamp_clean_ = clean_stop;
    write_ours();
    return true;
}

void Profiles::write_ours() {
    store_.set(kOurs, json::dump(Json{{"DiscoKey", disco_.secret_text()}, {"Stamp", stamp_ns_}, {"StampClean", stamp_clean_}}));
}

void Profiles::write_profile() {
    store_.set(profile_.key, api::prefs_json(prefs_, api::Secrets::kShown));
    store_.set(kCurrent, profile_.key);
    Json all = stored_profiles(store_);
    Json& j = all[profile_.id];
    if (!j.is_object()) j = Json::object();
    const api::UserProfile& u = profile_.user_profile;
    j["ID"] = profile_.id;
    j["Name"] = profile_.name;
    j["NetworkProfile"] = {{"MagicDNSName", profile_.magic_dns_name}, {"DomainName", profile_.domain_name}, {"DisplayName", profile_.display_name}};
    j["Key"] = profile_.key;
    j["UserProfile"] = {{"ID", u.id}, {"LoginName", u.login_name}, {"DisplayName", u.display_name}};
    if (!u.profile_pic_url.empty()) j["UserProfile"]["ProfilePicURL"] = u.profile_pic_url;
    j["NodeID"] = profile_.node_id;
    j["LocalUserID"] = "";
    j["ControlURL"] = profile_.control_url;
    j["Created"] = json::time_text(profile_.created);
    store_.set(kProfiles, json::dump(all));
}

}  // namespace mesh::ipn
