// SPDX-License-Identifier: Apache-2.0
// xhal/catalogue.hpp: ops.inc as constant tables: the one reader of the operator list, for plugins,
// layers and framework bridges. Header only, C++20. (The conformance suite reads the list by
// itself: a judge must not share the accused's glasses.)
//
//   const catalogue::Operator* op = catalogue::find(XHAL_OP_layer_norm);
//   op->attribute("eps")->f;           // 1e-5, the default
//   op->may_alias(sizes, output, input)
//
// The list is parsed while compiling, into read-only data; a mistake in its grammar is a compiler
// error that shows the sentence of the throw that found it. find() is an array access.
#ifndef XHAL_CATALOGUE_HPP
#define XHAL_CATALOGUE_HPP

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "xhal/catalog.h"
#include "xhal/catalogue_grammar.hpp"

namespace xhal::catalogue {

namespace detail {

inline constexpr grammar::Row kRows[] = {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
  {#name, id, version, inputs, outputs, attributes, scalars, shape, alias, #determinism, flops},
#include "xhal/ops.inc"
#undef XHAL_OP
};
inline constexpr size_t kOperatorCount = sizeof kRows / sizeof kRows[0];

consteval size_t total_words(std::string_view grammar::Row::*column) {
  size_t count = 0;
  for (const auto& row : kRows) count += grammar::count_words(row.*column);
  return count;
}

consteval auto read_groups() {
  std::array<Group, total_words(&grammar::Row::inputs) + total_words(&grammar::Row::outputs)> all{};
  size_t at = 0;
  for (const auto& row : kRows) {
    const size_t first = at;
    for (std::string_view rest = row.inputs; !rest.empty();)
      all[at++] = grammar::group_in(grammar::next_word(rest), false);
    for (std::string_view rest = row.outputs; !rest.empty();)
      all[at++] = grammar::group_in(grammar::next_word(rest), true);
    const auto groups = std::span(all).subspan(first, at - first);
    grammar::read_aliases(row.alias, groups);
    grammar::read_shapes(row, groups);
  }
  return all;
}
consteval auto read_attributes() {
  std::array<Attribute, total_words(&grammar::Row::attributes)> all{};
  size_t at = 0;
  for (const auto& row : kRows)
    for (std::string_view rest = row.attributes; !rest.empty();)
      all[at++] = grammar::attribute_in(grammar::next_word(rest));
  return all;
}
consteval auto read_scalars() {
  std::array<Scalar, total_words(&grammar::Row::scalars)> all{};
  size_t at = 0;
  for (const auto& row : kRows)
    for (std::string_view rest = row.scalars; !rest.empty();)
      all[at++] = grammar::scalar_in(grammar::next_word(rest));
  return all;
}

inline constexpr auto kGroups = read_groups();
inline constexpr auto kAttributes = read_attributes();
inline constexpr auto kScalars = read_scalars();

}  // namespace detail

struct Operator {
  std::string_view name;
  uint32_t id = 0, version = 0;
  Determinism determinism = Determinism::no;
  Cost flops;
  uint16_t first_group = 0, first_attribute = 0, first_scalar = 0;
  uint8_t input_count = 0, group_count = 0, attribute_count = 0, scalar_count = 0;

  constexpr std::span<const Group> groups() const {
    return std::span(detail::kGroups).subspan(first_group, group_count);
  }
  constexpr std::span<const Attribute> attributes() const {
    return std::span(detail::kAttributes).subspan(first_attribute, attribute_count);
  }
  constexpr std::span<const Scalar> scalars() const {
    return std::span(detail::kScalars).subspan(first_scalar, scalar_count);
  }
  // nullptr when there is none of that name. Its number is its place in attributes().
  constexpr const Attribute* attribute(std::string_view wanted) const {
    for (const Attribute& each : attributes())
      if (each.name == wanted) return &each;
    return nullptr;
  }

  // How many of a request's operands are inputs; they come first.
  constexpr uint32_t inputs_in(std::span<const uint32_t> group_sizes) const {
    uint32_t count = 0;
    for (size_t g = 0; g < input_count && g < group_sizes.size(); ++g) count += group_sizes[g];
    return count;
  }

