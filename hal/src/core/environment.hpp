// environment.hpp: the variables libxhal reads, and none of them when the process has more rights
// than its user.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace xhal {

// The variable's value, empty when unset or when the process is privileged (setuid, capabilities):
// secure_getenv.
std::string environment(const char* name);
std::vector<std::string> split(std::string_view text, char separator);
// Shell-style pattern with * and ?.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace xhal
