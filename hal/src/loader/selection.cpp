// selection.cpp: XHAL_VISIBLE_DEVICES: which devices a process sees, and in which order.
#include <algorithm>
#include <charconv>

#include "core/environment.hpp"
#include "device/registry.hpp"

namespace xhal {
namespace {

std::string uuid_text(const uint8_t (&uuid)[16]) {
  std::string text;
  for (int i = 0; i < 16; ++i)
    text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
  return text;
}

std::string all_devices_text() {
  std::string text;
  for (const auto& p : registry().plugins) {
    for (const auto& d : p->devices) text += fmt::format("{}{}", text.empty() ? "" : ", ", d.id);
  }
  return text.empty() ? "none; `xhal plugins doctor` tells why" : text;
}

}  // namespace

// "npu:0,1" is npu:0 and npu:1; "cpu" is all of them; "cpu,npu:3" mixes. A bare number belongs to
// the plugin before it.
xhal_status visible_devices(std::vector<Visible>* visible) {
  auto& r = registry();
  const std::string wanted = environment("XHAL_VISIBLE_DEVICES");
  const auto add = [&](PluginRecord* p, uint32_t ordinal) {
    const bool there = std::any_of(visible->begin(), visible->end(), [&](const Visible& v) {
      return v.plugin == p && v.ordinal == ordinal;
    });
    if (!there) visible->push_back({p, ordinal});
  };
  const auto add_all = [&](PluginRecord* p) {
    for (uint32_t i = 0; i < p->devices.size(); ++i) add(p, i);
  };
  if (wanted.empty()) {
    std::vector<PluginRecord*> order;
    for (const auto& p : r.plugins) order.push_back(p.get());
    std::stable_sort(order.begin(), order.end(),
                     [](auto* a, auto* b) { return a->manifest.priority > b->manifest.priority; });
    for (auto* p : order) add_all(p);
    return XHAL_OK;
  }
  const auto refuse = [&](const std::string& item, const std::string& why) {
    return fail(XHAL_ERR_NOT_FOUND, "xhal_enumerate",
                "XHAL_VISIBLE_DEVICES={}: \"{}\" {}.\n  There are: {}. Write for example cpu, "
                "npu:0,1 or a UUID.",
                wanted, item, why, all_devices_text());
  };
  PluginRecord* plugin = nullptr;
  for (const auto& item : split(wanted, ',')) {
    const auto colon = item.find(':');
    std::string number = colon == std::string::npos ? item : item.substr(colon + 1);
    const bool is_number =
        !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
    if (colon != std::string::npos || !is_number) {
      const auto name = item.substr(0, colon);
      const auto found = std::find_if(r.plugins.begin(), r.plugins.end(), [&](const auto& p) {
        return p->name == name && p->state == XHAL_PLUGIN_LOADED;
      });
      if (found == r.plugins.end()) {
        bool by_uuid = false;
        for (const auto& p : r.plugins) {
          for (const auto& d : p->devices) {
            if (uuid_text(d.uuid) == item) {
              add(p.get(), d.ordinal);
              by_uuid = true;
            }
          }
        }
        if (!by_uuid)
          return refuse(item, "is neither a plugin with devices nor the UUID of a device");
        continue;
      }
      plugin = found->get();
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
      return refuse(item, fmt::format("is not a device of {}, which has {}", plugin->name,
                                      plugin->devices.size()));
    }
    add(plugin, ordinal);
  }
  return XHAL_OK;
}

}  // namespace xhal
