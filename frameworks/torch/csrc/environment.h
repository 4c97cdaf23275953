// SPDX-License-Identifier: Apache-2.0
// environment.hpp: the one reader of environment variables, for every library and tool of this
// tree. Header only; needs nothing but the C library. Not part of the ABI and not installed: the
// PyTorch device, which is built alone, has a copy of this file, kept equal by a test.
#pragma once

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace xhal::base {

// The variable's value, which may be empty; nothing when it is unset, or when the process has more
// rights than its user (setuid, file capabilities): what a user wrote must not steer it then.
inline std::optional<std::string> environment(const char* name) {
  const char* value = secure_getenv(name);
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

// For the variables that mean the same empty and unset.
inline std::string environment_text(const char* name) { return environment(name).value_or(""); }

// What a variable that is a number, a switch or a choice says. Unset or empty: neither a value nor
// a problem. `problem` is a whole sentence that names the variable, its value and what there is;
// who reads decides whether that is an error or a warning.
template <class T>
struct Setting {
  std::optional<T> value;
  std::string problem;
};

inline std::string no_such_value(const char* name, std::string_view value,
                                 std::string_view what_there_is) {
  return std::string(name) + ": there is no value \"" + std::string(value) + "\"; " +
         std::string(what_there_is);
}

// The position of the variable's value in `choices`.
inline Setting<size_t> environment_choice(const char* name,
                                          std::initializer_list<std::string_view> choices) {
  const std::string text = environment_text(name);
  if (text.empty()) return {};
  std::string list;
  size_t position = 0;
  for (const auto choice : choices) {
    if (choice == text) return {position, {}};
    if (position > 0) list += position + 1 == choices.size() ? " and " : ", ";
    list += choice;
    ++position;
  }
  return {std::nullopt, no_such_value(name, text, "there are " + list)};
}

// 0 or 1.
inline Setting<bool> environment_switch(const char* name) {
  const auto choice = environment_choice(name, {"0", "1"});
  if (!choice.value) return {std::nullopt, choice.problem};
  return {*choice.value == 1, {}};
}

// A number of `least` to `most`, whole or not as T is.
template <class T>
Setting<T> environment_number(const char* name, T least, T most) {
  const std::string text = environment_text(name);
  if (text.empty()) return {};
  T number{};
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  // Written so that what is no number at all (NaN) is refused too.
  if (parsed.ec == std::errc() && parsed.ptr == end && number >= least && number <= most)
    return {number, {}};
  const auto plain = [](T value) {
    char digits[64];
    const auto written = std::to_chars(digits, digits + sizeof digits, value);
    return std::string(digits, written.ptr);
  };
  return {std::nullopt,
          no_such_value(name, text,
                        "there are the numbers from " + plain(least) + " to " + plain(most))};
}

}  // namespace xhal::base
