// SPDX-License-Identifier: Apache-2.0
// xhal/catalogue_grammar.hpp: what a column of ops.inc says, and the parsers that read it while
// catalogue.hpp is compiled. Header only, C++20; include catalogue.hpp.
#ifndef XHAL_CATALOGUE_GRAMMAR_HPP
#define XHAL_CATALOGUE_GRAMMAR_HPP

#include <cstdint>
#include <span>
#include <string_view>

#include "xhal/dtype.hpp"
#include "xhal/op.h"
#include "xhal/shape_grammar.hpp"

namespace xhal::catalogue {

enum class Arity : uint8_t { one, optional, any };
enum class Determinism : uint8_t { no, yes, seed };

inline constexpr size_t kMaxGroups = 16, kMaxScalars = 8;  // of an operator

using TypeMask = uint32_t;  // bit i for DType i
constexpr TypeMask bit(DType t) { return 1u << static_cast<unsigned>(t); }

// A group of operands. Groups are numbered inputs first, then outputs.
struct Group {
  std::string_view name;
  std::string_view sizes;  // SIZES of the shape column; "S" for all groups of a "broadcast"
  TypeMask types = 0;
  uint16_t aliases = 0;  // of an output: bit i for input group i that it may share an address with
  Arity arity = Arity::one;
  bool output = false;

  constexpr bool takes(DType t) const { return t != DType::other && (types & bit(t)) != 0; }
};

struct Attribute {
  std::string_view name;
  uint32_t kind = 0;  // XHAL_ATTR_*
  // The default; lists are empty by default.
  int64_t i = 0;
  double f = 0;
};

struct Scalar {
  std::string_view name;
  // The default: `i` counts when it is written as an integer.
  bool is_int = true;
  int64_t i = 0;
  double f = 0;
};

// factor * in^ins * out^outs * k^ks
struct Cost {
  double factor = 1;
  uint8_t ins = 0, outs = 0, ks = 0;

