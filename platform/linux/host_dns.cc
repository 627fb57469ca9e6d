// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/host_dns.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"

namespace mesh::platform {

/// Members with `_there` belong to the thread, those below the mutex to both, the rest to the caller's loop.
class HostDns::Worker {
   public:
    Worker(Loop& loop, Open open, std::function<void()> on_change) : loop_(loop), on_change_(std::move(on_change)) {
        loop_there_.post([this, open = std::move(open)] {
            manager_there_ = open(loop_there_, [this] { report(); });
            report();
        });
        thread_ = std::thread([this] { loop_there_.run(); });
    }
    ~Worker() {
        *alive_ = false;
        {
            const std::lock_guard lock(mutex_);
            wanted_.reset();  // nobody needs what has not begun yet
        }
        loop_there_.post([this] {
            manager_there_.reset();
            loop_there_.stop();
        });
        thread_.join();
    }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void set(OsDnsConfig config) {
        const std::lock_guard lock(mutex_);
        ++asked_;
        const bool posted = wanted_.has_value();
        wanted_ = std::move(config);
        if (!posted) loop_there_.post([this] { carry_out(); });
    }
    void look() {
        if (look_posted_) return;
        look_posted_ = true;
        loop_there_.post([this] {
            if (manager_there_) manager_there_->look();
            report(Word::kLooked);
        });
    }
    [[nodiscard]] bool settled() const {
        const std::lock_guard lock(mutex_);
        return done_ == asked_;
    }
    bool wait(Duration limit) {
        std::unique_lock lock(mutex_);
        return settled_.wait_for(lock, std::chrono::milliseconds(limit.millis()), [this] { return done_ == asked_; });
    }
    [[nodiscard]] const State* state() const { return state_ ? &*state_ : nullptr; }

   private:
    // ---- on the thread
    void carry_out() {
        OsDnsConfig config;
        uint64_t number = 0;
        {
            const std::lock_guard lock(mutex_);
            if (!wanted_) return;
            config = *std::move(wanted_);
            wanted_.reset();
            number = asked_;
        }
        if (manager_there_)
            if (const Status s = manager_there_->set(config); !s) log::info("dns: {}", s.error().message());
        {
            const std::lock_guard lock(mutex_);
            done_ = number;
        }
        settled_.notify_all();
        report(Word::kDone);
    }
    enum class Word : uint8_t { kNews, kLooked, kDone };
    void report(Word word = Word::kNews) {
        State now;
        if (manager_there_) now = {manager_there_->can_split(), manager_there_->base(), manager_there_->problems()};
        if (word == Word::kNews && told_there_ && *told_there_ == now) return;
        told_there_ = now;
        loop_.post([this, alive = alive_, word, now = std::move(now)]() mutable {
            if (*alive) heard(word, std::move(now));
        });
    }

    // ---- on the caller's loop
    void heard(Word word, State now) {
        if (word == Word::kLooked) look_posted_ = false;
        const bool news = word == Word::kDone || !state_ || !(*state_ == now);
        state_ = std::move(now);
        if (!news || !on_change_) return;
        const auto tell = on_change_;  // may destroy us
        tell();
    }

    Loop& loop_;
    const std::function<void()> on_change_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::optional<State> state_;
    bool look_posted_ = false;

    mutable std::mutex mutex_;
    std::condition_variable settled_;
    std::optional<OsDnsConfig> wanted_;
    uint64_t asked_ = 0, done_ = 0;

    Loop loop_there_;
    std::unique_ptr<DnsManager> manager_there_;
    std::optional<State> told_there_;
    std::thread thread_;
};

HostDns::HostDns(Loop& loop, Open open, std::function<void()> on_change)
    : worker_(std::make_unique<Worker>(loop, std::move(open), std::move(on_change))) {}
HostDns::~HostDns() = default;
const HostDns::State* HostDns::state() const { return worker_->state(); }
void HostDns::set(OsDnsConfig config) { worker_->set(std::move(config)); }
void HostDns::look() { worker_->look(); }
bool HostDns::settled() const { return worker_->settled(); }
bool HostDns::wait(Duration limit) { return worker_->wait(limit); }

}  // namespace mesh::platform
