// SPDX-License-Identifier: Apache-2.0
#include "common/seconds.hpp"

#include <fmt/core.h>

#include <charconv>

namespace xhal::tools {

std::string wrong_seconds(const std::string& text, double least, double most) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && rest == end && value >= least && value <= most) return {};
  return fmt::format("there is no value \"{}\"; there are {:g} to {:g} seconds", text, least, most);
}

}  // namespace xhal::tools
