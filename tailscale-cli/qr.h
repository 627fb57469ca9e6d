// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Login URLs as QR codes: for terminals (light on dark, so that a camera sees them) and as a picture. Pure.

#include <optional>
#include <string>

namespace mesh::cli {

enum class QrFormat { kSmall, kLarge, kAscii };
/// "auto", "small", "large", "ascii".
[[nodiscard]] std::optional<QrFormat> parse_qr_format(const std::string& text);

/// Lines ending with newlines; "" if the text is too long for a QR code.
[[nodiscard]] std::string qr_text(const std::string& content, QrFormat format);
/// A PNG file of 128 × 128 pixels or more; "" if the text is too long.
[[nodiscard]] std::string qr_png(const std::string& content);

}  // namespace mesh::cli
