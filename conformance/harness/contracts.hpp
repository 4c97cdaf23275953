// SPDX-License-Identifier: Apache-2.0
// contracts.hpp: what a test asks for, in the words of the contract, and the header it stands in.
#pragma once

#include <string>

namespace xhal::cts {

// Stands for no test: the plugin's start, before the first one.
inline constexpr const char* kStart = "the plugin's start";

// "the contract, xhal/stream.h (xhal_stream_host_call): always exactly once ...", by a test's
// display name.
std::string contract_of(const std::string& test);

}  // namespace xhal::cts
