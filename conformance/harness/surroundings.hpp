// SPDX-License-Identifier: Apache-2.0
// surroundings.hpp: what of a process and of a thread is the program's, and no plugin's to change.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace xhal::cts {

// What is done for each signal, the working directory, the umask, the environment, the locale, and,
// of the calling thread, its signal mask and its floating-point mode: in words, by name.
using Surroundings = std::map<std::string, std::string>;
Surroundings surroundings();

// Success, or everything that differs.
testing::AssertionResult unchanged(const Surroundings& before, const Surroundings& after);

}  // namespace xhal::cts
