// SPDX-License-Identifier: BSD-3-Clause
#include "platform/net/resolver.h"

#include <ares.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "base/check.h"
#include "base/log.h"
#include "platform/file.h"
#include "platform/net/sockaddr.h"

namespace mesh::platform {
namespace {

constexpr int kTryMs = 1500;
constexpr int kTries = 3;
constexpr size_t kMaxAddresses = 16;
constexpr size_t kMaxHostsBytes = size_t{4} << 20;
/// When one family has answered, the other gets this long (RFC 8305 section 3 asks for some such delay).
constexpr Duration kOtherFamilyDelay = milliseconds(100);

std::string lower(std::string_view s) {
    std::string out(s);
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

std::vector<Addr> from_hosts(const std::string& path, const std::string& host) {
    std::vector<Addr> out;
    const auto text = read_file(path, kMaxHostsBytes);
    if (!text) return out;
    std::istringstream lines(*text);
    std::string line;
    while (std::getline(lines, line) && out.size() < kMaxAddresses) {
        line.resize(std::min(line.find('#'), line.size()));
        std::istringstream words(line);
        std::string address, name;
        if (!(words >> address)) continue;
        while (words >> name) {
            if (lower(name) != host) continue;
            if (const auto a = Addr::parse(address)) out.push_back(*a);
            break;
        }
    }
    return out;
}

void init_library() {
    static std::once_flag once;
    std::call_once(once, [] { CHECK(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS); });
}

}  // namespace

struct ResolverQuery;

/// Belongs to c-ares until its callback comes; the link to the owner is cut when the owner dies first.
struct AresCall {
    ResolverQuery* owner = nullptr;
    bool v6 = false;
};

struct Resolver::State {
    Loop& loop;
    ResolverConfig config;
    ares_channel channel = nullptr;
    std::map<int, std::unique_ptr<FdPoll>> polls;
    Timer timer;
    std::set<ResolverQuery*> queries;

    State(Loop& l, ResolverConfig c) : loop(l), config(std::move(c)), timer(l, [this] { process(-1, -1); }) { open(); }
    ~State() { close(); }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    void open() {
        init_library();
        std::string csv;
        bool loopback = false;
        if (config.servers.empty()) config.servers.push_back({Addr::v4(127, 0, 0, 1), 53});
        for (const Endpoint& e : config.servers) {
            if (!csv.empty()) csv += ',';
            csv += Endpoint{e.addr, e.port == 0 ? uint16_t{53} : e.port}.str();
            loopback |= e.addr.is_loopback();
        }
        // A socket bound to an interface cannot reach a server on this host; a marked one can.
        protect = config.protect == Protect::kYes && (socket_mark_works() || !loopback);

        ares_options o{};
        std::vector<char*> domains;
        for (std::string& d : config.search) domains.push_back(d.data());
        char lookups[] = "b";
        char nowhere[] = "/dev/null";
        o.timeout = kTryMs;
        o.tries = kTries;
        o.ndots = config.ndots;
        o.domains = domains.data();
        o.ndomains = static_cast<int>(domains.size());
        o.lookups = lookups;
        o.resolvconf_path = nowhere;
        o.flags = ARES_FLAG_NOALIASES;
        o.sock_state_cb_data = this;
        o.sock_state_cb = [](void* self, ares_socket_t fd, int read, int write) {
            static_cast<State*>(self)->socket_state(fd, read != 0, write != 0);
        };
        const int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS |
                         ARES_OPT_RESOLVCONF | ARES_OPT_FLAGS | ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE;
        if (const int rc = ares_init_options(&channel, &o, mask); rc != ARES_SUCCESS) {
            log::info("resolver: {}", ares_strerror(rc));
            channel = nullptr;
            return;
        }
        if (const int rc = ares_set_servers_ports_csv(channel, csv.c_str()); rc != ARES_SUCCESS)
            log::info("resolver: servers {}: {}", csv, ares_strerror(rc));
        ares_set_socket_configure_callback(
            channel,
            [](ares_socket_t fd, int, void* self) {
                if (static_cast<State*>(self)->protect)
                    if (const Status s = protect_socket(fd, Addr()); !s)
                        log::debug(1, "resolver: {}", s.error().message());
                return 0;
            },
            this);
    }
    void close() {
        timer.cancel();
        if (channel != nullptr) ares_destroy(channel);
        channel = nullptr;
        polls.clear();
    }

