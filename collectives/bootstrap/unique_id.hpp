// SPDX-License-Identifier: Apache-2.0
// unique_id.hpp: what the 128 bytes of an xcoll_unique_id mean.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "xcoll/comm.h"

namespace xcoll::bootstrap {

struct IdBody {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  std::array<uint8_t, 16> name;    // of the abstract unix socket; everybody on the host can see it
  std::array<uint8_t, 16> secret;  // never on a public list: who knows it may join
  std::array<char, 40> boot_id;    // of the host that made the id
  uint64_t network_namespace;      // abstract sockets are per network namespace
  std::array<char, 32> host;
};
static_assert(sizeof(IdBody) == sizeof(xcoll_unique_id));

IdBody make_id();
// Throws INVALID_ARGUMENT for bytes that are no id, UNSUPPORTED for one of another host or version.
IdBody parse_id(const xcoll_unique_id& id);

std::string host_name();

}  // namespace xcoll::bootstrap
