// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/dns_manager.h"

#include "base/log.h"
#include "platform/file.h"

namespace mesh::platform {
namespace {

/// A manager with a sentence about the host that it found.
class Annotated final : public DnsManager {
   public:
    Annotated(std::unique_ptr<DnsManager> inner, std::string problem) : inner_(std::move(inner)), problem_(std::move(problem)) {}
    Status set(const OsDnsConfig& config) override { return inner_->set(config); }
    [[nodiscard]] ResolverConfig base() const override { return inner_->base(); }
    [[nodiscard]] bool can_split() const override { return inner_->can_split(); }
    [[nodiscard]] DnsMode mode() const override { return inner_->mode(); }
    [[nodiscard]] std::vector<std::string> problems() const override {
        auto out = inner_->problems();
        out.push_back(problem_);
        return out;
    }
    void look() override { inner_->look(); }

   private:
    std::unique_ptr<DnsManager> inner_;
    std::string problem_;
};

std::unique_ptr<DnsManager> make(DnsMode mode, Loop& loop, const DnsManagerOptions& options) {
    switch (mode) {
        case DnsMode::kResolved: return make_resolved_dns(loop, options);
        case DnsMode::kDebianResolvconf: return make_resolvconf_dns(ResolvconfKind::kDebian, options);
        case DnsMode::kOpenresolv: return make_resolvconf_dns(ResolvconfKind::kOpen, options);
        case DnsMode::kDirect: break;
    }
    return make_direct_dns(loop, options);
}

}  // namespace

std::unique_ptr<DnsManager> open_dns_manager(Loop& loop, DnsManagerOptions options) {
    constexpr size_t kMaxFileBytes = size_t{1} << 20;
    DnsHostFacts facts;
    if (auto text = read_file(options.etc + "/resolv.conf", kMaxFileBytes)) facts.resolv_conf = std::move(*text);
    if (auto text = read_file(options.etc + "/nsswitch.conf", kMaxFileBytes)) facts.nsswitch = std::move(*text);
    ask_bus(facts);
    facts.resolvconf = find_resolvconf();
    DnsChoice choice = choose_dns_mode(facts);
    log::info("dns: [{}]", choice.trace);
    log::info("dns: using \"{}\" mode", dns_mode_name(choice.mode));
    auto manager = make(choice.mode, loop, options);
    if (choice.problem.empty()) return manager;
    return std::make_unique<Annotated>(std::move(manager), std::move(choice.problem));
}

Status cleanup_dns(const std::string& etc) {
    const Status resolvconf = cleanup_resolvconf(etc);
    const Status file = ResolvFile(etc).apply(std::nullopt);
    return file ? resolvconf : file;
}

}  // namespace mesh::platform
