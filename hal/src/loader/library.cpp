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

void keep_mapped(boost::dll::shared_library library) {
  static auto* mutex = new Mutex(Rank::libraries);
  static auto* libraries = new std::vector<boost::dll::shared_library>;
  const std::lock_guard lock(*mutex);
  libraries->push_back(std::move(library));
}

// Whether the C library has this very file mapped; it compares device and inode. It remembers every
// name it was asked for, so none may come twice: a descriptor's number does. Slashes make them
// differ.
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
  try {
    boost::dll::shared_library library(
        file.path, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    const bool same = is_mapped(file) && file.is_in_place();
    void* symbol = same ? dlsym(library.native(), kEntry) : nullptr;
    keep_mapped(std::move(library));
    if (!same) return exchanged(file);
    if (symbol == nullptr) {
      return {XHAL_ERR_PLUGIN, fmt::format("{} does not export {}: it is not an xHAL plugin",
                                           file.path.string(), kEntry)};
    }
    *entry = reinterpret_cast<xhal_plugin_negotiate_fn>(symbol);
    return {};
  } catch (const std::exception& e) {
    return {XHAL_ERR_CORRUPT,
            fmt::format("{} does not load: {}", file.path.string(), reason_of(e.what()))};
  }
}

}  // namespace xhal
