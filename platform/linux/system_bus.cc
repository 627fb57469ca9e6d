// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/system_bus.h"

#include <dlfcn.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace mesh::platform {

// What sd-bus(3) documents, declared here because its headers are not needed to build.
struct sd_bus;
struct sd_bus_message;
struct sd_bus_error {
    const char* name = nullptr;
    const char* message = nullptr;
    int need_free = 0;
};
using BusHandler = int (*)(sd_bus_message*, void*, sd_bus_error*);

namespace {

constexpr int64_t kLimitUsec = 1'000'000;

struct Library {
    int (*open_system)(sd_bus**) = nullptr;
    sd_bus* (*flush_close_unref)(sd_bus*) = nullptr;
    int (*new_method_call)(sd_bus*, sd_bus_message**, const char*, const char*, const char*, const char*) = nullptr;
    int (*append)(sd_bus_message*, const char*, ...) = nullptr;
    int (*append_array)(sd_bus_message*, char, const void*, size_t) = nullptr;
    int (*open_container)(sd_bus_message*, char, const char*) = nullptr;
    int (*close_container)(sd_bus_message*) = nullptr;
    int (*bus_call)(sd_bus*, sd_bus_message*, uint64_t, sd_bus_error*, sd_bus_message**) = nullptr;
    int (*read)(sd_bus_message*, const char*, ...) = nullptr;
    sd_bus_message* (*message_unref)(sd_bus_message*) = nullptr;
    void (*error_free)(sd_bus_error*) = nullptr;
    int (*is_ready)(sd_bus*) = nullptr;
    int (*get_events)(sd_bus*) = nullptr;
    int (*match_signal)(sd_bus*, void**, const char*, const char*, const char*, const char*, BusHandler, void*) = nullptr;
    int (*get_fd)(sd_bus*) = nullptr;
    int (*process)(sd_bus*, sd_bus_message**) = nullptr;
    bool good = false;

