// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The only road between two loops: a bounded queue, many producers, one consumer, woken by an Async.

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "platform/loop/loop.h"

namespace mesh::platform {

/// Lives on the consumer's side: made before the consumer's loop runs, or on its thread; destroyed on its thread (or
/// after it ended). Items not yet delivered are destroyed with it.
template <class T>
class Channel {
    struct Core {
        std::mutex mutex;
        std::deque<T> items;            // guarded by mutex
        std::unique_ptr<Async> async;   // guarded by mutex; null once the channel is gone
        size_t capacity = 0;
        size_t budget = 0;
        std::function<void(T&&)> on_item;  // consumer thread only

        bool push(T&& item) {
            const std::lock_guard lock(mutex);
            if (!async || items.size() >= capacity) return false;
            items.push_back(std::move(item));
            if (items.size() == 1) async->send();
            return true;
        }
    };

   public:
    /// Producer's end. Copyable, threadsafe, may outlive the channel.
    class Sender {
       public:
        Sender() = default;
        /// False when the queue is full or the channel is gone; the item is then untouched.
        bool push(T&& item) const { return core_ && core_->push(std::move(item)); }

       private:
        friend class Channel;
        explicit Sender(std::shared_ptr<Core> core) : core_(std::move(core)) {}
        std::shared_ptr<Core> core_;
    };

    /// `on_item` runs on the loop thread, at most `budget` items a turn, in order of arrival. It may destroy the channel.
    Channel(Loop& loop, size_t capacity, std::function<void(T&&)> on_item, size_t budget = 64)
        : core_(std::make_shared<Core>()) {
        core_->capacity = capacity;
        core_->budget = budget;
        core_->on_item = std::move(on_item);
        core_->async = std::make_unique<Async>(loop, [core = std::weak_ptr<Core>(core_)] {
            if (auto c = core.lock()) drain(*c);
        });
    }
    ~Channel() {
        std::unique_ptr<Async> async;
        std::deque<T> items;
        const std::lock_guard lock(core_->mutex);
        async.swap(core_->async);
        items.swap(core_->items);
    }
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    bool push(T&& item) { return core_->push(std::move(item)); }
    [[nodiscard]] Sender sender() const { return Sender(core_); }
    [[nodiscard]] size_t size() const {
        const std::lock_guard lock(core_->mutex);
        return core_->items.size();
    }

   private:
    static void drain(Core& core) {
        for (size_t i = 0; i < core.budget; ++i) {
            std::unique_lock lock(core.mutex);
            if (!core.async || core.items.empty()) return;
            T item = std::move(core.items.front());
            core.items.pop_front();
            lock.unlock();
            core.on_item(std::move(item));
        }
        const std::lock_guard lock(core.mutex);
        if (core.async && !core.items.empty()) core.async->send();
    }

    std::shared_ptr<Core> core_;
};

}  // namespace mesh::platform