  constexpr double of(double in, double out, double k) const {
    double product = factor;
    for (int n = 0; n < ins; ++n) product *= in;
    for (int n = 0; n < outs; ++n) product *= out;
    for (int n = 0; n < ks; ++n) product *= k;
    return product;
  }
};

namespace grammar {

struct Row {
  std::string_view name;
  uint32_t id, version;
  std::string_view inputs, outputs, attributes, scalars, shape, alias, determinism, flops;
};

// The first word of `text`, which is shortened by it and the space behind it.
constexpr std::string_view next_word(std::string_view& text) {
  const size_t end = text.find(' ') == text.npos ? text.size() : text.find(' ');
  const std::string_view word = text.substr(0, end);
  if (word.empty() && !text.empty()) throw GrammarError("words are parted by one space");
  if (end + 1 == text.size()) throw GrammarError("a space at the end");
  text.remove_prefix(end == text.size() ? end : end + 1);
  return word;
}

constexpr size_t count_words(std::string_view text) {
  size_t count = 0;
  while (!text.empty()) {
    next_word(text);
    ++count;
  }
  return count;
}

constexpr std::string_view before(std::string_view word, char at) {
  return word.substr(0, word.find(at));
}
constexpr std::string_view after(std::string_view word, char at) {
  const size_t pos = word.find(at);
  if (pos == word.npos) throw GrammarError("a word lacks its ':' or '='");
  return word.substr(pos + 1);
}

constexpr std::string_view name_in(std::string_view word) {
  if (word.empty()) throw GrammarError("a name is empty");
  for (const char c : word) {
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'))
      throw GrammarError("a name has a character beside a-z, 0-9 and _");
  }
  return word;
}

// "0.999", "1e-5", "-100": at most 15 digits and a small exponent, which a division by a power of
// ten rounds as the compiler would.
constexpr double number_in(std::string_view text) {
  size_t at = 0;
  const bool negative = !text.empty() && text[0] == '-';
  if (negative) ++at;
  int64_t digits = 0;
  int count = 0, exponent = 0;
  bool point = false;
  for (; at < text.size() && text[at] != 'e'; ++at) {
    if (text[at] == '.' && !point) {
      point = true;
      continue;
    }
    if (text[at] < '0' || text[at] > '9') throw GrammarError("a number has a wrong character");
    digits = digits * 10 + (text[at] - '0');
    ++count;
    if (point) --exponent;
  }
  if (count == 0 || count > 15) throw GrammarError("a number has no digits, or more than 15");
  if (at < text.size()) {
    const double power = number_in(text.substr(at + 1));
    exponent += static_cast<int>(power);
    if (static_cast<double>(static_cast<int>(power)) != power)
      throw GrammarError("an exponent is no integer");
  }
  if (exponent < -22 || exponent > 22) throw GrammarError("an exponent is beyond 22");
  double ten = 1;
  for (int n = exponent < 0 ? -exponent : exponent; n > 0; --n) ten *= 10;
  const auto value = static_cast<double>(digits);
  const double scaled = exponent < 0 ? value / ten : value * ten;
  return negative ? -scaled : scaled;
}

constexpr bool is_integer(std::string_view text) { return text.find_first_of(".e") == text.npos; }

constexpr TypeMask types_of(char letter) {
  constexpr TypeMask kFloats = bit(DType::f32) | bit(DType::bf16) | bit(DType::f16);
  constexpr TypeMask kNumbers = kFloats | bit(DType::i8) | bit(DType::u8) | bit(DType::i16) |
                                bit(DType::i32) | bit(DType::i64);
  switch (letter) {
    case 'F':
      return kFloats;
    case 'N':
      return kNumbers;
    case 'A':
      return kNumbers | bit(DType::boolean);
    case 'X':
      return bit(DType::i32) | bit(DType::i64);
    case 'L':
      return bit(DType::i64);
    case 'B':
      return bit(DType::boolean);
    case 'S':
      return bit(DType::f32);
  }
  throw GrammarError("the types of a group are none of F N A X L B S");
}

// "A", "i8", "N+f64", "A+f64+u32"
constexpr TypeMask types_in(std::string_view text) {
  TypeMask mask = 0;
  for (bool first = true; first || !text.empty(); first = false) {
    if (!first) text.remove_prefix(1);  // the +
    const std::string_view name = before(text, '+');
    size_t i = 0;
    while (i < kDTypeCount && kDTypes[i].name != name) ++i;
    if (i < kDTypeCount) {
      mask |= bit(static_cast<DType>(i));
    } else {
      if (!first || name.size() != 1)
        throw GrammarError("the types of a group are a letter or a dtype, then +dtype");
      mask |= types_of(name[0]);
    }
    text.remove_prefix(name.size());
  }
  return mask;
}

// "weight:F?"
constexpr Group group_in(std::string_view word, bool output) {
  Group group;
  group.output = output;
  if (word.ends_with('?')) group.arity = Arity::optional;
  if (word.ends_with('*')) group.arity = Arity::any;
  if (group.arity != Arity::one) word.remove_suffix(1);
  group.name = name_in(before(word, ':'));
  group.types = types_in(after(word, ':'));
  return group;
}

// "eps:f=1e-5"
constexpr Attribute attribute_in(std::string_view word) {
  Attribute attribute;
  attribute.name = name_in(before(word, ':'));
  const std::string_view rest = after(word, ':');
  const std::string_view kind = before(rest, '='), value = after(rest, '=');
  attribute.kind = kind == "i"    ? XHAL_ATTR_INT
                   : kind == "f"  ? XHAL_ATTR_FLOAT
                   : kind == "ii" ? XHAL_ATTR_INTS
                   : kind == "ff" ? XHAL_ATTR_FLOATS
                                  : 0;
  if (attribute.kind == 0) throw GrammarError("the kind of an attribute is none of i f ii ff");
  if (attribute.kind == XHAL_ATTR_INTS || attribute.kind == XHAL_ATTR_FLOATS) {
    if (!value.empty()) throw GrammarError("the default of a list is the empty list");
    return attribute;
  }
  if (attribute.kind == XHAL_ATTR_INT && !is_integer(value))
    throw GrammarError("the default of an integer is no integer");
  attribute.f = number_in(value);
  attribute.i = static_cast<int64_t>(attribute.f);
  return attribute;
}

// "beta1=0.9"
constexpr Scalar scalar_in(std::string_view word) {
  Scalar scalar;
  scalar.name = name_in(before(word, '='));
  const std::string_view value = after(word, '=');
  scalar.is_int = is_integer(value);
  scalar.f = number_in(value);
  scalar.i = static_cast<int64_t>(scalar.f);
  return scalar;
}

// "2*out*k"
constexpr Cost cost_in(std::string_view text) {
  if (text.empty()) throw GrammarError("a cost is empty");
  Cost cost;
  while (true) {
    const std::string_view factor = before(text, '*');
    if (factor == "in") {
      ++cost.ins;
    } else if (factor == "out") {
      ++cost.outs;
    } else if (factor == "k") {
      ++cost.ks;
    } else {
      cost.factor *= number_in(factor);
    }
    if (factor.size() == text.size()) return cost;
    text.remove_prefix(factor.size() + 1);
  }
}

constexpr Determinism determinism_in(std::string_view text) {
  if (text == "yes") return Determinism::yes;
  if (text == "seed") return Determinism::seed;
  if (text == "no") return Determinism::no;
  throw GrammarError("determinism is none of yes, no, seed");
}

constexpr uint16_t input_bit(std::span<const Group> groups, std::string_view name) {
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!groups[i].output && groups[i].name == name) return static_cast<uint16_t>(1u << i);
  }
  throw GrammarError("an alias rule names an input that does not exist");
}

