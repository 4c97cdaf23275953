#include "loader/loader.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <mutex>
#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

#include "loader/elf_symbols.hpp"
#include "core/environment.hpp"
#include "core/error.hpp"
#include "device/host_services.hpp"
#include "core/log.hpp"
#include "loader/probe.hpp"
#include "xhal/plugin.hpp"

namespace xhal {
namespace {

namespace fs = std::filesystem;
constexpr const char* kEntry = "xhal_plugin_negotiate";

std::string arch_name(uint16_t machine) {
  switch (machine) {
    case EM_X86_64:
      return "x86_64";
    case EM_AARCH64:
      return "aarch64";
    case EM_RISCV:
      return "riscv";
    case EM_LOONGARCH:
      return "loongarch64";
    default:
      return fmt::format("machine {}", machine);
  }
}

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#elif defined(__riscv)
constexpr uint16_t kMachine = EM_RISCV;
#else
constexpr uint16_t kMachine = EM_LOONGARCH;
#endif

void skip(PluginRecord& plugin, Problem problem) {
  plugin.state = XHAL_PLUGIN_SKIPPED;
  plugin.status = problem.status;
  plugin.text = std::move(problem.text);
  log(problem.status == XHAL_ERR_UNSUPPORTED ? XHAL_LOG_INFO : XHAL_LOG_WARN,
      "plugin {} skipped: {}", plugin.name.empty() ? plugin.manifest_path : plugin.name,
      plugin.text);
}

bool excluded(const std::string& name) {
  const auto any_matches = [&](const char* variable, bool otherwise) {
    const auto globs = split(environment(variable), ',');
    if (globs.empty()) return otherwise;
    return std::any_of(globs.begin(), globs.end(),
                       [&](const auto& g) { return glob_match(g, name); });
  };
  return !any_matches("XHAL_PLUGIN_SELECT", true) || any_matches("XHAL_PLUGIN_DISABLE", false);
}

// Plugins are never unloaded: their code may be on some stack, and their statics own threads.
std::vector<boost::dll::shared_library>& mapped_libraries() {
  static auto* libraries = new std::vector<boost::dll::shared_library>;
  return *libraries;
}

Problem negotiate(PluginRecord& p, xhal_plugin_negotiate_fn entry) {
  xhal_negotiate_request request{};
  request.struct_size = sizeof request;
  request.abi_min = plugin::kOldest;
  request.abi_max = plugin::kNewest;
  request.sanitizer = plugin::sanitizer();
  request.host = host_services();
  request.library_build = plugin::str(xhal_build_id());
  xhal_negotiate_reply reply{};
  reply.struct_size = sizeof reply;
  const xhal_status status = entry(&request, &reply);
  reply.build[sizeof reply.build - 1] = 0;
  p.build = reply.build;
  p.abi_min = reply.abi_min;
  p.abi_max = reply.abi_max;
  p.abi_used =
      plugin::common_version(reply.abi_min, reply.abi_max, request.abi_min, request.abi_max);
  if (status == XHAL_ERR_VERSION || p.abi_used == 0) {
    return {
        XHAL_ERR_VERSION,
        fmt::format("it speaks ABI {}-{}, this library {}-{} (plugin build {}, library build {}).\n"
                    "  Install a plugin built for ABI {}.x, or another xHAL. `xhal plugins doctor` "
                    "lists all "
                    "plugins and their ranges.",
                    version_text(reply.abi_min), version_text(reply.abi_max),
                    version_text(request.abi_min), version_text(request.abi_max), p.build,
                    xhal_build_id(), XHAL_VERSION_MAJOR)};
  }
  if (status != XHAL_OK) {
    return {as_error(status), fmt::format("it refused to start: {}", xhal_status_text(status))};
  }
  if (reply.table == nullptr || reply.table->struct_size < offsetof(xhal_plugin_table, shutdown) ||
      reply.table->slots == nullptr || reply.table->enumerate == nullptr ||
      reply.table->device_open == nullptr) {
    return {XHAL_ERR_PLUGIN,
            "it negotiated, but gave an incomplete table (enumerate, device_open, slots)"};
  }
  std::memcpy(&p.table, reply.table, std::min<size_t>(sizeof p.table, reply.table->struct_size));
  return {};
}

Problem enumerate(PluginRecord& p) {
  uint32_t count = 0;
  xhal_status status = p.table.enumerate(nullptr, 0, &count);
  if (status == XHAL_OK && count > 4096)
    return {XHAL_ERR_PLUGIN, fmt::format("it claims {} devices", count)};
  if (status == XHAL_OK && count > 0) {
    p.devices.resize(count);
    status = p.table.enumerate(p.devices.data(), count, &count);
    if (status == XHAL_OK) p.devices.resize(std::min<size_t>(count, p.devices.size()));
  }
  if (status != XHAL_OK) {
    p.devices.clear();
    const auto& e = last_error();
    return {as_error(status), fmt::format("it could not list its devices: {}",
                                          e.status == status ? e.text : xhal_status_text(status))};
  }
  for (uint32_t i = 0; i < p.devices.size(); ++i) {
    auto& d = p.devices[i];
    d.ordinal = i;
    d.generation = p.generations[i];
    d.priority = p.manifest.priority;
    end_texts(d);
    std::snprintf(d.id, sizeof d.id, "%s:%u", p.name.c_str(), i);
    std::snprintf(d.plugin, sizeof d.plugin, "%s", p.name.c_str());
  }
  return {};
}

}  // namespace

xhal_status as_error(xhal_status status) {
  const bool known = std::string_view(xhal_status_name(status)) != "XHAL_?";
  return status < 0 && known ? status : XHAL_ERR_PLUGIN;
}

void end_texts(xhal_device_info& info) {
  info.name[sizeof info.name - 1] = 0;
  info.vendor[sizeof info.vendor - 1] = 0;
  info.pci[sizeof info.pci - 1] = 0;
}

std::string version_text(uint32_t version) {
  return fmt::format("{}.{}", version >> 16, version & 0xffff);
}

std::vector<fs::path> search_path(std::string_view extra) {
  std::vector<fs::path> path;
  for (auto& part : split(extra, ':')) path.emplace_back(part);
  for (auto& part : split(environment("XHAL_PLUGIN_PATH"), ':')) path.emplace_back(part);
  path.emplace_back("/etc/xhal/plugins.d");
  path.emplace_back("/usr/share/xhal/plugins.d");
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&xhal_version), &self) != 0 && self.dli_fname != nullptr) {
    std::error_code ignored;
    const auto library = fs::weakly_canonical(self.dli_fname, ignored);
    if (library.has_parent_path()) path.push_back(library.parent_path() / "xhal" / "plugins");
  }
  std::erase_if(path,
                [](const fs::path& p) { return !p.is_absolute(); });  // never the working directory
  return path;
}