    Library() {
        void* lib = ::dlopen("libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
        if (lib == nullptr) lib = ::dlopen("libelogind.so.0", RTLD_NOW | RTLD_LOCAL);
        if (lib == nullptr) return;
        good = load(lib, "sd_bus_open_system", open_system) && load(lib, "sd_bus_flush_close_unref", flush_close_unref) &&
               load(lib, "sd_bus_message_new_method_call", new_method_call) && load(lib, "sd_bus_message_append", append) &&
               load(lib, "sd_bus_message_append_array", append_array) && load(lib, "sd_bus_message_open_container", open_container) &&
               load(lib, "sd_bus_message_close_container", close_container) && load(lib, "sd_bus_call", bus_call) &&
               load(lib, "sd_bus_message_read", read) && load(lib, "sd_bus_message_unref", message_unref) &&
               load(lib, "sd_bus_error_free", error_free) && load(lib, "sd_bus_is_ready", is_ready) && load(lib, "sd_bus_get_events", get_events) &&
               load(lib, "sd_bus_match_signal", match_signal) && load(lib, "sd_bus_get_fd", get_fd) && load(lib, "sd_bus_process", process);
    }
    template <class F>
    static bool load(void* lib, const char* name, F& out) {
        out = reinterpret_cast<F>(::dlsym(lib, name));
        return out != nullptr;
    }
};

const Library& library() {
    static const Library lib;
    return lib;
}

/// Owns a message.
struct Message {
    sd_bus_message* m = nullptr;
    Message() = default;
    ~Message() {
        if (m != nullptr) library().message_unref(m);
    }
    Message(const Message&) = delete;
    Message& operator=(const Message&) = delete;
};
struct BusError : sd_bus_error {
    BusError() = default;
    ~BusError() { library().error_free(this); }
    BusError(const BusError&) = delete;
    BusError& operator=(const BusError&) = delete;
    [[nodiscard]] tl::unexpected<Error> fail_with(const std::string& what, int rc) const {
        if (name != nullptr) return fail(Code::kUnavailable, what + ": " + (message != nullptr ? message : "") + " (" + name + ")", -rc);
        return fail_errno(what, -rc);
    }
};

int append_arg(sd_bus_message* m, const BusArg& a) {
    const Library& l = library();
    switch (a.kind) {
        case BusArg::Kind::kInt: return l.append(m, "i", a.number);
        case BusArg::Kind::kString: return l.append(m, "s", a.text.c_str());
        case BusArg::Kind::kBool: return l.append(m, "b", a.number);
        case BusArg::Kind::kAddresses: {
            int rc = l.open_container(m, 'a', "(iay)");
            for (const auto& [family, bytes] : a.addresses) {
                if (rc >= 0) rc = l.open_container(m, 'r', "iay");
                if (rc >= 0) rc = l.append(m, "i", family);
                if (rc >= 0) rc = l.append_array(m, 'y', bytes.data(), bytes.size());
                if (rc >= 0) rc = l.close_container(m);
            }
            return rc >= 0 ? l.close_container(m) : rc;
        }
        case BusArg::Kind::kDomains: {
            int rc = l.open_container(m, 'a', "(sb)");
            for (const auto& [name, flag] : a.domains)
                if (rc >= 0) rc = l.append(m, "(sb)", name.c_str(), flag ? 1 : 0);
            return rc >= 0 ? l.close_container(m) : rc;
        }
    }
    return 0;
}

}  // namespace

BusArg BusArg::integer(int32_t n) { return {Kind::kInt, n, {}, {}, {}}; }
BusArg BusArg::string(std::string s) { return {Kind::kString, 0, std::move(s), {}, {}}; }
BusArg BusArg::boolean(bool b) { return {Kind::kBool, b ? 1 : 0, {}, {}, {}}; }
BusArg BusArg::address_list(std::vector<std::pair<int32_t, std::vector<uint8_t>>> list) {
    return {Kind::kAddresses, 0, {}, std::move(list), {}};
}
BusArg BusArg::domain_list(std::vector<std::pair<std::string, bool>> list) { return {Kind::kDomains, 0, {}, {}, std::move(list)}; }

struct SystemBus::State {
    sd_bus* bus = nullptr;
    Loop* loop = nullptr;
    Time until = Time::never();
    std::string watched;
    std::function<void()> on_owner;
    std::unique_ptr<FdPoll> poll;

