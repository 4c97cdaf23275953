// SPDX-License-Identifier: Apache-2.0
#include "probe/candidate.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/core.h>
#include <link.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>
#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

#include "probe/host_stubs.hpp"
#include "xhal/plugin.hpp"

namespace xhal::probe {
namespace {

constexpr const char* kEntry = "xhal_plugin_negotiate";
constexpr uint32_t kMostDevices = 4096;

std::string build_id_of(const dl_phdr_info& info) {
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const auto& header = info.dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const auto* at = reinterpret_cast<const char*>(info.dlpi_addr + header.p_vaddr);
    const char* end = at + header.p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      const auto* note = reinterpret_cast<const ElfW(Nhdr)*>(at);
      const char* name = at + sizeof *note;
      const char* data = name + ((note->n_namesz + 3) & ~3u);
      if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
          std::memcmp(name, "GNU", 4) == 0) {
        std::string text;
        for (uint32_t b = 0; b < note->n_descsz; ++b)
          text += fmt::format("{:02x}", uint8_t(data[b]));
        return text;
      }
      at = data + ((note->n_descsz + 3) & ~3u);
    }
  }
  return {};
}

std::vector<MappedFile> mapped_files() {
  std::vector<MappedFile> files;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* list) {
        if (info->dlpi_name != nullptr && info->dlpi_name[0] == '/') {
          static_cast<std::vector<MappedFile>*>(list)->push_back(
              {info->dlpi_name, build_id_of(*info)});
        }
        return 0;
      },
      &files);
  return files;
}

std::vector<std::string> holes(const xhal_dispatch& slots) {
  std::vector<std::string> names;
  // A table of an older minor ends earlier: what lies beyond it is missing too.
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)            \
  if (slots.struct_size < offsetof(xhal_dispatch, name) + sizeof slots.name || \
      slots.name == nullptr)                                                   \
    names.emplace_back(#name);
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
  return names;
}

// Whether the C library has the file behind this descriptor mapped.
bool is_mapped(int descriptor) {
  const auto name = fmt::format("/proc/self/fd/{}", descriptor);
  return dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) != nullptr;
}

std::string version_text(uint32_t version) {
  return fmt::format("{}.{}", version >> 16, version & 0xffff);
}

void negotiate(const Request& request, xhal_plugin_negotiate_fn entry, Outcome& out) {
  xhal_negotiate_request ask{};
  ask.struct_size = sizeof ask;
  ask.abi_min = request.abi_min;
  ask.abi_max = request.abi_max;
  ask.sanitizer = plugin::sanitizer();
  ask.host = host_stubs();
  const std::string_view name = "xhal-probe";
  ask.library_build = {name.data(), name.size()};
  xhal_negotiate_reply reply{};
  reply.struct_size = sizeof reply;
  out.status = entry(&ask, &reply);
  reply.build[sizeof reply.build - 1] = 0;
  out.build = reply.build;
  out.abi_min = reply.abi_min;
  out.abi_max = reply.abi_max;
  out.sanitizer = reply.sanitizer;
  if (out.status == XHAL_ERR_VERSION) {
    out.verdict = Verdict::version;
    out.text = fmt::format(
        "it speaks ABI {}-{}, this library {}-{}; install a plugin built for ABI {}.x, or another "
        "xHAL",
        version_text(out.abi_min), version_text(out.abi_max), version_text(request.abi_min),
        version_text(request.abi_max), XHAL_VERSION_MAJOR);
    return;
  }
  if (out.status != XHAL_OK) {
    out.verdict = Verdict::refused;
    out.text = fmt::format("it refused to start with status {}{}{}", out.status,
                           last_reported_text().empty() ? "" : ": ", last_reported_text());
    return;
  }
  const auto* table = reply.table;
  if (table == nullptr || table->struct_size < offsetof(xhal_plugin_table, shutdown) ||
      table->slots == nullptr || table->enumerate == nullptr || table->device_open == nullptr) {
    out.verdict = Verdict::incomplete;
    out.status = XHAL_ERR_PLUGIN;
    out.text =
        "it negotiated, but gave an incomplete table: slots, enumerate and device_open are needed";
    return;
  }
  out.missing_slots = holes(*table->slots);
  if (!request.enumerate) return;
  out.status = table->enumerate(nullptr, 0, &out.device_count);
  if (out.status == XHAL_OK && out.device_count <= kMostDevices) return;
  out.verdict = Verdict::enumerate_failed;
  out.text = out.status == XHAL_OK
                 ? fmt::format("it claims {} devices", out.device_count)
                 : fmt::format("it could not list its devices: status {}{}{}", out.status,
                               last_reported_text().empty() ? "" : ", ", last_reported_text());
  if (out.status == XHAL_OK) out.status = XHAL_ERR_PLUGIN;
}

}  // namespace

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok:
      return "ok";
    case Verdict::cannot_load:
      return "cannot_load";
    case Verdict::exchanged:
      return "exchanged";
    case Verdict::no_entry:
      return "no_entry";
    case Verdict::version:
      return "version";
    case Verdict::refused:
      return "refused";
    case Verdict::incomplete:
      return "incomplete";
    case Verdict::enumerate_failed:
      return "enumerate_failed";
  }
  return "?";
}

Outcome try_library(const Request& request) {
  Outcome out;
  // Never unloaded: the process ends right after.
  static auto* library = new boost::dll::shared_library;
  try {
    // The throwing overload: the other one loses the loader's own words.
    library->load(request.library,
                  boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
  } catch (const std::exception& e) {
    out.verdict = Verdict::cannot_load;
    out.status = XHAL_ERR_CORRUPT;
    std::string_view reason = e.what();
    constexpr std::string_view kMark = "dlerror system message: ";
    if (const auto at = reason.find(kMark); at != reason.npos) {
      reason.remove_prefix(at + kMark.size());
      reason = reason.substr(0, reason.rfind("): "));
    } else {
      reason = "the dynamic loader gave no reason";
    }
    out.text = fmt::format("it does not load: {}", reason);
    return out;
  }
  if (request.descriptor >= 0 && !is_mapped(request.descriptor)) {
    out.verdict = Verdict::exchanged;
    out.status = XHAL_ERR_BUSY;
    out.text = fmt::format("{} was exchanged while it was being checked", request.library.string());
    return out;
  }
  if (!library->has(kEntry)) {
    out.verdict = Verdict::no_entry;
    out.status = XHAL_ERR_PLUGIN;
    out.text = fmt::format("it does not export {}: it is not an xHAL plugin", kEntry);
  } else {
    negotiate(request,
              reinterpret_cast<xhal_plugin_negotiate_fn>(
                  &library->get<xhal_status(const xhal_negotiate_request*, xhal_negotiate_reply*)>(
                      kEntry)),
              out);
  }
  out.maps = mapped_files();
  return out;
}

}  // namespace xhal::probe