  // Calls f(position) for each operand of a request that the output at position `output` may share
  // its address with. Absent groups have no operands, so they are never among them; in list groups
  // a tensor pairs with the one of the same place.
  template <class F>
  constexpr void for_each_alias(std::span<const uint32_t> group_sizes, uint32_t output,
                                F&& f) const {
    uint32_t first = 0;
    size_t g = 0;
    while (g < group_sizes.size() && output - first >= group_sizes[g]) first += group_sizes[g++];
    if (g >= group_sizes.size() || g >= group_count) return;
    const uint32_t place = output - first, allowed = groups()[g].aliases;
    first = 0;
    for (size_t in = 0; in < input_count; first += group_sizes[in++]) {
      if ((allowed >> in & 1u) != 0 && place < group_sizes[in]) f(first + place);
    }
  }
  constexpr bool may_alias(std::span<const uint32_t> group_sizes, uint32_t output,
                           uint32_t input) const {
    bool found = false;
    for_each_alias(group_sizes, output, [&](uint32_t position) { found |= position == input; });
    return found;
  }
};

namespace detail {

consteval auto read_operators() {
  std::array<Operator, kOperatorCount> all{};
  size_t group = 0, attribute = 0, scalar = 0;
  for (size_t i = 0; i < kOperatorCount; ++i) {
    const grammar::Row& row = kRows[i];
    Operator& op = all[i];
    op.name = grammar::name_in(row.name);
    op.id = row.id;
    op.version = row.version;
    op.determinism = grammar::determinism_in(row.determinism);
    op.flops = grammar::cost_in(row.flops);
    op.first_group = static_cast<uint16_t>(group);
    op.first_attribute = static_cast<uint16_t>(attribute);
    op.first_scalar = static_cast<uint16_t>(scalar);
    op.input_count = static_cast<uint8_t>(grammar::count_words(row.inputs));
    op.group_count = static_cast<uint8_t>(op.input_count + grammar::count_words(row.outputs));
    op.attribute_count = static_cast<uint8_t>(grammar::count_words(row.attributes));
    op.scalar_count = static_cast<uint8_t>(grammar::count_words(row.scalars));
    if (op.group_count > kMaxGroups) throw GrammarError("an operator has too many groups");
    if (op.scalar_count > kMaxScalars) throw GrammarError("an operator has too many scalars");
    group += op.group_count;
    attribute += op.attribute_count;
    scalar += op.scalar_count;
    for (size_t k = 0; k < i; ++k)
      if (all[k].id == op.id) throw GrammarError("two operators have the same id");
  }
  return all;
}
inline constexpr auto kOperators = read_operators();

consteval uint32_t id_limit() {
  uint32_t limit = 0;
  for (const Operator& op : kOperators) limit = op.id >= limit ? op.id + 1 : limit;
  return limit;
}
consteval auto read_index() {
  std::array<uint16_t, id_limit()> index{};  // 1 + the operator's place; 0 = none
  for (size_t i = 0; i < kOperatorCount; ++i)
    index[kOperators[i].id] = static_cast<uint16_t>(i + 1);
  return index;
}
inline constexpr auto kIndex = read_index();

}  // namespace detail

inline constexpr uint32_t kIdLimit = detail::id_limit();  // every id is below

constexpr std::span<const Operator> operators() { return detail::kOperators; }

// nullptr when the catalogue has no such operator (a vendor's own, perhaps).
constexpr const Operator* find(uint32_t id) {
  if (id >= kIdLimit || detail::kIndex[id] == 0) return nullptr;
  return &detail::kOperators[detail::kIndex[id] - 1u];
}

// Its name, or "operator" for one that is not in the catalogue. The text ends with 0.
constexpr std::string_view name_of(uint32_t id) {
  const Operator* op = find(id);
  return op == nullptr ? std::string_view("operator") : op->name;
}

}  // namespace xhal::catalogue

#endif
