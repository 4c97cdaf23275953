#include "loader/manifest.hpp"

#include <fmt/core.h>
#include <hwloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>

namespace xhal {
namespace {

namespace fs = std::filesystem;
constexpr std::streamsize kMaxManifestBytes = 64 * 1024;

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

Problem bad(const fs::path& path, const std::string& why) {
  return {XHAL_ERR_CORRUPT, fmt::format("manifest {}: {}", path.string(), why)};
}

// A whole number that fits; nlohmann's get<int>() also takes true, 1.5 and what overflows.
int integer(const nlohmann::json& value) {
  const auto number = value.is_number_integer() ? value.get<int64_t>() : INT64_MIN;
  if (number < INT32_MIN || number > INT32_MAX)
    throw nlohmann::json::type_error::create(302, "type must be a 32-bit integer", &value);
  return static_cast<int>(number);
}

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

}  // namespace

Problem check_trust(const fs::path& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return {XHAL_ERR_NOT_FOUND, fmt::format("{}: {}", path.string(), std::strerror(errno))};
  }
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    return {XHAL_ERR_INSECURE,
            fmt::format("{} belongs to user {}, neither to root nor to you; run: chown root {}",
                        path.string(), info.st_uid, path.string())};
  }
  const bool sticky = S_ISDIR(info.st_mode) && (info.st_mode & S_ISVTX) != 0;
  if ((info.st_mode & S_IWOTH) != 0 && !sticky) {
    return {XHAL_ERR_INSECURE, fmt::format("{} is writable by others; run: chmod o-w {}",
                                           path.string(), path.string())};
  }
  return {};
}

Problem read_manifest(const fs::path& path, Manifest& m) {
  if (auto p = check_trust(path); p.status != XHAL_OK) return p;
  // A pipe would be waited for.
  if (!fs::is_regular_file(path)) return bad(path, "is not a regular file");
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return {XHAL_ERR_IO,
            fmt::format("manifest {} cannot be read: {}", path.string(), std::strerror(errno))};
  std::string text(kMaxManifestBytes + 1, '\0');
  file.read(text.data(), kMaxManifestBytes + 1);
  if (file.gcount() > kMaxManifestBytes) return bad(path, "is larger than 64 KiB");
  text.resize(static_cast<size_t>(file.gcount()));

  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) return bad(path, "is not valid JSON (truncated?)");
  if (!json.is_object()) return bad(path, "is not a JSON object");
  try {
    m.name = json.at("name").get<std::string>();
    if (m.name.empty() || m.name.size() > 24 ||
        m.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") != std::string::npos) {
      return bad(path,
                 fmt::format("\"name\": \"{}\" must be 1 to 24 of a-z, 0-9, '_' and '-'", m.name));
    }
    if (const int format = integer(json.at("file_format_version")); format != 1) {
      return bad(path, fmt::format("has file_format_version {}, this library reads 1", format));
    }
    m.vendor = json.value("vendor", "");
    m.library = json.at("library_path").get<std::string>();
    if (m.library.is_relative()) m.library = path.parent_path() / m.library;
    m.arch = json.value("library_arch", "");
    const auto& abi = json.at("abi");
    if (!parse_version(abi.at("min").get<std::string>(), &m.abi_min) ||
        !parse_version(abi.at("max").get<std::string>(), &m.abi_max) || m.abi_min > m.abi_max) {
      return bad(
          path,
          "\"abi\" must be {\"min\": \"MAJOR.MINOR\", \"max\": \"MAJOR.MINOR\"} with min <= max");
    }
    m.match = json.value("match", std::vector<std::string>{"always"});
    m.provides = json.value("provides", std::vector<std::string>{});
    m.priority = json.contains("priority") ? integer(json["priority"]) : 0;
    const auto isolation = json.value("isolation", "inproc");
    if (isolation != "inproc" && isolation != "probe") {
      return bad(path, fmt::format("\"isolation\": \"{}\" is neither inproc nor probe", isolation));
    }
    m.probe = isolation == "probe";
  } catch (const nlohmann::json::exception& e) {
    return bad(path, fmt::format("lacks a field or has it with the wrong type: {}", e.what()));
  }
  return {};
}

bool matches_machine(const Manifest& manifest) {
  for (const auto& rule : manifest.match) {
    if (rule == "always") return true;
    if (rule.starts_with("path:") && fs::exists(rule.substr(5))) return true;
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
