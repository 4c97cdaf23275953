// SPDX-License-Identifier: Apache-2.0
// envelope.hpp: what every command prints with --json: one object, whatever happened.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace xhal::tools {

using Json = nlohmann::ordered_json;

// Of what is installed: "0.1.0". The ABI has a version of its own.
inline constexpr const char* kPackageVersion = XHAL_PACKAGE_VERSION;

// The exit status of every tool.
enum Exit { kFine = 0, kFinding = 1, kUsage = 2, kNoDevice = 3 };

// {"schema": "xhal.<command>/1", "xhal", "abi", "host", "time", "data", "warnings"}; with an
// `error`, data is null.
Json envelope(std::string_view command, Json data, const std::vector<std::string>& warnings,
              std::string_view error = {});

// The text that goes to standard output: indented, invalid UTF-8 replaced.
std::string json_text(const Json& json);
// The same on one line, for one of many.
std::string json_line(const Json& json);

std::string host_name();
// RFC 3339, in UTC. SOURCE_DATE_EPOCH, where it is set, is taken for the time.
std::string time_text();

}  // namespace xhal::tools
