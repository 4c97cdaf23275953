// SPDX-License-Identifier: Apache-2.0
// argument_check.hpp: which arguments of an exported function may be NULL, and the one check of it.
//
// No pointer may, except
//  - an array whose count or capacity, the next parameter, is 0,
//  - the `user` of a callback,
//  - what its header says may be (kMayBeNull).
// A string has no text only when it has no length. For functions that are slots the rule is read
// from the slot list while compiling; the others name their pointers to required().
#pragma once

#include <array>
#include <initializer_list>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/error.hpp"
#include "core/tables.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {

// The function and parameter of every exception among the slots.
inline constexpr std::pair<std::string_view, std::string_view> kMayBeNull[] = {
    {"xhal_activity_enable", "callback"}};  // NULL: stop

[[gnu::noinline, gnu::cold]] inline xhal_status refuse_null(const char* function,
                                                            std::string_view argument) noexcept {
  return fail(XHAL_ERR_INVALID_ARGUMENT, function, "{}: {} is NULL", function, argument);
}

// The bits of a field that no version of this library knows.
struct Unknown {
  uint64_t bits = 0;
  const char* field = "flags";
};

[[gnu::noinline, gnu::cold]] inline xhal_status refuse_unknown(const char* function,
                                                               Unknown unknown) noexcept {
  return fail(XHAL_ERR_UNKNOWN_FIELD, function,
              "{}: {} {:#x} is unknown to this library (xHAL {}.{})", function, unknown.field,
              unknown.bits, XHAL_VERSION_MAJOR, XHAL_VERSION_MINOR);
}
inline xhal_status refuse_flags(const char* function, uint32_t unknown) noexcept {
  return refuse_unknown(function, {unknown});
}

struct NamedPointer {
  std::string_view name;
  const void* pointer;
};

// XHAL_OK when every one of them is there.
inline xhal_status required(const char* function, std::initializer_list<NamedPointer> pointers) {
  for (const auto& p : pointers) {
    if (__builtin_expect(p.pointer == nullptr, 0)) return refuse_null(function, p.name);
  }
  return XHAL_OK;
}

inline bool is_missing(const xhal_string& text) { return text.data == nullptr && text.size > 0; }
inline bool is_missing(const void* array, uint64_t count) { return array == nullptr && count > 0; }

// The first field of a structure that is NULL although it has a length; nullptr: none.
inline const char* null_field(const xhal_init_info& info) {
  return is_missing(info.plugin_path) ? "info->plugin_path" : nullptr;
}
inline const char* null_field(const xhal_op_info& info) {
  if (is_missing(info.attributes, info.attribute_count)) return "info->attributes";
  if (is_missing(info.group_sizes, info.group_count)) return "info->group_sizes";
  if (is_missing(info.operands, info.operand_count)) return "info->operands";
  for (uint32_t i = 0; i < info.attribute_count; ++i) {
    const auto& a = info.attributes[i];
    const bool list = a.kind == XHAL_ATTR_INTS || a.kind == XHAL_ATTR_FLOATS;
    if (list && is_missing(a.value.ints, a.count)) return "a list in info->attributes";
  }
  return nullptr;
}
inline const char* null_field(const xhal_module_info& info) {
  if (is_missing(info.format)) return "info->format";
  if (is_missing(info.name)) return "info->name";
  if (is_missing(info.options)) return "info->options";
  return is_missing(info.bytes, info.size_bytes) ? "info->bytes" : nullptr;
}
inline const char* null_field(const xhal_kernel_arg& argument) {
  const bool by_pointer = argument.kind == XHAL_ARG_VALUE && argument.size_bytes > 8;
  return by_pointer && argument.value.pointer == nullptr ? "the value of one of args" : nullptr;
}
template <class T>
concept HasPointers = requires(const T& t) {
  null_field(t);
};

