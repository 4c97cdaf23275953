// SPDX-License-Identifier: Apache-2.0
#include "loader/manifest.hpp"

#include <fmt/core.h>
#include <hwloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <numeric>
#include <span>

#include "loader/json.hpp"
#include "loader/trust.hpp"

namespace xhal {
namespace {

namespace fs = std::filesystem;
using Kind = Json::Kind;
constexpr size_t kMaxManifestBytes = 64 * 1024;

constexpr std::string_view kFields[] = {
    "file_format_version", "name",  "vendor",   "library_path", "abi",
    "library_arch",        "match", "priority", "isolation"};
constexpr std::string_view kAbiFields[] = {"min", "max"};

// "0.1" -> 0x00000001
bool parse_version(const std::string& text, uint32_t* version) {
  const char* end = text.data() + text.size();
  uint32_t major = 0, minor = 0;
  const auto dot = std::from_chars(text.data(), end, major);
  if (dot.ec != std::errc() || dot.ptr == end || *dot.ptr != '.') return false;
  const auto last = std::from_chars(dot.ptr + 1, end, minor);
  if (last.ec != std::errc() || last.ptr != end || major > 0xffff || minor > 0xffff) return false;
  *version = major << 16 | minor;
  return true;
}

// Insertions, deletions and replacements that turn one word into the other.
size_t edits_between(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

// Names each key of `object` that nobody reads, and the one that was probably meant.
void warn_of_unknown(const Json& object, std::span<const std::string_view> known,
                     std::vector<std::string>& warnings) {
  for (const auto& [key, value] : object.members) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string_view nearest;
    size_t fewest = 3;  // more than two edits are another word
    for (const auto field : known) {
      const size_t edits = key.size() > 32 ? fewest : edits_between(key, field);
      if (edits < std::min(fewest, field.size())) {
        fewest = edits;
        nearest = field;
      }
    }
    warnings.push_back(fmt::format(
        "unknown key \"{}\" is ignored{}", key.substr(0, 32),
        nearest.empty() ? std::string() : fmt::format("; did you mean \"{}\"?", nearest)));
  }
}

// Takes the fields out of a manifest. The first that is missing or wrong becomes the problem; those
// after it are not looked at.
class Fields {
 public:
  explicit Fields(const Json& json, const char* prefix = "") : json_(json), prefix_(prefix) {}

  // The field, if it is there and of this kind.
  const Json* get(const char* name, Kind kind, const char* wanted, bool required) {
    if (!problem.empty()) return nullptr;
    const Json* value = json_.find(name);
    if (value == nullptr) {
      if (required) problem = fmt::format("lacks the field \"{}{}\" ({})", prefix_, name, wanted);
    } else if (!value->is(kind)) {
      problem = fmt::format("has \"{}{}\" with the wrong type: it must be {}, and is {}", prefix_,
                            name, wanted, value->kind_name());
      value = nullptr;
    }
    return value;
  }
  void text(const char* name, bool required, std::string* out) {
    if (const Json* value = get(name, Kind::text, "a text", required)) *out = value->text;
  }
  void integer(const char* name, bool required, int32_t* out) {
    const Json* value = get(name, Kind::integer, "a whole number", required);
    if (value == nullptr) return;
    if (value->integer < INT32_MIN || value->integer > INT32_MAX) {
      problem =
          fmt::format("has \"{}\": {}, which does not fit into 32 bits", name, value->integer);
      return;
    }
    *out = static_cast<int32_t>(value->integer);
  }
  void texts(const char* name, std::vector<std::string>* out) {
    const Json* value = get(name, Kind::list, "a list of texts", false);
    if (value == nullptr) return;
    out->clear();
    for (const auto& entry : value->list) {
      if (!entry.is(Kind::text)) {
        problem = fmt::format(
            "has \"{}\" with the wrong type: each entry must be a text, and one "
            "is {}",
            name, entry.kind_name());
        return;
      }
      out->push_back(entry.text);
    }
  }
  void refuse_if(bool wrong, const std::string& why) {
    if (problem.empty() && wrong) problem = why;
  }

  std::string problem;

