// probe.hpp: loading a plugin in a child first, so that one that crashes on load does not take the
// framework with it.
#pragma once

#include <filesystem>

#include "loader/manifest.hpp"

namespace xhal {

// Runs xhal-probe on the library, with a deadline. Good verdicts are remembered by the identity of
// every library the child mapped; bad ones for an hour.
Problem probe_library(const std::filesystem::path& library);

}  // namespace xhal