std::vector<std::unique_ptr<PluginRecord>> find_plugins(std::string_view extra) {
  std::vector<std::unique_ptr<PluginRecord>> plugins;
  std::vector<fs::path> seen;
  for (const auto& directory : search_path(extra)) {
    std::error_code error;
    const auto canonical = fs::weakly_canonical(directory, error);
    if (error || std::find(seen.begin(), seen.end(), canonical) != seen.end()) continue;
    seen.push_back(canonical);
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(directory, error)) {
      if (entry.path().extension() == ".json") files.push_back(entry.path());
    }
    if (files.empty()) continue;
    std::sort(files.begin(), files.end());
    const Problem directory_problem = check_trust(directory);
    for (const auto& file : files) {
      auto p = std::make_unique<PluginRecord>();
      p->manifest_path = file.string();
      Problem problem = directory_problem;
      if (problem.status == XHAL_OK) problem = read_manifest(file, p->manifest);
      p->name = p->manifest.name.empty() ? file.stem().string() : p->manifest.name;
      p->abi_min = p->manifest.abi_min;
      p->abi_max = p->manifest.abi_max;
      const auto same = std::find_if(plugins.begin(), plugins.end(), [&](const auto& other) {
        return other->name == p->name && other->state != XHAL_PLUGIN_SKIPPED;
      });
      if (problem.status == XHAL_OK && same != plugins.end()) {
        problem = {XHAL_ERR_BUSY,
                   fmt::format("the name \"{}\" is taken by {}, found earlier on the search path",
                               p->name, (*same)->manifest_path)};
      }
      if (problem.status != XHAL_OK) {
        skip(*p, std::move(problem));
      } else if (excluded(p->name)) {
        p->state = XHAL_PLUGIN_DISABLED;
        p->text = "excluded by XHAL_PLUGIN_SELECT or XHAL_PLUGIN_DISABLE";
      }
      plugins.push_back(std::move(p));
    }
  }
  return plugins;
}