    void socket_state(int fd, bool read, bool write) {
        if (!read && !write) {
            polls.erase(fd);
            return;
        }
        auto& poll = polls[fd];
        if (!poll)
            poll = std::make_unique<FdPoll>(
                loop, fd, [this, fd](FdPoll::Events e) { process(e.readable ? fd : -1, e.writable ? fd : -1); });
        poll->set_interest(read, write);
    }
    void process(int read_fd, int write_fd) {
        if (channel == nullptr) return;
        ares_process_fd(channel, read_fd < 0 ? ARES_SOCKET_BAD : read_fd, write_fd < 0 ? ARES_SOCKET_BAD : write_fd);
        rearm();
    }
    void rearm() {
        timeval tv{};
        if (ares_timeout(channel, nullptr, &tv) == nullptr)
            timer.cancel();
        else
            timer.set_after(seconds(tv.tv_sec) + microseconds(tv.tv_usec));
    }

    bool protect = false;
};

/// c-ares' callbacks only note what came; the user's callback runs from the query's own timer, so that it may destroy
/// the query or the resolver.
struct ResolverQuery final : Resolver::Lookup {
    Resolver::State* resolver;
    std::string host;
    Resolver::Callback callback;
    Timer timer;
    Time deadline;
    std::array<AresCall*, 2> calls{};  // still with c-ares: IPv4, IPv6
    std::vector<Addr> v4, v6;
    int problem = ARES_SUCCESS;

    ResolverQuery(Resolver::State* r, std::string h, Resolver::Callback cb)
        : resolver(r), host(std::move(h)), callback(std::move(cb)), timer(r->loop, [this] { deliver(); }) {
        resolver->queries.insert(this);
    }
    ~ResolverQuery() override {
        for (AresCall* c : calls)
            if (c != nullptr) c->owner = nullptr;
        if (resolver != nullptr) resolver->queries.erase(this);
    }
    ResolverQuery(const ResolverQuery&) = delete;
    ResolverQuery& operator=(const ResolverQuery&) = delete;

    /// The resolver dies: nothing more will come.
    void abandon() {
        for (AresCall*& c : calls) {
            if (c != nullptr) c->owner = nullptr;
            c = nullptr;
        }
        timer.cancel();
        resolver = nullptr;
    }

    void start(const Resolver::Options& options) {
        const Time now = resolver->loop.now();
        deadline = now + options.timeout;
        std::string name = host;
        if (name.ends_with('.')) name.pop_back();
        std::vector<Addr> known;
        if (const auto literal = Addr::parse(name))
            known.push_back(*literal);
        else
            known = from_hosts(resolver->config.hosts_path, lower(name));
        for (const Addr& a : known) keep(a, options.want);
        if (!known.empty()) {
            problem = ARES_ENODATA;
            timer.set(now);
            return;
        }
        if (resolver->channel == nullptr || name.empty() || name.size() > 253) {
            problem = resolver->channel == nullptr ? ARES_EDESTRUCTION : ARES_EBADNAME;
            timer.set(now);
            return;
        }
        timer.set(deadline);
        if (options.want != Resolver::Want::kV4) ask(true);
        if (options.want != Resolver::Want::kV6) ask(false);
        resolver->rearm();
    }

    void keep(const Addr& a, Resolver::Want want) {
        if (a.is_v4() && want != Resolver::Want::kV6 && v4.size() < kMaxAddresses) v4.push_back(a);
        if (a.is_v6() && want != Resolver::Want::kV4 && v6.size() < kMaxAddresses) v6.push_back(a);
    }

    void ask(bool for_v6) {
        auto call = std::make_unique<AresCall>(AresCall{this, for_v6});
        calls[for_v6 ? 1 : 0] = call.get();
        ares_addrinfo_hints hints{};
        hints.ai_family = for_v6 ? AF_INET6 : AF_INET;
        hints.ai_flags = ARES_AI_NOSORT;
        ares_getaddrinfo(
            resolver->channel, host.c_str(), nullptr, &hints,
            [](void* arg, int status, int, ares_addrinfo* info) {
                const std::unique_ptr<AresCall> c(static_cast<AresCall*>(arg));
                if (c->owner != nullptr) c->owner->answered(c->v6, status, info);
                if (info != nullptr) ares_freeaddrinfo(info);
            },
            call.release());
    }

