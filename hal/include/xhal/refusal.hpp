// SPDX-License-Identifier: Apache-2.0
// xhal/refusal.hpp: why a request to an operator is refused. Header only, C++20.
#ifndef XHAL_REFUSAL_HPP
#define XHAL_REFUSAL_HPP

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "xhal/status.h"

namespace xhal::catalogue {

// The status (XHAL_OK: not refused), the operand and the attribute (1 + position, 0 = none) and a
// sentence that names them.
struct Refusal {
  xhal_status status = XHAL_OK;
  uint32_t operand = 0, attribute = 0;
  std::string text;

  explicit operator bool() const { return status != XHAL_OK; }
};

// The parts, strings and integers, one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::string all;
  const auto put = [&all](const auto& part) {
    if constexpr (std::is_integral_v<std::remove_cvref_t<decltype(part)>>) {
      all.append(std::to_string(part));
    } else {
      all.append(std::string_view(part));
    }
  };
  (put(parts), ...);
  return all;
}

}  // namespace xhal::catalogue

#endif
