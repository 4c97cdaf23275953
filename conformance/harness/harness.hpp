// SPDX-License-Identifier: Apache-2.0
// harness.hpp: runs one problem of an operator on the device and compares it with the reference.
#pragma once

#include <string>

#include "harness/catalogue.hpp"
#include "reference/problem.hpp"

namespace xhal::cts {

// The ways the same operator is asked, each with another memory layout or shape.
enum class Case { plain, odd, strided, broadcast, empty, aliased };
const char* name_of(Case c);

struct Run {
  Case layout = Case::plain;
  bool negative_strides = false;    // of inputs, in the strided case
  bool scalars_by_address = false;  // launch scalars lie in device memory
  size_t alias = 0;                 // in the aliased case: which of the catalogue's pairs
};

// What became of it. A refusal is the plugin's, with its own words; everything else has been
// reported to GoogleTest.
struct Outcome {
  bool refused = false;
  std::string reason;
  std::vector<ref::Group> outputs;  // what the device computed
};

// Prepares, launches, reads back, compares with `expected` (none: only runs it), and checks that
// nothing else in memory has changed. `problem` is changed where the case demands it (values that
// repeat, scalars rounded to f32).
Outcome run_problem(ref::Problem& problem, ref::Reference expected, const Run& run);

// Runs the problem with every number among its attributes left out, and with the catalogue's
// default given for each, and compares the bits. Lists stay as the problem has them.
struct Defaults {
  bool ran = false;     // false: the plugin refused both
  std::string problem;  // what is wrong, or empty
};
Defaults compare_defaults(const ref::Problem& problem);

// Whether the catalogue's alias pair `alias` can be run in place with this problem: same
// dtypes and sizes.
bool can_alias(const ref::Problem& problem, size_t alias);

// Makes the values of the problem's inputs equal along the dims that the broadcast case lays out
// with stride 0.
void apply_broadcast(ref::Problem& problem);

// Gives back the device memory that the runs share, before its device is closed.
void release_arena();

// The first element that is outside the tolerance, explained; empty when there is none.
std::string first_difference(const ref::Tensor& wanted, const ref::Tensor& got,
                             Tolerance tolerance);

}  // namespace xhal::cts
