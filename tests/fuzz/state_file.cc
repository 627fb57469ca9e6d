// SPDX-License-Identifier: BSD-3-Clause
// A state file of any content: read whole or refused. What is read is written the same; an identity in it is never
// replaced, neither by loading nor by what follows.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "tailscaled/ipn/profile.h"
#include "tailscaled/ipn/store.h"

using namespace mesh;

namespace {

void live_with(const ipn::StateStore& store) {
    SeededRandom random(1);
    const auto before = store.get("_machinekey");
    auto profiles = ipn::Profiles::load(store, random);
    if (!profiles) return;
    if (before) CHECK(MachinePrivate::parse(*before) == profiles->machine_key());
    const auto disco = profiles->disco_key().secret_text();
    const auto same_after_restart = [&] {
        const auto text = ipn::StateStore::parse(profiles->store().serialize());
        CHECK(text);
        const auto again = ipn::Profiles::load(*text, random);
        CHECK(again && again->machine_key() == profiles->machine_key());
        CHECK(again->prefs() == profiles->prefs() && again->current().key == profiles->current().key);
        CHECK(again->disco_key() == profiles->disco_key());
        return again->timestamp_floor(WallTime{1'800'000'000LL * 1'000'000'000});
    };
    CHECK(same_after_restart() >= 0);
    api::Prefs prefs = profiles->prefs();
    prefs.want_running = !prefs.want_running;
    prefs.hostname = "renamed";
    profiles->set_prefs(prefs, random, WallTime{1'800'000'000LL * 1'000'000'000});
    CHECK(profiles->prefs() == prefs && profiles->disco_key().secret_text() == disco);
    profiles->note_timestamp(1'800'000'000LL * 1'000'000'000, true);
    CHECK(same_after_restart() == 1'800'000'000LL * 1'000'000'000);
    profiles->forget_login(random);
    CHECK(!profiles->has_node_key());
    same_after_restart();
    if (before) CHECK(profiles->store().get("_machinekey") == before);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const bool quiet = [] {
        log::set_sink([](std::string_view) {});
        return true;
    }();
    (void)quiet;
    const std::string_view text = as_text({data, size});
    const auto store = ipn::StateStore::parse(text);
    if (store) {
        const std::string once = store->serialize();
        const auto again = ipn::StateStore::parse(once);
        CHECK(again && again->serialize() == once);
        live_with(*store);
    }
    // The same text in the clear, entry by entry: base64 would hide it from the mutations.
    ipn::StateStore plain;
    std::string_view rest = text;
    for (const char* name : {"_current-profile", "profile-1234", "_profiles", "_tailmesh", "_machinekey"}) {
        const std::string_view one = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), one.size() + 1));
        if (!one.empty()) plain.set(name, std::string(one));
    }
    live_with(plain);
    return 0;
}
