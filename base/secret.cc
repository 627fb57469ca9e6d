// SPDX-License-Identifier: BSD-3-Clause
#include "base/secret.h"

#include <sodium.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace mesh {
namespace {

std::atomic<bool> g_locked{true};

/// sodium_malloc asks for the lock itself, but keeps the answer to itself: asking again tells.
char* locked_memory(size_t size) {
    CHECK(sodium_init() >= 0);
    void* p = sodium_malloc(size);
    if (p == nullptr) throw std::bad_alloc();
    errno = 0;
    if (sodium_mlock(p, size) != 0 && g_locked.exchange(false))
        log::info("secrets: keys cannot be locked into memory ({}) and may reach the swap space; allow the program more locked memory "
                  "(LimitMEMLOCK=, ulimit -l) or do without swap", std::strerror(errno));
    return static_cast<char*>(p);
}

/// Slots of 32 bytes in chunks of four pages, never given back to the system. A free slot holds the way to the next one.
class Arena {
   public:
    LockedKey::Raw* take() {
        const std::lock_guard lock(mutex_);
        if (free_ == nullptr) grow();
        Slot* slot = std::exchange(free_, free_->next);
        return new (slot) LockedKey::Raw{};
    }
    void give(LockedKey::Raw* raw) {
        sodium_memzero(raw->data(), raw->size());
        const std::lock_guard lock(mutex_);
        free_ = new (raw) Slot{free_};
    }

   private:
    struct Slot {
        Slot* next;
    };
    static constexpr size_t kSlot = sizeof(LockedKey::Raw);
    // A slot less than four pages: the library keeps 16 bytes of its own before ours.
    static constexpr size_t kChunk = 4 * 4096 - kSlot;

    void grow() {
        char* chunk = locked_memory(kChunk);
        CHECK(reinterpret_cast<uintptr_t>(chunk) % kSlot == 0);
        std::memset(chunk, 0, kChunk);
        for (size_t at = kChunk; at >= kSlot; at -= kSlot) free_ = new (chunk + at - kSlot) Slot{free_};
    }

    std::mutex mutex_;
    Slot* free_ = nullptr;
};

/// Never destroyed: keys with static storage may go after everything else.
Arena& arena() {
    static Arena& a = *new Arena;
    return a;
}

}  // namespace

const LockedKey::Raw LockedKey::kZero{};

LockedKey& LockedKey::operator=(const LockedKey& other) {
    if (other.slot_ == nullptr)
        wipe();
    else
        bytes() = *other.slot_;
    return *this;
}

LockedKey& LockedKey::operator=(LockedKey&& other) noexcept {
    std::swap(slot_, other.slot_);
    return *this;
}

LockedKey::Raw& LockedKey::take() {
    slot_ = arena().take();
    return *slot_;
}

void LockedKey::wipe() {
    if (slot_ != nullptr) arena().give(std::exchange(slot_, nullptr));
}

bool LockedKey::operator==(const LockedKey& other) const {
    return sodium_memcmp(bytes().data(), other.bytes().data(), bytes().size()) == 0;
}

LockedText::LockedText(std::string_view text) {
    if (text.empty()) return;
    text_ = locked_memory(text.size());
    size_ = text.size();
    std::memcpy(text_, text.data(), size_);
}

LockedText::LockedText(LockedText&& other) noexcept
    : text_(std::exchange(other.text_, nullptr)), size_(std::exchange(other.size_, 0)) {}

LockedText& LockedText::operator=(LockedText other) noexcept {
    std::swap(text_, other.text_);
    std::swap(size_, other.size_);
    return *this;
}

LockedText::~LockedText() {
    if (text_ != nullptr) sodium_free(text_);
}

bool secrets_are_locked() { return g_locked; }

}  // namespace mesh