namespace nulls {

enum class Rule : uint8_t { none, pointer, array, string };

// "(stream, op, addresses)" -> the n-th name.
constexpr std::string_view nth_name(std::string_view list, size_t n) {
  if (list.empty()) return "?";  // nobody asks for the name
  list.remove_prefix(1);
  for (; n > 0; --n) list.remove_prefix(list.find(',') + 2);
  return list.substr(0, list.find_first_of(",)"));
}

template <class A>
constexpr Rule rule_of(std::string_view function, std::string_view names, size_t n, bool last) {
  const auto name = nth_name(names, n);
  for (const auto& [f, parameter] : kMayBeNull) {
    if (f == function && parameter == name) return Rule::none;
  }
  if constexpr (std::is_same_v<A, xhal_string>) return Rule::string;
  // Handles have a check of their own.
  if (!std::is_pointer_v<A> || kKindOf<std::remove_pointer_t<A>> != 0 || name == "user")
    return Rule::none;
  const auto next = last ? std::string_view() : nth_name(names, n + 1);
  return next.ends_with("count") || next.ends_with("capacity") ? Rule::array : Rule::pointer;
}

template <class... A>
constexpr std::array<Rule, sizeof...(A)> rules(xhal_status (*)(A...), std::string_view function,
                                               std::string_view names) {
  size_t n = 0;
  std::array<Rule, sizeof...(A)> result{};
  ((result[n] = rule_of<A>(function, names, n, n + 1 == sizeof...(A)), ++n), ...);
  return result;
}

template <class A>
using Pointee = std::remove_const_t<std::remove_pointer_t<std::remove_cvref_t<A>>>;

// The name of what is missing in argument I; empty when nothing is.
template <auto kRules, size_t I, class Arguments>
std::string_view missing(const Arguments& arguments, std::string_view names) {
  const auto& argument = std::get<I>(arguments);
  if constexpr (kRules[I] == Rule::string) {
    if (__builtin_expect(is_missing(argument), 0)) return nth_name(names, I);
  } else if constexpr (kRules[I] == Rule::pointer) {
    if (__builtin_expect(argument == nullptr, 0)) return nth_name(names, I);
    using T = Pointee<decltype(argument)>;
    if constexpr (HasPointers<T> && structs::Versioned<T>) {
      // A structure of a wrong size is refused later, for that.
      const char* field =
          structs::is_size<T>(argument->struct_size) ? null_field(*argument) : nullptr;
      if (__builtin_expect(field != nullptr, 0)) return field;
    }
  } else if constexpr (kRules[I] == Rule::array) {
    const uint64_t count = std::get<I + 1>(arguments);
    if (__builtin_expect(is_missing(argument, count), 0)) return nth_name(names, I);
    using T = Pointee<decltype(argument)>;
    if constexpr (HasPointers<T>) {
      for (uint64_t i = 0; i < count; ++i) {
        if (const char* field = null_field(argument[i]); field != nullptr) return field;
      }
    }
  }
  return {};
}

// Whether anything is missing in argument I, without its name: what every good call pays.
template <auto kRules, size_t I, class Arguments>
bool lacks(const Arguments& arguments) {
  const auto& argument = std::get<I>(arguments);
  using T = Pointee<decltype(argument)>;
  if constexpr (kRules[I] == Rule::string) {
    return is_missing(argument);
  } else if constexpr (kRules[I] == Rule::pointer) {
    if constexpr (HasPointers<T> && structs::Versioned<T>)
      return argument == nullptr || !missing<kRules, I>(arguments, {}).empty();
    return argument == nullptr;
  } else if constexpr (kRules[I] == Rule::array) {
    if constexpr (HasPointers<T>) return !missing<kRules, I>(arguments, {}).empty();
    return argument == nullptr && std::get<I + 1>(arguments) > 0;
  }
  return false;
}

}  // namespace nulls

template <auto kRules, class... A>
inline bool lacks_argument(const A&... arguments) {
  const auto all = std::tie(arguments...);
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return (nulls::lacks<kRules, I>(all) || ...);
  }
  (std::index_sequence_for<A...>{});
}

// The first argument that is NULL and may not be; empty when the call is good.
template <auto kRules, class... A>
std::string_view missing_argument(std::string_view names, const A&... arguments) {
  const auto all = std::tie(arguments...);
  return [&]<size_t... I>(std::index_sequence<I...>) {
    std::string_view found;
    (void)((found = nulls::missing<kRules, I>(all, names), !found.empty()) || ...);
    return found;
  }
  (std::index_sequence_for<A...>{});
}

}  // namespace xhal