 private:
  const Json& json_;
  std::string prefix_;
};

bool matches_pci(const std::string& vendor, const std::string& device) {
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return false;
  bool found = false;
  hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(topology) == 0) {
    const auto equal = [](const std::string& pattern, uint16_t id) {
      return pattern == "*" || pattern == fmt::format("{:04x}", id);
    };
    for (hwloc_obj_t o = nullptr; (o = hwloc_get_next_pcidev(topology, o)) != nullptr && !found;) {
      found = equal(vendor, o->attr->pcidev.vendor_id) && equal(device, o->attr->pcidev.device_id);
    }
  }
  hwloc_topology_destroy(topology);
  return found;
}

bool is_known_rule(const std::string& rule) {
  return rule == "always" || rule.starts_with("path:") ||
         (rule.starts_with("pci:") && rule.find(':', 4) != std::string::npos);
}

std::string take_fields(const Json& json, const fs::path& folder, Manifest& m) {
  Fields fields(json);
  fields.text("name", true, &m.name);
  fields.refuse_if(
      m.name.empty() || m.name.size() > 24 ||
          m.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") != std::string::npos,
      fmt::format("has \"name\": \"{}\", which must be 1 to 24 of a-z, 0-9, '_' and '-'", m.name));
  int32_t format = 1;
  fields.integer("file_format_version", true, &format);
  fields.refuse_if(format != 1,
                   fmt::format("has file_format_version {}, this library reads 1", format));
  fields.text("vendor", false, &m.vendor);
  std::string library;
  fields.text("library_path", true, &library);
  m.library = library;
  if (m.library.is_relative()) m.library = folder / m.library;
  fields.text("library_arch", false, &m.arch);
  if (const Json* abi = fields.get("abi", Kind::object, "an object with min and max", true)) {
    std::string min, max;
    Fields range(*abi, "abi.");
    range.text("min", true, &min);
    range.text("max", true, &max);
    range.refuse_if(
        !parse_version(min, &m.abi_min) || !parse_version(max, &m.abi_max) || m.abi_min > m.abi_max,
        fmt::format("has \"abi\" from \"{}\" to \"{}\"; it must be {{\"min\": \"MAJOR.MINOR\", "
                    "\"max\": \"MAJOR.MINOR\"}} with min <= max",
                    min, max));
    fields.refuse_if(!range.problem.empty(), range.problem);
    warn_of_unknown(*abi, kAbiFields, m.warnings);
  }
  fields.texts("match", &m.match);
  fields.integer("priority", false, &m.priority);
  std::string isolation = "inproc";
  fields.text("isolation", false, &isolation);
  fields.refuse_if(
      isolation != "inproc" && isolation != "probe",
      fmt::format("has \"isolation\": \"{}\"; there are \"inproc\" and \"probe\"", isolation));
  m.probe = isolation == "probe";
  for (const auto& rule : m.match) {
    if (!is_known_rule(rule)) {
      m.warnings.push_back(
          fmt::format("\"match\" rule \"{}\" never holds; there are \"always\", "
                      "\"path:/...\" and \"pci:VVVV:DDDD\"",
                      rule.substr(0, 64)));
    }
  }
  warn_of_unknown(json, kFields, m.warnings);
  return fields.problem;
}

}  // namespace

Problem read_manifest(const fs::path& path, Manifest& m) {
  TrustedFile file;
  if (auto problem = open_trusted(path, &file)) return problem;
  const auto bad = [&](const std::string& why) -> Problem {
    return {XHAL_ERR_CORRUPT, fmt::format("manifest {} {}", path.string(), why)};
  };
  std::string text;
  if (!file.read(kMaxManifestBytes, &text)) {
    if (text.size() > kMaxManifestBytes) return bad("is larger than 64 KiB");
    return {XHAL_ERR_IO,
            fmt::format("manifest {} cannot be read: {}", path.string(), std::strerror(errno))};
  }
  const auto json = Json::parse(text);
  if (!json) return bad("is not valid JSON (truncated?)");
  if (!json->is(Kind::object)) return bad("is not a JSON object");
  if (const auto why = take_fields(*json, path.parent_path(), m); !why.empty()) return bad(why);
  return {};
}

bool matches_machine(const Manifest& manifest) {
  for (const auto& rule : manifest.match) {
    if (rule == "always") return true;
    if (rule.starts_with("path:") && access(rule.c_str() + 5, F_OK) == 0) return true;
    if (rule.starts_with("pci:")) {
      const auto colon = rule.find(':', 4);
      if (colon != std::string::npos &&
          matches_pci(rule.substr(4, colon - 4), rule.substr(colon + 1)))
        return true;
    }
  }
  return false;
}

}  // namespace xhal