// "out=a out=b", or "all in place": x_out lies on x, and out on in.
constexpr void read_aliases(std::string_view text, std::span<Group> groups) {
  if (text == "all in place") {
    for (Group& group : groups) {
      if (!group.output) continue;
      const bool plain = group.name == "out";
      if (!plain && !group.name.ends_with("_out"))
        throw GrammarError("\"all in place\" needs outputs named out or x_out");
      group.aliases = input_bit(
          groups, plain ? std::string_view("in") : group.name.substr(0, group.name.size() - 4));
    }
    return;
  }
  while (!text.empty()) {
    const std::string_view rule = next_word(text), out = before(rule, '=');
    bool found = false;
    for (Group& group : groups) {
      if (!group.output || group.name != out) continue;
      group.aliases |= input_bit(groups, after(rule, '='));
      found = true;
    }
    if (!found) throw GrammarError("an alias rule names an output that does not exist");
  }
}

// "in=S out=reduced(S)", a word for every group in their order, or "broadcast"
constexpr void read_shapes(const Row& row, std::span<Group> groups) {
  const auto has_attribute = [&](std::string_view name) {
    for (std::string_view rest = row.attributes; !rest.empty();)
      if (before(next_word(rest), ':') == name) return true;
    return false;
  };
  const auto has_group = [&](std::string_view name) {
    for (const Group& group : groups)
      if (group.name == name) return true;
    return false;
  };
  SizesCheck check(has_attribute, has_group);
  std::string_view text = row.shape;
  for (Group& group : groups) {
    if (row.shape == "broadcast") {
      group.sizes = "S";
      continue;
    }
    const std::string_view word = next_word(text);
    if (before(word, '=') != group.name)
      throw GrammarError("a shape has not one word for every group, in their order");
    group.sizes = after(word, '=');
    check(group.sizes);
  }
  if (row.shape != "broadcast" && !text.empty())
    throw GrammarError("a shape has more words than there are groups");
}

}  // namespace grammar

}  // namespace xhal::catalogue

#endif
