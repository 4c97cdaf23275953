// SPDX-License-Identifier: Apache-2.0
// environment.hpp: the variables libxhal reads, and the two ways their lists are written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "xhal_base/environment.hpp"

namespace xhal {

using base::environment;
using base::environment_choice;
using base::environment_number;
using base::environment_switch;
using base::environment_text;

std::vector<std::string> split(std::string_view text, char separator);
// Shell-style pattern with * and ?.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace xhal
