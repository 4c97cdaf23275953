// SPDX-License-Identifier: Apache-2.0
// library.cpp: the only file of libxhal that compiles Boost.DLL.
#include "loader/library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <vector>
#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

#include "core/locks.hpp"

namespace xhal {
namespace {

// What the dynamic loader said, without the words around it.
std::string reason_of(std::string_view text) {
  constexpr std::string_view kMark = "dlerror system message: ";
  const auto at = text.find(kMark);
  if (at == text.npos) return "the dynamic loader gave no reason";
  text.remove_prefix(at + kMark.size());
  return std::string(text.substr(0, text.rfind("): ")));
}

// What is mapped stays mapped, and is not mapped again by a later xhal_init.
struct Mapped {
  dev_t device;
  ino_t inode;
  timespec changed;
  boost::dll::shared_library library;
  xhal_plugin_negotiate_fn entry;

  bool is(const struct stat& info) const {
    return info.st_dev == device && info.st_ino == inode && info.st_ctim.tv_sec == changed.tv_sec &&
           info.st_ctim.tv_nsec == changed.tv_nsec;
  }
};
struct MappedLibraries {
  Mutex mutex{Rank::libraries};
  std::vector<Mapped> list;
};
MappedLibraries& mapped_libraries() {
  static auto* m = new MappedLibraries;
  return *m;
}
const AtLoad mapped_libraries_at_load(mapped_libraries);

xhal_plugin_negotiate_fn find_mapped(const TrustedFile& file) {
  auto& m = mapped_libraries();
  const std::lock_guard lock(m.mutex);
  for (const auto& mapped : m.list) {
    if (mapped.is(file.info)) return mapped.entry;
  }
  return nullptr;
}

void keep_mapped(const TrustedFile& file, boost::dll::shared_library library,
                 xhal_plugin_negotiate_fn entry) {
  auto& m = mapped_libraries();
  const std::lock_guard lock(m.mutex);
  m.list.push_back(
      {file.info.st_dev, file.info.st_ino, file.info.st_ctim, std::move(library), entry});
}

// Whether the C library has this very file mapped; it compares device and inode. It remembers
// every name it was asked for, so none may come twice: a descriptor's number does. Slashes
// make them differ.
bool is_mapped(const TrustedFile& file) {
  static std::atomic<size_t> asked{0};
  const auto name =
      fmt::format("/proc/self/fd{}{}", std::string(++asked, '/'), file.descriptor.get());
  return dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) != nullptr;
}

Problem exchanged(const TrustedFile& file) {
  return {XHAL_ERR_BUSY,
          fmt::format("{} was exchanged after it was checked: the file there now is another one; "
                      "start the program again when its installation has ended",
                      file.path.string())};
}

}  // namespace

Problem map_library(const TrustedFile& file, xhal_plugin_negotiate_fn* entry) {
  if (access(file.name_of_descriptor().c_str(), F_OK) != 0) {
    return {XHAL_ERR_IO,
            fmt::format("{} cannot be loaded: /proc is not mounted, and without it libxhal cannot "
                        "tell whether what it loads is the file it checked; mount proc on /proc",
                        file.path.string())};
  }
  if (!file.is_in_place()) return exchanged(file);
  if (*entry = find_mapped(file); *entry != nullptr) return {};
  try {
    boost::dll::shared_library library(
        file.path, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    const bool same = is_mapped(file) && file.is_in_place();
    void* symbol = same ? dlsym(library.native(), kEntry) : nullptr;
    const auto function = reinterpret_cast<xhal_plugin_negotiate_fn>(symbol);
    keep_mapped(file, std::move(library), function);
    if (!same) return exchanged(file);
    if (symbol == nullptr) {
      return {XHAL_ERR_PLUGIN, fmt::format("{} does not export {}: it is not an xHAL plugin",
                                           file.path.string(), kEntry)};
    }
    *entry = function;
    return {};
  } catch (const std::exception& e) {
    return {XHAL_ERR_CORRUPT,
            fmt::format("{} does not load: {}", file.path.string(), reason_of(e.what()))};
  }
}

}  // namespace xhal
