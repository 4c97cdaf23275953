// SPDX-License-Identifier: Apache-2.0
// catalogue.hpp: ops.inc as data.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace xhal::cts {

struct OperandGroup {
  enum class Arity { one, optional, list };
  std::string name;
  char types = 'F';                     // F N A X L B S, as ops.inc explains them
  std::vector<std::string> more_types;  // "f64", "u32"
  Arity arity = Arity::one;
};

struct AttributeRule {
  std::string name, kind;    // "i", "f", "ii", "ff"
  double default_value = 0;  // lists are empty by default
  bool is_list() const { return kind.size() == 2; }
};

enum class Tolerance { exact, ulp, sum, gemm, random };

struct Operator {
  std::string name;
  uint32_t id = 0, version = 0;
  std::vector<OperandGroup> inputs, outputs;
  std::vector<AttributeRule> attributes;
  std::vector<std::string> scalars;  // names, in order
  // Pairs of output group and input group that may share an address. "all in place" pairs
  // groups by name.
  std::vector<std::pair<size_t, size_t>> aliases;
  bool in_place_together = false;  // the pairs are one way of running it, not alternatives
  bool deterministic = false;
  Tolerance tolerance = Tolerance::exact;
  std::string prose;
};

const std::vector<Operator>& catalogue();
const Operator& operator_of(uint32_t id);

}  // namespace xhal::cts
