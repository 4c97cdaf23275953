// SPDX-License-Identifier: Apache-2.0
#include "catalogue.hpp"

#include <algorithm>
#include <string>
#include <string_view>

namespace xhal::cpu {
namespace {

struct Row {
  uint32_t id;
  std::string_view inputs, outputs, alias, determinism;
};

constexpr Row kRows[] = {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
  {id, inputs, outputs, alias, #determinism},
#include "xhal/ops.inc"
#undef XHAL_OP
};

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> list;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    if (end > 0) list.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return list;
}

std::string_view name_of_group(std::string_view word) { return word.substr(0, word.find(':')); }

// The input group that `output` may lie on, or -1. "all in place" pairs x_out with x, and
// out with in.
int partner(const Row& row, const std::vector<std::string_view>& inputs, std::string_view output) {
  std::vector<std::string> wanted;
  if (row.alias == "all in place") {
    if (output == "out") wanted.emplace_back("in");
    if (output.ends_with("_out")) wanted.emplace_back(output.substr(0, output.size() - 4));
  } else {
    for (const auto rule : words(row.alias)) {
      const size_t at = rule.find('=');
      if (rule.substr(0, at) == output) wanted.emplace_back(rule.substr(at + 1));
    }
  }
  for (const auto& name : wanted) {
    for (size_t g = 0; g < inputs.size(); ++g) {
      if (name_of_group(inputs[g]) == name) return static_cast<int>(g);
    }
  }
  return -1;
}

}  // namespace

OperatorFacts facts_of(const xhal_op_info& info) {
  OperatorFacts facts;
  facts.aliases.assign(info.operand_count, 0);
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const Row& r) { return r.id == info.id; });
  if (row == std::end(kRows)) return facts;
  facts.deterministic = row->determinism != "no";
  const auto inputs = words(row->inputs), outputs = words(row->outputs);
  std::vector<uint32_t> first(info.group_count + 1, 0);
  for (uint32_t g = 0; g < info.group_count; ++g) first[g + 1] = first[g] + info.group_sizes[g];
  facts.first_output = first[inputs.size()];
  for (size_t o = 0; o < outputs.size(); ++o) {
    const int in = partner(*row, inputs, name_of_group(outputs[o]));
    if (in < 0) continue;
    const uint32_t group = static_cast<uint32_t>(inputs.size() + o);
    const uint32_t count =
        std::min(info.group_sizes[group], info.group_sizes[static_cast<uint32_t>(in)]);
    for (uint32_t i = 0; i < count; ++i)
      facts.aliases[first[group] + i] = first[static_cast<uint32_t>(in)] + i + 1;
  }
  return facts;
}

}  // namespace xhal::cpu
