// SPDX-License-Identifier: Apache-2.0
#include "loader/probe_cache.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <mutex>
#include <set>

#include "core/environment.hpp"
#include "core/locks.hpp"
#include "loader/elf_symbols.hpp"
#include "loader/json.hpp"
#include "loader/trust.hpp"
#include "xhal/init.h"

namespace xhal {
namespace {

namespace fs = std::filesystem;
using Kind = Json::Kind;
constexpr int64_t kBadVerdictSeconds = 3600;
constexpr size_t kMostCacheBytes = 4 << 20;

fs::path cache_file() {
  if (const auto xdg = environment_text("XDG_CACHE_HOME"); !xdg.empty())
    return fs::path(xdg) / "xhal" / "probe.json";
  const auto home = environment_text("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "xhal" / "probe.json";
}

// The build id where the linker has given one: it is the same on every machine that shares the
// cache, and in every container made from one image. Else what a replaced file has anew.
std::string identity(const fs::path& file) {
  struct stat s {};
  if (stat(file.c_str(), &s) != 0) return "gone";
  if (const auto id = build_id(file); !id.empty()) return fmt::format("{}:{}", id, s.st_size);
  return fmt::format("{}:{}:{}:{}.{}", s.st_dev, s.st_ino, s.st_size, s.st_mtim.tv_sec,
                     s.st_mtim.tv_nsec);
}

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line.substr(0, 64);
}

// The kernel, and the version of each driver of a PCI device that has one of its own.
std::string drivers() {
  utsname kernel{};
  uname(&kernel);
  std::set<std::string> found;
  std::error_code error;
  for (fs::directory_iterator it("/sys/bus/pci/devices", error), end; !error && it != end;
       it.increment(error)) {
    std::error_code none;
    const auto module = fs::read_symlink(it->path() / "driver" / "module", none);
    if (none) continue;
    const auto folder = fs::path("/sys/module") / module.filename();
    const auto version = first_line(folder / "version");
    if (!version.empty()) found.insert(fmt::format("{} {}", module.filename().string(), version));
  }
  std::string text = kernel.release;
  for (const auto& driver : found) text += ", " + driver;
  return text;
}

Json read_cache() {
  TrustedFile file;
  std::string text;
  const auto name = cache_file();
  if (name.empty() || open_trusted(name, &file) || !file.read(kMostCacheBytes, &text))
    return Json::make_object();
  auto json = Json::parse(text);
  return json && json->is(Kind::object) ? std::move(*json) : Json::make_object();
}

void write_cache(const Json& cache) {
  const auto file = cache_file();
  if (file.empty()) return;
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  std::string temporary = file.string() + ".XXXXXX";
  const Descriptor out(mkostemp(temporary.data(), O_CLOEXEC));
  if (!out) return;
  const std::string text = cache.dump();
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(out.get(), text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) break;
    done += static_cast<size_t>(written);
  }
  // Half a cache must not be left.
  if (done == text.size()) fs::rename(temporary, file, error);
  if (done != text.size() || error) fs::remove(temporary, error);
}

// A verdict that this library would not have written does not count.
std::optional<Problem> read_verdict(const Json& entry) {
  const Json* maps = entry.find("maps");
  const Json* status = entry.find("status");
  const Json* text = entry.find("text");
  const Json* time = entry.find("time");
  const Json* driver = entry.find("drivers");
  const Json* xhal = entry.find("xhal");
  if (maps == nullptr || !maps->is(Kind::object) || maps->members.empty() || status == nullptr ||
      !status->is(Kind::integer) || text == nullptr || !text->is(Kind::text) || time == nullptr ||
      !time->is(Kind::integer) || driver == nullptr || !driver->is(Kind::text) || xhal == nullptr ||
      !xhal->is(Kind::text))
    return std::nullopt;
  if (status->integer > XHAL_OK || status->integer < INT32_MIN) return std::nullopt;
  const int64_t age = ::time(nullptr) - time->integer;
  if (status->integer != XHAL_OK && (age < 0 || age >= kBadVerdictSeconds)) return std::nullopt;
  if (xhal->text != xhal_build_id() || driver->text != drivers()) return std::nullopt;
  for (const auto& [file, id] : maps->members) {
    if (!id.is(Kind::text) || identity(file) != id.text) return std::nullopt;
  }
  return Problem{static_cast<xhal_status>(status->integer), text->text};
}

Mutex& cache_mutex() {
  static auto* mutex = new Mutex(Rank::libraries);
  return *mutex;
}
const AtLoad cache_mutex_at_load(cache_mutex);

}  // namespace

std::optional<Problem> remembered_verdict(const fs::path& library) {
  const std::lock_guard lock(cache_mutex());
  const auto cache = read_cache();
  const Json* entry = cache.find(library.native());
  return entry == nullptr ? std::nullopt : read_verdict(*entry);
}

void remember_verdict(const fs::path& library, const Problem& verdict,
                      const std::vector<std::string>& mapped) {
  Json maps = Json::make_object();
  maps.set(library.native(), identity(library));
  for (const auto& file : mapped) maps.set(file, identity(file));
  Json entry = Json::make_object();
  entry.set("status", Json(int64_t{verdict.status}));
  entry.set("text", verdict.text);
  entry.set("time", Json(int64_t{time(nullptr)}));
  entry.set("drivers", drivers());
  entry.set("xhal", xhal_build_id());
  entry.set("maps", std::move(maps));
  const std::lock_guard lock(cache_mutex());
  auto cache = read_cache();
  cache.set(library.native(), std::move(entry));
  write_cache(cache);
}

}  // namespace xhal
