// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Memory for secrets: locked (never written to swap), left out of core dumps, between guard pages, wiped when it is given
/// back. Where the system allows no locked memory (RLIMIT_MEMLOCK) the rest still holds; that is said once in the log.
///
/// All threads may make and drop secrets at any time; one object belongs to one thread, as any other value.

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace mesh {

/// 32 secret bytes: a key. Until it is written to it reads as zeros and takes no locked memory. Making one costs a lock
/// and a list operation: for handshakes, not for packets. Reading costs one pointer.
class LockedKey {
   public:
    using Raw = std::array<uint8_t, 32>;

    LockedKey() = default;
    explicit LockedKey(const Raw& raw) { bytes() = raw; }
    LockedKey(const LockedKey& other) { *this = other; }
    LockedKey& operator=(const LockedKey& other);
    LockedKey(LockedKey&& other) noexcept : slot_(other.slot_) { other.slot_ = nullptr; }
    LockedKey& operator=(LockedKey&& other) noexcept;
    ~LockedKey() { wipe(); }

    [[nodiscard]] const Raw& bytes() const { return slot_ != nullptr ? *slot_ : kZero; }
    /// For writing. Stays where it is until wipe() or the end, also if the object is moved.
    [[nodiscard]] Raw& bytes() { return slot_ != nullptr ? *slot_ : take(); }
    [[nodiscard]] bool is_zero() const { return bytes() == kZero; }
    /// Back to zeros.
    void wipe();
    bool operator==(const LockedKey& other) const;

   private:
    static const Raw kZero;
    Raw& take();
    Raw* slot_ = nullptr;
};

/// Secret text of any length, unchangeable. Each takes two pages or more: for the few that live long.
class LockedText {
   public:
    LockedText() = default;
    explicit LockedText(std::string_view text);
    LockedText(const LockedText& other) : LockedText(other.view()) {}
    LockedText(LockedText&& other) noexcept;
    LockedText& operator=(LockedText other) noexcept;
    ~LockedText();

    [[nodiscard]] std::string_view view() const { return {text_, size_}; }
    [[nodiscard]] bool empty() const { return size_ == 0; }

   private:
    char* text_ = nullptr;
    size_t size_ = 0;
};

/// False once the system refused to lock memory for a secret.
[[nodiscard]] bool secrets_are_locked();

}  // namespace mesh