    void answered(bool for_v6, int status, const ares_addrinfo* info) {
        calls[for_v6 ? 1 : 0] = nullptr;
        if (status == ARES_SUCCESS && info != nullptr) {
            for (const ares_addrinfo_node* n = info->nodes; n != nullptr; n = n->ai_next) {
                sockaddr_storage at{};
                if (n->ai_addrlen > sizeof at) continue;
                std::memcpy(&at, n->ai_addr, n->ai_addrlen);
                const Endpoint e = from_sockaddr(at);
                if (e.is_valid()) keep(e.addr, Resolver::Want::kBoth);
            }
        } else if (problem == ARES_SUCCESS || problem == ARES_ENODATA) {
            problem = status;  // "has no IPv6 address" says less than anything else
        }
        const Time now = resolver->loop.now();
        if (calls[0] == nullptr && calls[1] == nullptr)
            timer.set(now);
        else if (!v4.empty() || !v6.empty())
            timer.set(min(deadline, now + kOtherFamilyDelay));
    }

    [[nodiscard]] std::string server_list() const {
        std::string out;
        for (const Endpoint& e : resolver->config.servers) {
            if (!out.empty()) out += ", ";
            out += e.port == 53 || e.port == 0 ? e.addr.str() : e.str();
        }
        return out;
    }

    [[nodiscard]] Error explain() const {
        const std::string name = log::printable(host, 100);
        const bool unanswered = calls[0] != nullptr || calls[1] != nullptr;
        if (unanswered || problem == ARES_ETIMEOUT)
            return {Code::kTimeout, 0, "look up " + name + ": no answer from the DNS servers (" + server_list() + ")"};
        switch (problem) {
            case ARES_ENOTFOUND:
                return {Code::kNotFound, 0, "look up " + name + ": no such name"};
            case ARES_ENODATA:
            case ARES_SUCCESS:
                return {Code::kNotFound, 0, "look up " + name + ": the name has no address"};
            case ARES_EBADNAME:
                return {Code::kInvalid, 0, "look up " + name + ": not a valid name"};
            case ARES_ECONNREFUSED:
                return {Code::kUnavailable, 0, "look up " + name + ": the DNS servers cannot be reached (" + server_list() + ")"};
            case ARES_ECANCELLED:
            case ARES_EDESTRUCTION:
                return {Code::kUnavailable, 0, "look up " + name + ": interrupted by a change of the network"};
            default:
                return {Code::kUnavailable, 0, "look up " + name + ": " + ares_strerror(problem) + " (" + server_list() + ")"};
        }
    }

    void deliver() {
        std::vector<Addr> all = v6;
        all.insert(all.end(), v4.begin(), v4.end());
        Result<std::vector<Addr>> result = std::move(all);
        if (result->empty()) result = tl::unexpected(explain());
        for (AresCall*& c : calls) {  // late answers are nobody's
            if (c != nullptr) c->owner = nullptr;
            c = nullptr;
        }
        const Resolver::Callback cb = std::move(callback);
        cb(std::move(result));  // last
    }
};

Resolver::Resolver(Loop& loop, ResolverConfig config) : state_(std::make_unique<State>(loop, std::move(config))) {}

Resolver::~Resolver() {
    for (ResolverQuery* q : state_->queries) q->abandon();
    state_->queries.clear();
}

void Resolver::set_config(ResolverConfig config) {
    state_->close();
    state_->config = std::move(config);
    state_->open();
}

const ResolverConfig& Resolver::config() const { return state_->config; }

std::unique_ptr<Resolver::Lookup> Resolver::resolve(std::string_view host, const Options& options, Callback callback) {
    auto query = std::make_unique<ResolverQuery>(state_.get(), std::string(host), std::move(callback));
    query->start(options);
    return query;
}

}  // namespace mesh::platform
