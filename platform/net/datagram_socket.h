// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// A UDP socket with one counterpart, for datagrams that go through this program one by one.

#include <cstdint>
#include <functional>
#include <memory>

#include "base/ip.h"
#include "base/result.h"
#include "platform/fd.h"
#include "platform/loop/loop.h"

namespace mesh::platform {

class DatagramSocket {
   public:
    /// One datagram of the counterpart, of any length. May destroy the socket.
    using OnDatagram = std::function<void(ByteSpan)>;

    /// `port`: of our own, if it is free; else, or if 0, any.
    [[nodiscard]] static Result<std::unique_ptr<DatagramSocket>> connect(Loop& loop, const Endpoint& to, uint16_t port, OnDatagram on_datagram);
    ~DatagramSocket() {
        if (gone_ != nullptr) *gone_ = true;
    }
    DatagramSocket(const DatagramSocket&) = delete;
    DatagramSocket& operator=(const DatagramSocket&) = delete;
    /// What the kernel does not take is lost, as on any network.
    void send(ByteSpan datagram);
    [[nodiscard]] Endpoint local_endpoint() const;

   private:
    DatagramSocket(Loop& loop, UniqueFd fd, OnDatagram on_datagram);
    void on_readable();

    UniqueFd fd_;
    OnDatagram on_datagram_;
    bool* gone_ = nullptr;  // a caller up the stack wants to know
    FdPoll poll_;
};

}  // namespace mesh::platform
