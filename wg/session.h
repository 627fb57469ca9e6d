// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// One keypair: seals with a counter, opens with a replay window (whitepaper 5.4.6, RFC 6479). Owned by a peer's slots.

#include <array>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/crypto/aead_stream.h"
#include "base/keys.h"
#include "base/time.h"
#include "wg/drop.h"
#include "wg/messages.h"
#include "wg/noise.h"

namespace mesh::wg {

/// Which counters were seen: a ring of 128 words, of which one is always being reused, so the last 8128 count.
class ReplayWindow {
   public:
    static constexpr uint64_t kWords = 128;
    static constexpr uint64_t kSize = (kWords - 1) * 64;

    /// Not seen and not too old.
    [[nodiscard]] bool fresh(uint64_t counter) const {
        if (counter > last_) return true;
        if (last_ - counter > kSize) return false;
        return (words_[(counter / 64) % kWords] >> (counter % 64) & 1) == 0;
    }
    /// Only for a fresh counter of a message that authenticated.
    void mark(uint64_t counter);
    [[nodiscard]] bool empty() const { return last_ == 0 && words_[0] == 0; }

   private:
    uint64_t last_ = 0;
    std::array<uint64_t, kWords> words_{};
};

enum class Role : uint8_t { kInitiator, kResponder };

class Session {
   public:
    Session(const TransportKeys& keys, Role role, uint32_t local_index, uint32_t remote_index, PeerId peer, Time now)
        : send_(std::make_shared<const crypto::AeadStream>(keys.send.bytes())),
          receive_(keys.receive.bytes()),
          created_(now),
          local_index_(local_index),
          remote_index_(remote_index),
          peer_(peer),
          role_(role) {}
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// See Device::seal.
    [[nodiscard]] size_t seal(uint8_t* slot, size_t plain_len, size_t mtu);
    /// seal() in two steps, for many packets at once: prepare() writes header and padding, takes the next counter and
    /// describes the rest of the work; seal() of the jobs does it. Neither may be left out.
    [[nodiscard]] size_t prepare(uint8_t* slot, size_t plain_len, size_t mtu, crypto::AeadJob& job);
    void seal(std::span<crypto::AeadJob> jobs) const { send_->seal(jobs); }
    /// For jobs that are done later, when the session may be gone.
    [[nodiscard]] const std::shared_ptr<const crypto::AeadStream>& seal_key() const { return send_; }

    /// Opens a transport message of at least kDataOverhead bytes in place; the plaintext starts at kDataHeader.
    [[nodiscard]] DropReason open(MutByteSpan datagram, Time now);
    /// open() in three steps: what can be said before decryption, then the jobs that passed, then what each came to.
    [[nodiscard]] DropReason check(MutByteSpan datagram, Time now, crypto::AeadJob& job) const;
    void open(std::span<crypto::AeadJob> jobs) const { receive_.open(jobs); }
    [[nodiscard]] DropReason accept(const crypto::AeadJob& job);

    [[nodiscard]] Duration age(Time now) const { return now - created_; }
    [[nodiscard]] bool can_send(Time now) const {
        return age(now) < kRejectAfterTime && next_counter_ < kRejectAfterMessages;
    }
    /// Time or messages say that the sender should make a new one.
    [[nodiscard]] bool rekey_on_send(Time now) const {
        return next_counter_ > kRekeyAfterMessages || (role_ == Role::kInitiator && age(now) >= kRekeyAfterTime);
    }
    [[nodiscard]] Role role() const { return role_; }
    [[nodiscard]] Time created() const { return created_; }
    [[nodiscard]] uint32_t local_index() const { return local_index_; }
    [[nodiscard]] uint32_t remote_index() const { return remote_index_; }
    [[nodiscard]] PeerId peer() const { return peer_; }
    /// Something authentic came by it. Until then an initiator cannot know that the other side uses it.
    [[nodiscard]] bool heard() const { return !window_.empty(); }
    [[nodiscard]] uint64_t messages_sent() const { return next_counter_; }
    /// Leaves counters out, so that tests reach the limits. Never goes back.
    void skip_to_counter(uint64_t counter) {
        if (counter > next_counter_) next_counter_ = counter;
    }

   private:
    std::shared_ptr<const crypto::AeadStream> send_;
    crypto::AeadStream receive_;
    uint64_t next_counter_ = 0;
    Time created_;
    uint32_t local_index_;
    uint32_t remote_index_;
    PeerId peer_;
    Role role_;
    ReplayWindow window_;
};

/// Zero bytes to add to a packet of `len`: up to a multiple of 16, never beyond `mtu`. A packet longer than the MTU (a
/// super-packet) is padded as its last piece would be. mtu 0: no limit.
[[nodiscard]] constexpr size_t padding_for(size_t len, size_t mtu) {
    size_t last = len;
    if (mtu != 0 && last > mtu) last %= mtu;
    size_t padded = (last + kPadding - 1) & ~(kPadding - 1);
    if (mtu != 0 && padded > mtu) padded = mtu;
    return padded - last;
}

}  // namespace mesh::wg
