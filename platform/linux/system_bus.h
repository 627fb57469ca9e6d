// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// The D-Bus system bus by sd-bus, loaded at run time: most hosts without systemd do not have it and do not need it.
/// Calls block, a second at most, or until a time that is set for all of them together.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "platform/loop/loop.h"

namespace mesh::platform {

/// One argument of a method call: the few shapes that are needed.
struct BusArg {
    enum class Kind : uint8_t { kInt, kString, kBool, kAddresses, kDomains } kind;
    int32_t number = 0;
    std::string text;
    std::vector<std::pair<int32_t, std::vector<uint8_t>>> addresses;  ///< a(iay)
    std::vector<std::pair<std::string, bool>> domains;                ///< a(sb)

    static BusArg integer(int32_t n);
    static BusArg string(std::string s);
    static BusArg boolean(bool b);
    static BusArg address_list(std::vector<std::pair<int32_t, std::vector<uint8_t>>> list);
    static BusArg domain_list(std::vector<std::pair<std::string, bool>> list);
};

struct BusTarget {
    const char* service;
    const char* path;
    const char* interface;
};

class SystemBus {
   public:
    /// kNotFound: no sd-bus library here. kUnavailable: no bus.
    [[nodiscard]] static Result<std::unique_ptr<SystemBus>> open();
    ~SystemBus();
    SystemBus(const SystemBus&) = delete;
    SystemBus& operator=(const SystemBus&) = delete;

    /// From now on calls together take no longer than this, whoever does not answer.
    void limit(Duration all_together);
    /// The answer's content is not looked at. The error's context ends with the bus's name of the error.
    Status call(const BusTarget& target, const char* method, const std::vector<BusArg>& args);
    [[nodiscard]] bool has_owner(const char* service);
    [[nodiscard]] Result<std::string> string_property(const BusTarget& target, const char* name);
    /// `on_owner` in a turn of its own whenever `service` (re)appears, from now until the bus dies.
    Status watch_owner(Loop& loop, const char* service, std::function<void()> on_owner);

   private:
    struct State;
    explicit SystemBus(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace mesh::platform
