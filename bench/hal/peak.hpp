// SPDX-License-Identifier: Apache-2.0
// peak.hpp: how many multiplications and additions the cores can do, measured, not looked up.
#pragma once

#include <string>

namespace xhal::bench {

class Team;

enum class Format { f32, bf16 };

// The best multiply-add instruction this processor has for products of `format` ("AVX-512 f32",
// "AMX bf16", ...); empty: none, and f32's is used.
std::string peak_instruction(Format format);

// GFLOP/s of all threads of the team together, with that instruction on registers only; one sample
// takes about `ns`.
double peak_gflops(Team& team, Format format, uint64_t ns);

}  // namespace xhal::bench
