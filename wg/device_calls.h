// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Shared by the files that implement Device; nobody else includes this.

#include "wg/device.h"

namespace mesh::wg {

inline constexpr Duration kFirstRetry = milliseconds(800);

/// Marks the time in which the surroundings run: what they ask of us then is noted, not done, so that a callback never
/// sends an initiation between a received one and our answer to it.
class Device::Calling {
   public:
    explicit Calling(Device& d) : d_(d) { ++d_.calling_; }
    ~Calling() { --d_.calling_; }
    Calling(const Calling&) = delete;
    Calling& operator=(const Calling&) = delete;

   private:
    Device& d_;
};

template <class Message>
MutByteSpan bytes_of(Message& m) {
    return {reinterpret_cast<uint8_t*>(&m), sizeof m};
}

}  // namespace mesh::wg
