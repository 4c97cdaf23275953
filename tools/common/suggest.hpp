// SPDX-License-Identifier: Apache-2.0
// suggest.hpp: words for a sentence: "did you mean", and lists.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace xhal::tools {

// The one of `known` that `word` most likely meant; empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

// "a, b, c"
std::string joined(const std::vector<std::string>& words);

}  // namespace xhal::tools
