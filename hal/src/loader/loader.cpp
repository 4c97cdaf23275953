// SPDX-License-Identifier: Apache-2.0
#include "loader/loader.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "core/environment.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "loader/elf_symbols.hpp"
#include "loader/library.hpp"
#include "loader/probe.hpp"
#include "xhal/plugin.hpp"

namespace xhal {
namespace {

namespace fs = std::filesystem;
constexpr uint32_t kMostDevices = 4096;

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

Problem negotiate(Loaded& p, xhal_plugin_negotiate_fn entry, const xhal_host_services* host) {
  xhal_negotiate_request request{};
  request.struct_size = sizeof request;
  request.abi_min = plugin::kOldest;
  request.abi_max = plugin::kNewest;
  request.sanitizer = plugin::sanitizer();
  request.host = host;
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

bool probe_wanted(const Manifest& manifest) {
  const auto asked = environment_switch("XHAL_PROBE");
  if (!asked.problem.empty()) log(XHAL_LOG_WARN, "{}; taking 1", asked.problem);
  // Whoever wrote something else wanted something; the careful way is the one to take.
  return manifest.probe || asked.value.value_or(!asked.problem.empty());
}

Problem prepare(Loaded& loaded, const Manifest& manifest, const xhal_host_services* host) {
  if (!manifest.arch.empty() && manifest.arch != arch_name(kMachine)) {
    return {XHAL_ERR_UNSUPPORTED, fmt::format("its manifest says it is for {}, this machine is {}",
                                              manifest.arch, arch_name(kMachine))};
  }
  if (plugin::common_version(manifest.abi_min, manifest.abi_max, plugin::kOldest,
                             plugin::kNewest) == 0) {
    return {
        XHAL_ERR_VERSION,
        fmt::format("its manifest says ABI {}-{}, this library speaks {}-{} (library build {}).\n"
                    "  Install a plugin built for ABI {}.x, or another xHAL. `xhal plugins doctor` "
                    "lists all plugins and their ranges.",
                    version_text(manifest.abi_min), version_text(manifest.abi_max),
                    version_text(plugin::kOldest), version_text(plugin::kNewest), xhal_build_id(),
                    XHAL_VERSION_MAJOR)};
  }
  if (!matches_machine(manifest)) {
    return {XHAL_ERR_UNSUPPORTED,
            "none of its \"match\" rules holds here: the hardware is not present"};
  }
  // From here to the call of the entry point it is this one file.
  TrustedFile library;
  if (auto problem = open_trusted(manifest.library, &library)) {
    if (problem.status == XHAL_ERR_NOT_FOUND)
      problem.text += "; install the plugin's library or remove the manifest";
    return problem;
  }
  if (auto problem = inspect_library(library)) return problem;
  if (probe_wanted(manifest)) {
    if (auto problem = probe_library(library)) return problem;
  }
  xhal_plugin_negotiate_fn entry = nullptr;
  if (auto problem = map_library(library, &entry)) return problem;
  if (auto problem = negotiate(loaded, entry, host)) return problem;
  return list_devices(loaded.table, &loaded.devices);
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

std::vector<fs::path> search_path(std::string_view extra, std::vector<fs::path>* left_out) {
  std::vector<fs::path> path;
  for (auto& part : split(extra, ':')) path.emplace_back(part);
  for (auto& part : split(environment_text("XHAL_PLUGIN_PATH"), ':')) path.emplace_back(part);
  path.emplace_back("/etc/xhal/plugins.d");
  path.emplace_back("/usr/share/xhal/plugins.d");
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&xhal_version), &self) != 0 && self.dli_fname != nullptr) {
    std::error_code ignored;
    const auto library = fs::weakly_canonical(self.dli_fname, ignored);
    if (library.has_parent_path()) path.push_back(library.parent_path() / "xhal" / "plugins");
  }
  const auto relative = std::stable_partition(path.begin(), path.end(),
                                              [](const fs::path& p) { return p.is_absolute(); });
  left_out->assign(relative, path.end());
  path.erase(relative, path.end());
  return path;
}

std::vector<fs::path> manifests_in(const fs::path& directory, std::string* why) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".json") files.push_back(it->path());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    *why =
        fmt::format("plugin folder {} cannot be searched: {}", directory.string(), error.message());
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool is_excluded(const std::string& name) {
  const auto any_matches = [&](const char* variable, bool otherwise) {
    const auto globs = split(environment_text(variable), ',');
    if (globs.empty()) return otherwise;
    return std::any_of(globs.begin(), globs.end(),
                       [&](const auto& g) { return glob_match(g, name); });
  };
  return !any_matches("XHAL_PLUGIN_SELECT", true) || any_matches("XHAL_PLUGIN_DISABLE", false);
}

Problem inspect_library(const TrustedFile& library) {
  const auto bad = [&](xhal_status status, const std::string& why) -> Problem {
    return {status, fmt::format("{} {}", library.path.string(), why)};
  };
  // By its descriptor: what is inspected is what was opened.
  const auto name = library.name_of_descriptor();
  std::ifstream file(name, std::ios::binary);
  if (!file)
    return bad(XHAL_ERR_IO, "cannot be read through /proc/self/fd; is proc mounted on /proc?");
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
  const auto symbols = exported_symbols(name);
  if (!symbols)
    return bad(XHAL_ERR_CORRUPT,
               "is truncated or damaged: its tables lie beyond the end of the file");
  if (std::find(symbols->begin(), symbols->end(), kEntry) == symbols->end()) {
    return bad(XHAL_ERR_PLUGIN,
               fmt::format("does not export {}: it is not an xHAL plugin", kEntry));
  }
  return {};
}

Problem list_devices(const xhal_plugin_table& table, std::vector<xhal_device_info>* devices) {
  uint32_t count = 0;
  devices->clear();
  xhal_status status = table.enumerate(nullptr, 0, &count);
  if (status == XHAL_OK && count > kMostDevices)
    return {XHAL_ERR_PLUGIN, fmt::format("it claims {} devices", count)};
  if (status == XHAL_OK && count > 0) {
    devices->resize(count);
    status = table.enumerate(devices->data(), count, &count);
    if (status == XHAL_OK) devices->resize(std::min<size_t>(count, devices->size()));
  }
  if (status != XHAL_OK) {
    devices->clear();
    const auto& e = last_error();
    return {as_error(status), fmt::format("it could not list its devices: {}",
                                          e.status == status ? e.text : xhal_status_text(status))};
  }
  for (auto& d : *devices) end_texts(d);
  return {};
}

Loaded load_plugin(const Manifest& manifest, const std::string& name,
                   const xhal_host_services* host) {
  Loaded loaded;
  loaded.abi_min = manifest.abi_min;
  loaded.abi_max = manifest.abi_max;
  try {
    loaded.problem = prepare(loaded, manifest, host);
  } catch (const std::exception& e) {
    loaded.problem = {XHAL_ERR_PLUGIN,
                      fmt::format("{} threw an exception while it was loaded: {}", name, e.what())};
  } catch (...) {
    loaded.problem = {XHAL_ERR_PLUGIN, fmt::format("{} threw something while it was loaded", name)};
  }
  if (loaded.problem) loaded.devices.clear();
  return loaded;
}

}  // namespace xhal
