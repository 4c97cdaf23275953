// SPDX-License-Identifier: Apache-2.0
#include "common/envelope.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>

#include "xhal/init.h"
#include "xhal_base/environment.hpp"

namespace xhal::tools {

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

std::string time_text() {
  // What is no number is somebody else's business.
  const auto fixed = base::environment_number<int64_t>("SOURCE_DATE_EPOCH", 0, INT64_MAX);
  const std::time_t now = fixed.value ? std::time_t{*fixed.value} : std::time(nullptr);
  std::tm utc{};
  char text[32];
  const size_t size = gmtime_r(&now, &utc) != nullptr
                          ? std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)
                          : 0;
  return std::string(text, size);
}

Json envelope(std::string_view command, Json data, const std::vector<std::string>& warnings,
              std::string_view error) {
  const uint32_t version = xhal_version();
  Json json;
  json["schema"] = fmt::format("xhal.{}/1", command);
  json["xhal"] = kPackageVersion;
  json["abi"] = fmt::format("{}.{}", version >> 16, version & 0xffff);
  json["host"] = host_name();
  json["time"] = time_text();
  json["data"] = std::move(data);
  json["warnings"] = warnings;
  if (!error.empty()) json["error"] = error;
  return json;
}

std::string json_text(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string json_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace xhal::tools
