// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "xhal/command.hpp"

namespace xhal::tools {

extern const Command list_command;
extern const Command topo_command;
extern const Command reset_command;
extern const Command inject_command;
extern const Command plugins_list_command;
extern const Command plugins_doctor_command;
extern const Command plugins_new_command;

std::span<const Command* const> commands() {
  static constexpr std::array<const Command*, 7> kAll = {
      &list_command,         &topo_command,           &reset_command,      &inject_command,
      &plugins_list_command, &plugins_doctor_command, &plugins_new_command};
  return kAll;
}

}  // namespace xhal::tools