    State() = default;
    ~State() {
        poll.reset();
        if (bus != nullptr) library().flush_close_unref(bus);
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    /// Microseconds that the next call may take; the library takes 0 for its own default.
    [[nodiscard]] uint64_t patience() const {
        const int64_t left = until.is_never() ? kLimitUsec : (until - read_clock()).ns / 1000;
        return static_cast<uint64_t>(std::clamp<int64_t>(left, 1, kLimitUsec));
    }
    static int name_owner_changed(sd_bus_message* m, void* user, sd_bus_error* /*error*/) {
        auto* self = static_cast<State*>(user);
        const char *name = nullptr, *before = nullptr, *now = nullptr;
        if (library().read(m, "sss", &name, &before, &now) >= 0 && self->watched == name && *now != '\0')
            self->loop->post([callback = self->on_owner] { callback(); });
        return 0;
    }
    /// Bus messages that came during calls are queued inside the library, so this runs after each of them too.
    void drain() {
        int rc = 0;
        for (int i = 0; i < 1000; ++i)
            if ((rc = library().process(bus, nullptr)) <= 0) break;
        if (rc < 0 && poll) poll->set_interest(false, false);  // the bus is gone; a new manager opens a new one
    }
};

SystemBus::SystemBus(std::unique_ptr<State> state) : state_(std::move(state)) {}
SystemBus::~SystemBus() = default;

namespace {
/// Where there is none, the library (1 MiB of memory) is not needed to find that out.
bool has_bus() {
    for (const char* path : {"/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"})
        if (::access(path, F_OK) == 0) return true;
    return ::getenv("DBUS_SYSTEM_BUS_ADDRESS") != nullptr;
}
}  // namespace

Result<std::unique_ptr<SystemBus>> SystemBus::open() {
    if (!has_bus()) return fail(Code::kNotFound, "no system bus");
    if (!library().good) return fail(Code::kNotFound, "no sd-bus library");
    auto state = std::make_unique<State>();
    if (const int rc = library().open_system(&state->bus); rc < 0) return fail(Code::kUnavailable, "system bus", -rc);
    // The greetings, here: inside the first call the library would wait for them without a limit of ours.
    state->until = read_clock() + milliseconds(kLimitUsec / 1000);
    for (;;) {
        const int rc = library().process(state->bus, nullptr);
        if (rc < 0) return fail(Code::kUnavailable, "system bus", -rc);
        if (library().is_ready(state->bus) > 0) break;
        if (rc > 0) continue;
        pollfd p{library().get_fd(state->bus), static_cast<short>(library().get_events(state->bus)), 0};
        const int64_t left = (state->until - read_clock()).millis();
        if (left <= 0) return fail(Code::kTimeout, "the system bus does not answer");
        static_cast<void>(::poll(&p, 1, static_cast<int>(left)));
    }
    state->until = Time::never();
    return std::unique_ptr<SystemBus>(new SystemBus(std::move(state)));
}

void SystemBus::limit(Duration all_together) { state_->until = read_clock() + all_together; }

Status SystemBus::call(const BusTarget& t, const char* method, const std::vector<BusArg>& args) {
    const std::string what = std::string(t.service) + " " + method;
    Message request, reply;
    int rc = library().new_method_call(state_->bus, &request.m, t.service, t.path, t.interface, method);
    for (const BusArg& a : args)
        if (rc >= 0) rc = append_arg(request.m, a);
    if (rc < 0) return fail_errno(what, -rc);
    BusError error;
    rc = library().bus_call(state_->bus, request.m, state_->patience(), &error, &reply.m);
    if (rc < 0) return error.fail_with(what, rc);
    if (state_->poll) state_->drain();
    return {};
}

bool SystemBus::has_owner(const char* service) {
    Message request, reply;
    const Library& l = library();
    if (l.new_method_call(state_->bus, &request.m, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner") < 0 ||
        l.append(request.m, "s", service) < 0)
        return false;
    BusError error;
    int yes = 0;
    return l.bus_call(state_->bus, request.m, state_->patience(), &error, &reply.m) >= 0 && l.read(reply.m, "b", &yes) >= 0 && yes != 0;
}

Result<std::string> SystemBus::string_property(const BusTarget& t, const char* name) {
    const Library& l = library();
    Message request, reply;
    BusError error;
    int rc = l.new_method_call(state_->bus, &request.m, t.service, t.path, "org.freedesktop.DBus.Properties", "Get");
    if (rc >= 0) rc = l.append(request.m, "ss", t.interface, name);
    if (rc >= 0) rc = l.bus_call(state_->bus, request.m, state_->patience(), &error, &reply.m);
    const char* text = nullptr;  // the message's
    if (rc >= 0) rc = l.read(reply.m, "v", "s", &text);
    if (rc < 0) return error.fail_with(std::string(t.service) + " " + name, rc);
    return std::string(text);
}

Status SystemBus::watch_owner(Loop& loop, const char* service, std::function<void()> on_owner) {
    state_->loop = &loop;
    state_->watched = service;
    state_->on_owner = std::move(on_owner);
    const int rc = library().match_signal(state_->bus, nullptr, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                          "NameOwnerChanged", &State::name_owner_changed, state_.get());
    if (rc < 0) return fail_errno("watch the system bus", -rc);
    const int fd = library().get_fd(state_->bus);
    if (fd < 0) return fail_errno("watch the system bus", -fd);
    state_->poll = std::make_unique<FdPoll>(loop, fd, [s = state_.get()](FdPoll::Events) { s->drain(); });
    state_->poll->set_interest(true, false);
    state_->drain();
    return {};
}

}  // namespace mesh::platform
