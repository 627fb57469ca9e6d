// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Command line flags with the rules people's scripts rely on: one or two dashes, `--x=v` or `--x v`, booleans `--x` or
/// `--x=false`, no glued values, parsing ends at the first other word or at `--`, a repeated flag is an error. Pure.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace mesh::cli {

/// "1h2m3.5s", "300ms", "0"; nullopt if malformed. A number other than 0 needs a unit.
[[nodiscard]] std::optional<Duration> parse_duration(std::string_view text);
/// "true" or "1" and the like in six spellings each.
[[nodiscard]] std::optional<bool> parse_bool(std::string_view text);

enum class Show : uint8_t { kListed, kHidden };

class FlagSet {
   public:
    /// `command`: "tailscale up"; `usage`: "[flags]"; `summary`: one line; `about`: paragraphs or "".
    FlagSet(std::string command, std::string usage, std::string summary, std::string about = "");

    /// Targets must outlive the set; they hold the default value now.
    void add(std::string name, bool* target, std::string help, Show show = Show::kListed);
    void add(std::string name, std::string* target, std::string help, Show show = Show::kListed);
    void add(std::string name, int64_t* target, std::string help, Show show = Show::kListed);
    void add(std::string name, Duration* target, std::string help, Show show = Show::kListed);
    /// A second name for a flag.
    void alias(std::string other, std::string name);

    enum class Outcome : uint8_t { kOk, kHelp, kBad };
    /// On kBad, error() is the first line to print; usage() follows and the exit code is 2.
    [[nodiscard]] Outcome parse(const std::vector<std::string>& args);
    [[nodiscard]] const std::string& error() const { return error_; }
    [[nodiscard]] const std::vector<std::string>& rest() const { return rest_; }

    /// Named on the command line.
    [[nodiscard]] bool given(std::string_view name) const { return given_.count(std::string(name)) > 0; }
    [[nodiscard]] const std::set<std::string>& given() const { return given_; }
    /// All names, sorted.
    [[nodiscard]] std::vector<std::string> names() const;
    [[nodiscard]] bool is_bool(std::string_view name) const;
    /// Current value as text.
    [[nodiscard]] std::string value_text(std::string_view name) const;

    [[nodiscard]] std::string usage() const;

   private:
    using Target = std::variant<bool*, std::string*, int64_t*, Duration*>;
    struct Flag {
        std::string name;
        Target target;
        std::string help;
        std::string initial;
        Show show;
    };
    void insert(std::string name, Target target, std::string help, Show show);
    [[nodiscard]] const Flag* find(std::string_view name) const;
    [[nodiscard]] static std::string text_of(const Target& target);
    bool assign(const Flag& flag, const std::string& value);

    std::string command_, usage_, summary_, about_;
    std::vector<Flag> flags_;
    std::vector<std::pair<std::string, std::string>> aliases_;
    std::set<std::string> given_;
    std::vector<std::string> rest_;
    std::string error_;
};

/// As scripts see lists of words in messages: ["extra" "args"].
[[nodiscard]] std::string quoted_list(const std::vector<std::string>& words);
/// "x" with what a shell or a terminal would take amiss escaped.
[[nodiscard]] std::string in_quotes(std::string_view word);
/// As one word for a POSIX shell; unchanged if that is safe.
[[nodiscard]] std::string shell_quoted(std::string_view word);
/// "1ms", "0s", "1.5s", "1m0s".
[[nodiscard]] std::string duration_text(Duration d);
[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);

}  // namespace mesh::cli
