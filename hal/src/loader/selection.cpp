// SPDX-License-Identifier: Apache-2.0
// selection.cpp: XHAL_VISIBLE_DEVICES: which devices a process sees, and in which order.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/environment.hpp"
#include "core/error.hpp"
#include "loader/plugins.hpp"

namespace xhal {
namespace {

std::string uuid_text(const uint8_t (&uuid)[16]) {
  std::string text;
  for (int i = 0; i < 16; ++i)
    text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
  return text;
}

std::string all_devices_text(const PluginList& list) {
  std::string text;
  for (const auto* p : list.current) {
    for (const auto& d : p->devices)
      text += fmt::format("{}{}", text.empty() ? "" : ", ", d.info.id);
  }
  return text.empty() ? "none; `xhal plugins doctor` tells why" : text;
}

bool is_there(const std::vector<Visible>& devices, const Visible& wanted) {
  return std::any_of(devices.begin(), devices.end(), [&](const Visible& v) {
    return v.plugin == wanted.plugin && v.ordinal == wanted.ordinal;
  });
}

// "npu:0,1" is npu:0 and npu:1; "cpu" is all of them; "cpu,npu:3" mixes. A bare number belongs to
// the plugin before it. Nothing at all hides every device. With the list's lock held.
xhal_status select(const PluginList& list, std::vector<Visible>* visible) {
  const auto wanted = environment("XHAL_VISIBLE_DEVICES");
  const auto add = [&](Plugin* p, uint32_t ordinal) {
    const Visible device{&p->record, ordinal};
    if (!is_there(*visible, device)) visible->push_back(device);
  };
  const auto add_all = [&](Plugin* p) {
    for (uint32_t i = 0; i < p->devices.size(); ++i) add(p, i);
  };
  if (!wanted) {
    auto order = list.current;
    std::stable_sort(order.begin(), order.end(),
                     [](auto* a, auto* b) { return a->record.priority > b->record.priority; });
    for (auto* p : order) add_all(p);
    return XHAL_OK;
  }
  const auto refuse = [&](const std::string& item, const std::string& why) {
    return fail(XHAL_ERR_NOT_FOUND, "xhal_enumerate",
                "XHAL_VISIBLE_DEVICES={}: \"{}\" {}.\n  There are: {}. Write for example cpu, "
                "npu:0,1 or a UUID.",
                *wanted, item, why, all_devices_text(list));
  };
  Plugin* plugin = nullptr;
  for (const auto& item : split(*wanted, ',')) {
    const auto colon = item.find(':');
    std::string number = colon == std::string::npos ? item : item.substr(colon + 1);
    const bool is_number =
        !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
    if (colon != std::string::npos || !is_number) {
      const auto name = item.substr(0, colon);
      const auto found = std::find_if(list.current.begin(), list.current.end(), [&](const auto* p) {
        return p->record.name == name && p->state == XHAL_PLUGIN_LOADED;
      });
      if (found == list.current.end()) {
        bool by_uuid = false;
        for (auto* p : list.current) {
          for (const auto& d : p->devices) {
            if (uuid_text(d.info.uuid) == item) {
              add(p, d.info.ordinal);
              by_uuid = true;
            }
          }
        }
        if (!by_uuid)
          return refuse(item, "is neither a plugin with devices nor the UUID of a device");
        continue;
      }
      plugin = *found;
      if (colon == std::string::npos) {
        add_all(plugin);
        continue;
      }
    }
    if (plugin == nullptr) return refuse(item, "is a number without a plugin before it");
    uint32_t ordinal = 0;
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), ordinal);
    if (parsed.ec != std::errc() || parsed.ptr != number.data() + number.size() ||
        ordinal >= plugin->devices.size()) {
      return refuse(item, fmt::format("is not a device of {}, which has {}", plugin->record.name,
                                      plugin->devices.size()));
    }
    add(plugin, ordinal);
  }
  return XHAL_OK;
}

}  // namespace

xhal_status visible_devices(std::vector<Visible>* visible) {
  auto& list = plugin_list();
  const std::lock_guard lock(list.mutex);
  return select(list, visible);
}

xhal_status all_devices(std::vector<Visible>* devices, uint32_t* shown) {
  auto& list = plugin_list();
  const std::lock_guard lock(list.mutex);
  const auto status = select(list, devices);
  *shown = static_cast<uint32_t>(devices->size());
  for (auto* p : list.current) {
    for (uint32_t i = 0; i < p->devices.size(); ++i) {
      const Visible device{&p->record, i};
      if (!is_there(*devices, device)) devices->push_back(device);
    }
  }
  return status;
}

}  // namespace xhal