Problem inspect_library(const fs::path& library) {
  if (auto p = check_trust(library); p.status != XHAL_OK) {
    if (p.status == XHAL_ERR_NOT_FOUND)
      p.text += "; install the plugin's library or remove the manifest";
    return p;
  }
  const auto bad = [&](xhal_status status, const std::string& why) -> Problem {
    return {status, fmt::format("{} {}", library.string(), why)};
  };
  if (!fs::is_regular_file(library)) return bad(XHAL_ERR_CORRUPT, "is not a regular file");
  std::ifstream file(library, std::ios::binary);
  Elf64_Ehdr header{};
  file.read(reinterpret_cast<char*>(&header), sizeof header);
  if (file.gcount() < static_cast<std::streamsize>(sizeof header) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return bad(XHAL_ERR_CORRUPT, "is not an ELF library");
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != kMachine) {
    return bad(XHAL_ERR_CORRUPT,
               fmt::format("is built for {}, this process is {}",
                           header.e_ident[EI_CLASS] == ELFCLASS64 ? arch_name(header.e_machine)
                                                                  : "a 32-bit machine",
                           arch_name(kMachine)));
  }
  const auto symbols = exported_symbols(library);
  if (!symbols)
    return bad(XHAL_ERR_CORRUPT,
               "is truncated or damaged: its tables lie beyond the end of the file");
  if (std::find(symbols->begin(), symbols->end(), kEntry) == symbols->end()) {
    return bad(XHAL_ERR_PLUGIN,
               fmt::format("does not export {}: it is not an xHAL plugin", kEntry));
  }
  return {};
}

void load_plugin(PluginRecord& p) {
  if (p.state != XHAL_PLUGIN_DEFERRED) return;
  if (!p.manifest.arch.empty() && p.manifest.arch != arch_name(kMachine)) {
    return skip(
        p, {XHAL_ERR_UNSUPPORTED, fmt::format("its manifest says it is for {}, this machine is {}",
                                              p.manifest.arch, arch_name(kMachine))});
  }
  if (plugin::common_version(p.abi_min, p.abi_max, plugin::kOldest, plugin::kNewest) == 0) {
    return skip(
        p, {XHAL_ERR_VERSION,
            fmt::format(
                "its manifest says ABI {}-{}, this library speaks {}-{} (library build {}).\n"
                "  Install a plugin built for ABI {}.x, or another xHAL. `xhal plugins doctor` "
                "lists all "
                "plugins and their ranges.",
                version_text(p.abi_min), version_text(p.abi_max), version_text(plugin::kOldest),
                version_text(plugin::kNewest), xhal_build_id(), XHAL_VERSION_MAJOR)});
  }
  if (!matches_machine(p.manifest)) {
    return skip(p, {XHAL_ERR_UNSUPPORTED,
                    "none of its \"match\" rules holds here: the hardware is not present"});
  }
  if (auto problem = inspect_library(p.manifest.library); problem.status != XHAL_OK)
    return skip(p, std::move(problem));
  if (p.manifest.probe || environment("XHAL_PROBE") == "1") {
    if (auto problem = probe_library(p.manifest.library); problem.status != XHAL_OK)
      return skip(p, std::move(problem));
  }
  try {
    boost::dll::shared_library library(
        p.manifest.library, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    auto entry = reinterpret_cast<xhal_plugin_negotiate_fn>(
        &library.get<xhal_status(const xhal_negotiate_request*, xhal_negotiate_reply*)>(kEntry));
    mapped_libraries().push_back(std::move(library));
    if (auto problem = negotiate(p, entry); problem.status != XHAL_OK)
      return skip(p, std::move(problem));
    if (auto problem = enumerate(p); problem.status != XHAL_OK) return skip(p, std::move(problem));
    p.state = XHAL_PLUGIN_LOADED;
  } catch (const std::exception& e) {
    skip(p, {XHAL_ERR_CORRUPT,
             fmt::format("{} does not load: {}", p.manifest.library.string(), e.what())});
  }
}

}  // namespace xhal
