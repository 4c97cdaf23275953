// SPDX-License-Identifier: Apache-2.0
// host_stubs.hpp: the host services a plugin meets in a trial: complete, and of no use.
#pragma once

#include <string>

#include "xhal/plugin.h"

namespace xhal::probe {

// A full table, so that no plugin stumbles over a hole; allocations fail, errors are kept.
const xhal_host_services* host_stubs();

// Text of the last error the plugin reported.
const std::string& last_reported_text();

}  // namespace xhal::probe
