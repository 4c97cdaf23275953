// SPDX-License-Identifier: Apache-2.0
// json.hpp: the JSON that libxhal reads and writes: manifests, the probe's answer and its cache.
// The library that parses it stays in json.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace xhal {

struct Json {
  enum class Kind { null, boolean, integer, number, text, list, object };

  Json() = default;
  Json(std::string value) : kind(Kind::text), text(std::move(value)) {}
  Json(const char* value) : kind(Kind::text), text(value) {}
  Json(int64_t value) : kind(Kind::integer), integer(value) {}
  static Json make_object() {
    Json json;
    json.kind = Kind::object;
    return json;
  }

  // Nothing when it is not JSON, or nested deeper than anything we read.
  static std::optional<Json> parse(std::string_view text);
  // On one line. What is no UTF-8 is replaced.
  std::string dump() const;

  // Of an object; nullptr when it has no such member or is no object. Of two, the last.
  const Json* find(std::string_view key) const;
  // Replaces or adds a member.
  void set(std::string_view key, Json value);
  bool is(Kind wanted) const { return kind == wanted; }
  // "a text", "a list": for the errors of those who read.
  const char* kind_name() const;

  Kind kind = Kind::null;
  bool boolean = false;
  int64_t integer = 0;  // what is whole but does not fit is a number
  double number = 0;
  std::string text;
  std::vector<Json> list;
  std::vector<std::pair<std::string, Json>> members;
};

}  // namespace xhal
