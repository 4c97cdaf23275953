// SPDX-License-Identifier: Apache-2.0
// probe.hpp: loading a plugin in a child first, so that one that crashes on load does not take the
// framework with it.
#pragma once

#include "loader/trust.hpp"

namespace xhal {

// Runs xhal-probe on this very file, with a deadline, unless its verdict is remembered
// (probe_cache.hpp). Only a verdict that the child has written makes a plugin good: how the host
// program treats SIGCHLD, and what the plugin prints, do not matter.
Problem probe_library(const TrustedFile& library);

}  // namespace xhal
