// SPDX-License-Identifier: Apache-2.0
#include "harness/catalogue.hpp"

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace xhal::cts {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// "weight:F?", "param:F*" and "in:N+f64"
std::vector<OperandGroup> groups_of(const std::string& text) {
  std::vector<OperandGroup> groups;
  for (auto word : words_of(text)) {
    OperandGroup group;
    if (word.back() == '?') group.arity = OperandGroup::Arity::optional;
    if (word.back() == '*') group.arity = OperandGroup::Arity::list;
    if (group.arity != OperandGroup::Arity::one) word.pop_back();
    const auto colon = word.find(':');
    group.name = word.substr(0, colon);
    group.types = word.at(colon + 1);
    for (auto plus = word.find('+'); plus != word.npos;) {
      const auto next = word.find('+', plus + 1);
      group.more_types.push_back(word.substr(plus + 1, next - plus - 1));
      plus = next;
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

std::vector<std::string> names_of(const std::string& text) {
  std::vector<std::string> names;
  for (const auto& word : words_of(text)) names.push_back(word.substr(0, word.find_first_of(":=")));
  return names;
}

// "eps:f=1e-5"
std::vector<AttributeRule> attributes_of(const std::string& text) {
  std::vector<AttributeRule> rules;
  for (const auto& word : words_of(text)) {
    AttributeRule rule;
    const auto colon = word.find(':'), equals = word.find('=');
    rule.name = word.substr(0, colon);
    rule.kind = word.substr(colon + 1, equals - colon - 1);
    if (!rule.is_list()) rule.default_value = std::stod(word.substr(equals + 1));
    rules.push_back(std::move(rule));
  }
  return rules;
}

size_t position_of(const std::vector<OperandGroup>& groups, const std::string& name) {
  const auto found =
      std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.name == name; });
  return static_cast<size_t>(found - groups.begin());
}

void read_aliases(const std::string& text, Operator& op) {
  if (text == "all in place") {
    op.in_place_together = true;
    for (size_t out = 0; out < op.outputs.size(); ++out) {
      const auto& name = op.outputs[out].name;
      const auto base = name.ends_with("_out") ? name.substr(0, name.size() - 4) : "in";
      if (const size_t in = position_of(op.inputs, base); in < op.inputs.size())
        op.aliases.emplace_back(out, in);
    }
    return;
  }
  for (const auto& word : words_of(text)) {
    const auto equals = word.find('=');
    const size_t out = position_of(op.outputs, word.substr(0, equals));
    const size_t in = position_of(op.inputs, word.substr(equals + 1));
    if (out == op.outputs.size() || in == op.inputs.size())
      throw std::logic_error("ops.inc: " + op.name + ": " + text);
    op.aliases.emplace_back(out, in);
  }
}

Tolerance tolerance_of(const std::string& text) {
  if (text == "exact") return Tolerance::exact;
  if (text == "ulp") return Tolerance::ulp;
  if (text == "sum") return Tolerance::sum;
  return text == "gemm" ? Tolerance::gemm : Tolerance::random;
}

std::vector<Operator> read_catalogue() {
  std::vector<Operator> all;
  const auto add = [&](const char* name, uint32_t id, uint32_t version, const char* inputs,
                       const char* outputs, const char* attributes, const char* scalars,
                       const char* alias, const std::string& determinism, const char* tolerance,
                       const char* prose) {
    Operator op;
    op.name = name;
    op.id = id;
    op.version = version;
    op.inputs = groups_of(inputs);
    op.outputs = groups_of(outputs);
    op.attributes = attributes_of(attributes);
    op.scalars = names_of(scalars);
    op.deterministic = determinism != "no";
    op.tolerance = tolerance_of(tolerance);
    op.prose = prose;
    read_aliases(alias, op);
    all.push_back(std::move(op));
  };
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias,           \
                determinism, tolerance, flops, bytes, prose)                                     \
  add(#name, id, version, inputs, outputs, attributes, scalars, alias, #determinism, #tolerance, \
      prose);
#include "xhal/ops.inc"
#undef XHAL_OP
  return all;
}

}  // namespace

const std::vector<Operator>& catalogue() {
  static const auto all = read_catalogue();
  return all;
}

const Operator& operator_of(uint32_t id) {
  const auto& all = catalogue();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Operator& op) { return op.id == id; });
  if (found == all.end()) throw std::logic_error("no operator " + std::to_string(id));
  return *found;
}

}  // namespace xhal::cts
