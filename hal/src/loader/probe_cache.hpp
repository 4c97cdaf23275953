// SPDX-License-Identifier: Apache-2.0
// probe_cache.hpp: what earlier probes said, in a file of the user's cache.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "loader/problem.hpp"

namespace xhal {

// The verdict on the library, while it counts: a good one until a library that the probe mapped, a
// driver or libxhal has changed, a bad one for an hour at most.
std::optional<Problem> remembered_verdict(const std::filesystem::path& library);

// Without a place for it the next start probes again, nothing worse.
void remember_verdict(const std::filesystem::path& library, const Problem& verdict,
                      const std::vector<std::string>& mapped);

}  // namespace xhal
