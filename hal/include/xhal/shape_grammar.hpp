// SPDX-License-Identifier: Apache-2.0
// xhal/shape_grammar.hpp: the grammar of the `shape` column, as ops.inc states it. Header only,
// C++20; catalogue.hpp checks the column with it while compiling, op_sizes.hpp reads it.
#ifndef XHAL_SHAPE_GRAMMAR_HPP
#define XHAL_SHAPE_GRAMMAR_HPP

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>

namespace xhal::catalogue {

// A line of ops.inc that breaks its grammar.
struct GrammarError : std::logic_error {
  using logic_error::logic_error;
};

namespace grammar {

// "along(S,@k)"
struct Function {
  std::string_view name, first, second;
};
// "4*h", "h" (factor 1), "7" (no name)
struct Multiple {
  int64_t factor = 1;
  std::string_view name;
};
// "ceil(n/@block)"
struct Quotient {
  std::string_view dividend, attribute;
};

constexpr bool is_capital(char c) { return c >= 'A' && c <= 'Z'; }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_run(std::string_view term) { return is_capital(term[0]); }

constexpr bool is_function(std::string_view sizes) {
  const std::string_view name = sizes.substr(0, sizes.find('('));
  return name.size() != sizes.size() && name != "ceil" && name.find(',') == name.npos;
}

constexpr Function function_in(std::string_view sizes) {
  const size_t open = sizes.find('(');
  if (sizes.back() != ')') throw GrammarError("a function of sizes lacks its ')'");
  Function f{sizes.substr(0, open), sizes.substr(open + 1, sizes.size() - open - 2), {}};
  const size_t comma = f.first.find(',');
  if (comma == f.first.npos) return f;
  f.second = f.first.substr(comma + 1);
  f.first = f.first.substr(0, comma);
  return f;
}

// The first term of a list, which is shortened by it and the comma behind it.
constexpr std::string_view next_term(std::string_view& list) {
  const size_t end = list.find(',') == list.npos ? list.size() : list.find(',');
  const std::string_view term = list.substr(0, end);
  if (term.empty()) throw GrammarError("a dimension has no name");
  list.remove_prefix(end == list.size() ? end : end + 1);
  return term;
}

constexpr size_t count_terms(std::string_view list) {
  size_t count = 0;
  for (; !list.empty(); ++count) next_term(list);
  return count;
}

constexpr bool has_run(std::string_view list) {
  while (!list.empty())
    if (is_run(next_term(list))) return true;
  return false;
}

constexpr std::optional<Quotient> quotient_in(std::string_view term) {
  if (!term.starts_with("ceil(")) return {};
  const size_t slash = term.find("/@");
  if (slash == term.npos || term.back() != ')')
    throw GrammarError("a quotient is not written ceil(n/@attribute)");
  return Quotient{term.substr(5, slash - 5), term.substr(slash + 2, term.size() - slash - 3)};
}

constexpr Multiple multiple_in(std::string_view term) {
  if (!is_digit(term[0])) return {1, term};
  Multiple result{0, {}};
  size_t at = 0;
  for (; at < term.size() && is_digit(term[at]); ++at)
    result.factor = result.factor * 10 + (term[at] - '0');
  if (at == term.size()) return result;
  if (term[at] != '*' || result.factor == 0) throw GrammarError("a multiple is not written 4*h");
  result.name = term.substr(at + 1);
  return result;
}

// The most small names, and the most capital ones, in the shapes of one operator.
constexpr size_t kMostNames = 8;

// Checks the SIZES of one operator. `HasAttribute`, `HasGroup`: bool(name).
template <class HasAttribute, class HasGroup>
class SizesCheck {
 public:
  constexpr SizesCheck(HasAttribute has_attribute, HasGroup has_group)
      : has_attribute_(has_attribute), has_group_(has_group) {}

  constexpr void operator()(std::string_view sizes) {
    if (sizes.empty()) throw GrammarError("a group has no sizes");
    if (sizes == "*" || sizes == "[]" || sizes == "one") return;
    if (is_function(sizes)) return function(sizes);
    size_t runs = 0;
    for (std::string_view rest = sizes; !rest.empty();) {
      const std::string_view word = next_term(rest);
      term(word);
      if (is_run(word) && ++runs > 1) throw GrammarError("sizes have two runs of dimensions");
    }
  }

 private:
  struct Names {
    std::string_view names[kMostNames];
    size_t count = 0;

    constexpr void add(std::string_view name) {
      for (size_t i = 0; i < count; ++i)
        if (names[i] == name) return;
      if (count == kMostNames) throw GrammarError("an operator's shapes have too many names");
      names[count++] = name;
    }
  };

  constexpr void name(std::string_view word, bool run) {
    if (word.empty()) throw GrammarError("a dimension has no name");
    for (const char c : word) {
      const bool letter = run ? is_capital(c) : c >= 'a' && c <= 'z';
      if (!letter) throw GrammarError("the name of a dimension has a wrong character");
    }
    (run ? runs_ : dimensions_).add(word);
  }
  constexpr void attribute(std::string_view word) const {
    if (!has_attribute_(word)) throw GrammarError("a shape names no attribute of its operator");
  }

  constexpr void term(std::string_view word) {
    if (word[0] == '@') return attribute(word.substr(1));
    if (word[0] == '#') return name(word.substr(1), true);
    if (const auto quotient = quotient_in(word)) {
      name(quotient->dividend, false);
      return attribute(quotient->attribute);
    }
    const Multiple multiple = multiple_in(word);
    if (!multiple.name.empty()) name(multiple.name, is_run(word));
  }

  constexpr void function(std::string_view sizes) {
    struct Known {
      std::string_view name;
      char second;  // what the second argument is: R a run, t a term, 0 nothing
    };
    constexpr Known kKnown[] = {{"reduced", 0},   {"loss", 0},       {"from", 0},   {"before", 0},
                                {"pooled", 0},    {"filters", 0},    {"joined", 0}, {"along", 't'},
                                {"indexed", 'R'}, {"convolved", 'R'}};
    const Function f = function_in(sizes);
    for (const Known& known : kKnown) {
      if (known.name != f.name) continue;
      if (f.second.empty() != (known.second == 0))
        throw GrammarError("a function of sizes has too many or too few arguments");
      if (f.name == "joined") {
        if (!has_group_(f.first)) throw GrammarError("joined() names a group that does not exist");
        return;
      }
      name(f.first, true);
      if (known.second == 'R') name(f.second, true);
      if (known.second == 't') term(f.second);
      return;
    }
    throw GrammarError("a shape has a function that does not exist");
  }

  HasAttribute has_attribute_;
  HasGroup has_group_;
  Names dimensions_, runs_;
};

}  // namespace grammar
}  // namespace xhal::catalogue

#endif
