// SPDX-License-Identifier: Apache-2.0
#include "loader/plugins.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.hpp"
#include "core/locks.hpp"
#include "core/log.hpp"
#include "core/state.hpp"
#include "loader/loader.hpp"
#include "loader/trust.hpp"

namespace xhal {
namespace {

namespace fs = std::filesystem;

// The plugin whose negotiation or enumeration runs on this thread.
thread_local const Plugin* inside = nullptr;

xhal_status refuse_inside(const char* operation) {
  return fail(
      XHAL_ERR_BUSY, operation,
      "{}: plugin {} called it from its own negotiation or enumeration, which it would wait "
      "for; a plugin may use the host services there, and nothing else of xHAL",
      operation, inside->record.name);
}

void skip(Plugin& plugin, Problem problem, std::vector<Notice>& notices) {
  plugin.state = XHAL_PLUGIN_SKIPPED;
  plugin.status = problem.status;
  // What is odd about the manifest may be the reason.
  const auto odd = std::exchange(plugin.text, std::move(problem.text));
  if (!odd.empty()) plugin.text += "; its manifest: " + odd;
  notices.emplace_back(problem.status == XHAL_ERR_UNSUPPORTED ? XHAL_LOG_INFO : XHAL_LOG_WARN,
                       fmt::format("plugin {} skipped: {}", plugin.record.name, plugin.text));
}

void write(const std::vector<Notice>& notices) {
  for (const auto& [level, text] : notices) log(level, "{}", text);
}

// Runs `work` inside a plugin, without the lock, and keeps other threads out of the plugin until
// it has returned.
template <class Work>
void in_turn(PluginList& list, std::unique_lock<std::mutex>& lock, Plugin& plugin, Work&& work) {
  struct Turn {
    PluginList& list;
    std::unique_lock<std::mutex>& lock;
    Plugin& plugin;
    Turn(PluginList& l, std::unique_lock<std::mutex>& held, Plugin& p)
        : list(l), lock(held), plugin(p) {
      plugin.busy = true;
      inside = &plugin;
      lock.unlock();
    }
    ~Turn() {
      inside = nullptr;
      if (!lock.owns_lock()) lock.lock();
      plugin.busy = false;
      list.changed.notify_all();
    }
  } turn(list, lock, plugin);
  work();
}

// The larger of libxhal's count and the plugin's own: a plugin that keeps count tells every
// process the same.
uint32_t generation_of(const PluginRecord& record, const ListedDevice& device) {
  constexpr uint32_t kSince = 3;  // before, the field was not the plugin's to fill
  return record.speaks(kSince) ? std::max(device.generation, device.info.generation)
                               : device.generation;
}

// Puts the record a plugin gave for a device in its place.
void take_device(const PluginRecord& record, ListedDevice& device, const xhal_device_info& given,
                 uint32_t ordinal, uint32_t position) {
  device.info = given;
  device.position = position;
  device.info.index = 0;
  device.info.ordinal = ordinal;
  device.info.priority = record.priority;
  std::snprintf(device.info.id, sizeof device.info.id, "%s:%u", record.name.c_str(), ordinal);
  std::snprintf(device.info.plugin, sizeof device.info.plugin, "%s", record.name.c_str());
}

bool has_uuid(const xhal_device_info& info) {
  return std::any_of(std::begin(info.uuid), std::end(info.uuid), [](uint8_t b) { return b != 0; });
}

void take_loaded(Plugin& plugin, Loaded loaded, std::vector<Notice>& notices) {
  auto& record = plugin.record;
  record.abi_min = loaded.abi_min;
  record.abi_max = loaded.abi_max;
  record.abi_used = loaded.abi_used;
  record.build = std::move(loaded.build);
  if (loaded.problem) return skip(plugin, std::move(loaded.problem), notices);
  record.table = loaded.table;
  plugin.devices.resize(loaded.devices.size());
  for (uint32_t i = 0; i < loaded.devices.size(); ++i)
    take_device(record, plugin.devices[i], loaded.devices[i], i, i);
  plugin.state = XHAL_PLUGIN_LOADED;
  notices.emplace_back(XHAL_LOG_DEBUG,
                       fmt::format("plugin {} loaded from {}: build {}, ABI {}, {} devices",
                                   record.name, record.library_path, record.build,
                                   version_text(record.abi_used), plugin.devices.size()));
}

// The known device that this record means: of the same uuid, else, without one, at the same place.
ListedDevice* find_known(std::vector<ListedDevice>& known, const std::vector<bool>& taken,
                         const xhal_device_info& given, uint32_t position) {
  for (size_t i = 0; i < taken.size(); ++i) {
    const auto& info = known[i].info;
    const bool same = has_uuid(given) ? has_uuid(info) && std::memcmp(info.uuid, given.uuid,
                                                                      sizeof info.uuid) == 0
                                      : !has_uuid(info) && known[i].position == position;
    if (same && !taken[i]) return &known[i];
  }
  return nullptr;
}

void merge(Plugin& plugin, const std::vector<xhal_device_info>& listed) {
  std::vector<bool> taken(plugin.devices.size());
  std::vector<ListedDevice> added;
  for (uint32_t position = 0; position < listed.size(); ++position) {
    const auto& given = listed[position];
    if (auto* known = find_known(plugin.devices, taken, given, position); known != nullptr) {
      const auto ordinal = static_cast<uint32_t>(known - plugin.devices.data());
      taken[ordinal] = true;
      if (std::exchange(known->gone, false))
        known->generation = generation_of(plugin.record, *known) + 1;
      take_device(plugin.record, *known, given, ordinal, position);
    } else {
      const auto ordinal = static_cast<uint32_t>(plugin.devices.size() + added.size());
      take_device(plugin.record, added.emplace_back(), given, ordinal, position);
    }
  }
  for (size_t i = 0; i < taken.size(); ++i) {
    if (!taken[i]) plugin.devices[i].gone = true;
  }
  plugin.devices.insert(plugin.devices.end(), added.begin(), added.end());
}

Plugin& plugin_of(PluginList& list, const PluginRecord& record) {
  return *list.all[record.number - 1];
}

}  // namespace

PluginList& plugin_list() {
  static auto* list = new PluginList;  // never destroyed: plugins' threads may outlive main
  return *list;
}
const AtLoad plugin_list_at_load(plugin_list);

std::vector<Notice> find_plugins(std::string_view extra, const xhal_host_services* host) {
  std::vector<Notice> notices;
  std::vector<std::unique_ptr<Plugin>> found;
  std::vector<fs::path> seen;
  std::vector<fs::path> left_out;
  const auto path = search_path(extra, &left_out);
  for (const auto& directory : left_out) {
    notices.emplace_back(XHAL_LOG_WARN,
                         fmt::format("plugin folder {} is not searched: its path is not absolute",
                                     directory.string()));
  }
  for (const auto& directory : path) {
    std::string unreadable;
    const auto files = manifests_in(directory, &unreadable);
    if (unreadable.empty()) {
      notices.emplace_back(XHAL_LOG_DEBUG, fmt::format("plugin folder {}: {} manifests",
                                                       directory.string(), files.size()));
    } else {
      notices.emplace_back(XHAL_LOG_WARN, std::move(unreadable));
    }
    if (files.empty()) continue;
    fs::path real;
    const Problem directory_problem = check_folder(directory, &real);
    if (real.empty()) real = directory;
    if (std::find(seen.begin(), seen.end(), real) != seen.end()) continue;
    seen.push_back(real);
    for (const auto& file : files) {
      auto p = std::make_unique<Plugin>();
      Problem problem = directory_problem;
      if (!problem) problem = read_manifest(file, p->manifest);
      p->record.manifest_path = file.string();
      p->record.name = p->manifest.name.empty() ? file.stem().string() : p->manifest.name;
      p->record.vendor = p->manifest.vendor;
      p->record.library_path = p->manifest.library.string();
      p->record.priority = p->manifest.priority;
      p->record.abi_min = p->manifest.abi_min;
      p->record.abi_max = p->manifest.abi_max;
      for (const auto& warning : p->manifest.warnings) {
        p->text += fmt::format("{}{}", p->text.empty() ? "" : "; ", warning);
        notices.emplace_back(XHAL_LOG_WARN,
                             fmt::format("manifest {}: {}", p->record.manifest_path, warning));
      }
      const auto same = std::find_if(found.begin(), found.end(), [&](const auto& other) {
        return other->record.name == p->record.name && other->state != XHAL_PLUGIN_SKIPPED;
      });
      if (!problem && same != found.end()) {
        problem = {XHAL_ERR_BUSY,
                   fmt::format("the name \"{}\" is taken by {}, found earlier on the search path",
                               p->record.name, (*same)->record.manifest_path)};
      }
      if (problem) {
        skip(*p, std::move(problem), notices);
      } else if (is_excluded(p->record.name)) {
        p->state = XHAL_PLUGIN_DISABLED;
        p->text = "excluded by XHAL_PLUGIN_SELECT or XHAL_PLUGIN_DISABLE";
      }
      found.push_back(std::move(p));
    }
  }
  auto& list = plugin_list();
  const std::lock_guard lock(list.mutex);
  list.host = host;
  list.current.clear();
  for (auto& p : found) {
    // The same plugin of an earlier init is used again, so that a program may start and stop the
    // library for ever.
    const auto same = std::find_if(list.all.begin(), list.all.end(), [&](const auto& old) {
      return old->record.manifest_path == p->record.manifest_path &&
             old->record.name == p->record.name &&
             old->record.library_path == p->record.library_path;
    });
    if (same != list.all.end()) {
      p->record.number = (*same)->record.number;
      **same = std::move(*p);
      list.current.push_back(same->get());
      continue;
    }
    list.current.push_back(p.get());
    list.all.push_back(std::move(p));
    list.current.back()->record.number = static_cast<uint32_t>(list.all.size());
  }
  return notices;
}

xhal_status load_plugins(const char* operation) {
  if (inside != nullptr) return refuse_inside(operation);
  auto& list = plugin_list();
  std::unique_lock<std::mutex> lock(list.mutex);
  const auto plugins = list.current;
  for (auto* p : plugins) {
    // One that is asked again for its devices is loaded already.
    list.changed.wait(lock, [&] { return !p->busy || p->state != XHAL_PLUGIN_DEFERRED; });
    if (!is_running()) return fail_state(operation);
    if (p->state != XHAL_PLUGIN_DEFERRED) continue;
    const auto* host = list.host;
    std::vector<Notice> notices;
    in_turn(list, lock, *p, [&] {
      auto loaded = load_plugin(p->manifest, p->record.name, host);
      lock.lock();
      take_loaded(*p, std::move(loaded), notices);
    });
    if (notices.empty()) continue;
    lock.unlock();
    write(notices);
    lock.lock();
  }
  return XHAL_OK;
}

xhal_status refresh_plugins(const char* operation) {
  if (const auto status = load_plugins(operation); status != XHAL_OK) return status;
  auto& list = plugin_list();
  std::unique_lock<std::mutex> lock(list.mutex);
  const auto plugins = list.current;
  for (auto* p : plugins) {
    list.changed.wait(lock, [&] { return !p->busy; });
    if (!is_running()) return fail_state(operation);
    if (p->state != XHAL_PLUGIN_LOADED) continue;
    Problem problem;
    in_turn(list, lock, *p, [&] {
      std::vector<xhal_device_info> listed;
      problem = list_devices(p->record.table, &listed);
      lock.lock();
      if (!problem) merge(*p, listed);
    });
    if (!problem) continue;
    lock.unlock();
    log(XHAL_LOG_WARN, "plugin {}: {}; its devices stay listed as they were", p->record.name,
        problem.text);
    lock.lock();
  }
  return XHAL_OK;
}

void shutdown_plugins() {
  auto& list = plugin_list();
  std::unique_lock<std::mutex> lock(list.mutex);
  const auto plugins = list.current;
  for (auto* p : plugins) {
    list.changed.wait(lock, [&] { return !p->busy || p == inside; });
    if (p->state != XHAL_PLUGIN_LOADED || p->record.table.shutdown == nullptr) continue;
    lock.unlock();
    p->record.table.shutdown();
    lock.lock();
  }
}

void plugins_after_fork() {
  auto& list = plugin_list();
  new (&list.changed) std::condition_variable;
  for (auto* p : list.current) {
    if (!std::exchange(p->busy, false) || p->state != XHAL_PLUGIN_DEFERRED) continue;
    p->state = XHAL_PLUGIN_SKIPPED;
    p->status = XHAL_ERR_FORKED;
    p->text = "the process was forked while another thread was loading it";
  }
}

xhal_device_info listed_device(const PluginRecord& record, uint32_t ordinal, uint32_t* position) {
  auto& list = plugin_list();
  const std::lock_guard lock(list.mutex);
  const auto& device = plugin_of(list, record).devices[ordinal];
  if (position != nullptr) *position = device.position;
  auto info = device.info;
  info.generation = generation_of(record, device);
  if (device.gone) info.flags |= XHAL_DEVICE_GONE;
  return info;
}

bool is_gone(const PluginRecord& record, uint32_t ordinal) {
  auto& list = plugin_list();
  const std::lock_guard lock(list.mutex);
  return plugin_of(list, record).devices[ordinal].gone;
}

void next_generation(const PluginRecord& record, uint32_t ordinal) {
  auto& list = plugin_list();
  const std::lock_guard lock(list.mutex);
  auto& device = plugin_of(list, record).devices[ordinal];
  device.generation = generation_of(record, device) + 1;
}

std::vector<xhal_plugin_info> plugin_report() {
  auto& list = plugin_list();
  const std::lock_guard lock(list.mutex);
  const auto str = [](const std::string& s) { return xhal_string{s.data(), s.size()}; };
  std::vector<xhal_plugin_info> report;
  for (const auto* p : list.current) {
    xhal_plugin_info out{};
    out.state = p->state;
    out.status = p->status;
    out.abi_min = p->record.abi_min;
    out.abi_max = p->record.abi_max;
    out.abi_used = p->record.abi_used;
    out.priority = p->record.priority;
    out.device_count = static_cast<uint32_t>(p->devices.size());
    out.name = str(p->record.name);
    out.vendor = str(p->record.vendor);
    out.manifest_path = str(p->record.manifest_path);
    out.library_path = str(p->record.library_path);
    out.build_id = str(p->record.build);
    out.text = str(p->text);
    report.push_back(out);
  }
  return report;
}

}  // namespace xhal
