// SPDX-License-Identifier: BSD-3-Clause
// In place of user_net.cc where lwIP's source was not there.
#include "tailscaled/user_net.h"

namespace mesh::daemon {

Status UserNet::available() {
    return fail(Code::kUnsupported, "--tun=userspace-networking: this tailscaled was built without it, as the source of lwIP was missing; "
                                    "\"./dev build\" fetches it and builds one that has it");
}

Result<std::unique_ptr<UserNet>> UserNet::open(platform::Loop&, Random&, size_t, Hooks) {
    return tl::unexpected(available().error());
}

}  // namespace mesh::daemon
