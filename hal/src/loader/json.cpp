// SPDX-License-Identifier: Apache-2.0
// json.cpp: the only file of libxhal that compiles the JSON library, which takes long to compile.
#include "loader/json.hpp"

#include <nlohmann/json.hpp>

namespace xhal {
namespace {

constexpr size_t kMostLevels = 32;

// Builds the value without recursion: how deep a file nests is the file's choice.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Json result;

  bool null() override { return put({}); }
  bool boolean(bool value) override {
    Json json;
    json.kind = Json::Kind::boolean;
    json.boolean = value;
    return put(std::move(json));
  }
  bool number_integer(number_integer_t value) override { return put(Json(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= INT64_MAX) return put(Json(static_cast<int64_t>(value)));
    return put(number(static_cast<double>(value)));
  }
  bool number_float(number_float_t value, const string_t&) override { return put(number(value)); }
  bool string(string_t& value) override { return put(Json(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::Kind::object); }
  bool start_array(size_t) override { return open(Json::Kind::list); }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  static Json number(double value) {
    Json json;
    json.kind = Json::Kind::number;
    json.number = value;
    return json;
  }
  Json* place(Json value) {
    if (open_.empty()) return &(result = std::move(value));
    Json& parent = *open_.back();
    if (parent.is(Json::Kind::list)) return &parent.list.emplace_back(std::move(value));
    return &parent.members.emplace_back(std::move(key_), std::move(value)).second;
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  // A container does not grow while one of its parts is open, so the pointers hold.
  bool open(Json::Kind kind) {
    if (open_.size() == kMostLevels) return false;
    Json json;
    json.kind = kind;
    open_.push_back(place(std::move(json)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::vector<Json*> open_;
  std::string key_;
};

void append(std::string& out, const Json& json) {
  const auto quoted = [](const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  const char* separator = "";
  switch (json.kind) {
    case Json::Kind::null:
      out += "null";
      break;
    case Json::Kind::boolean:
      out += json.boolean ? "true" : "false";
      break;
    case Json::Kind::integer:
      out += std::to_string(json.integer);
      break;
    case Json::Kind::number:
      out += nlohmann::json(json.number).dump();
      break;
    case Json::Kind::text:
      out += quoted(json.text);
      break;
    case Json::Kind::list:
      out += '[';
      for (const auto& part : json.list) {
        out += std::exchange(separator, ",");
        append(out, part);
      }
      out += ']';
      break;
    case Json::Kind::object:
      out += '{';
      for (const auto& [key, value] : json.members) {
        out += std::exchange(separator, ",");
        out += quoted(key) + ":";
        append(out, value);
      }
      out += '}';
      break;
  }
}

}  // namespace

std::optional<Json> Json::parse(std::string_view text) {
  Builder builder;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return std::nullopt;
  return std::move(builder.result);
}

std::string Json::dump() const {
  std::string out;
  append(out, *this);
  return out;
}

const Json* Json::find(std::string_view key) const {
  for (auto it = members.rbegin(); it != members.rend(); ++it) {
    if (it->first == key) return &it->second;
  }
  return nullptr;
}

void Json::set(std::string_view key, Json value) {
  std::erase_if(members, [&](const auto& member) { return member.first == key; });
  members.emplace_back(key, std::move(value));
}

const char* Json::kind_name() const {
  static constexpr const char* kNames[] = {"null",   "true or false", "a whole number", "a number",
                                           "a text", "a list",        "an object"};
  return kNames[static_cast<size_t>(kind)];
}

}  // namespace xhal
