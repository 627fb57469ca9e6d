// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Files that peers sent, on their way to a program of this host that fetches them by the local API. On the control loop.

#include <memory>
#include <string>

#include "platform/net/byte_stream.h"
#include "tailscaled/taildrop.h"
#include "tailscaled/tunnel_server.h"

namespace mesh::daemon {

class FileReads {
   public:
    static constexpr size_t kMaxAtOnce = 64;

    /// Both must outlive this.
    FileReads(platform::Loop& loop, Taildrop& files) : loop_(loop), files_(files) {}
    ~FileReads();
    FileReads(const FileReads&) = delete;
    FileReads& operator=(const FileReads&) = delete;

    /// `client` hears the whole file with its length, or the refusal, and is then closed.
    void take(const std::string& name, platform::ByteStream client);

   private:
    class Reading;
    platform::Loop& loop_;
    Taildrop& files_;
    Connections<Reading> readings_{loop_};
};

}  // namespace mesh::daemon
