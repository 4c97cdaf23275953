// SPDX-License-Identifier: Apache-2.0
// library.hpp: mapping a plugin's library, and being sure which file was mapped.
#pragma once

#include "loader/trust.hpp"
#include "xhal/plugin.h"

namespace xhal {

// The one symbol a plugin exports.
inline constexpr const char* kEntry = "xhal_plugin_negotiate";

// Maps the library and finds its entry point. It is never unloaded: its code may be on some stack,
// and its statics own threads.
//
// It is mapped by its path, not through the descriptor that was checked: under /proc/self/fd the C
// library would look for $ORIGIN's siblings, and debuggers, profilers and the plugin itself
// (dladdr) would not find the file. So that no other file than the checked one is used, its
// identity is compared right before, and the C library is asked right after whether what it has
// under that path is the file behind the descriptor; if not, nothing of it is called. Only root or
// the user could have exchanged it: open_trusted has seen to that. Errors: CORRUPT (does not load;
// the dynamic loader's reason), BUSY (was exchanged meanwhile), PLUGIN (no entry point), IO (/proc
// is not mounted).
Problem map_library(const TrustedFile& file, xhal_plugin_negotiate_fn* entry);

}  // namespace xhal
