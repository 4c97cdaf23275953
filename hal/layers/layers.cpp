// SPDX-License-Identifier: Apache-2.0
#include "layers/layers.hpp"

#include <algorithm>
#include <vector>

#include "core/environment.hpp"
#include "core/locks.hpp"
#include "core/log.hpp"
#include "core/object.hpp"
#include "layers/layer_tables.hpp"
#include "memory/address_check.hpp"

namespace xhal {
namespace {

std::vector<std::string>& active() {
  static auto* names = new std::vector<std::string>;
  return *names;
}
const AtLoad active_at_load(active);

bool has(const char* name) {
  return std::find(active().begin(), active().end(), name) != active().end();
}

}  // namespace

void read_layers() {
  active().clear();
  for (const auto& name : split(environment_text("XHAL_LAYERS"), ',')) {
    if (name == "validate" || name == "trace" || name == "chaos")
      active().push_back(name);
    else
      log(XHAL_LOG_WARN,
          "XHAL_LAYERS: there is no layer \"{}\"; there are validate, trace and chaos", name);
  }
  quarantine_objects(has("validate"));
  check_addresses(has("validate"));
  chaos_start(has("chaos"));
  if (has("trace")) trace_start();
}

void apply_layers(DeviceRecord& record) {
  if (has("trace")) {
    record.next[static_cast<size_t>(Layer::trace)] = record.table;
    wrap_trace(record.table);
  }
  // Outermost, so that nothing wrong is even traced.
  if (has("validate")) {
    record.next[static_cast<size_t>(Layer::validate)] = record.table;
    wrap_validate(record.table);
  }
}

void finish_layers() noexcept {
  if (has("trace")) trace_finish();
  chaos_start(false);
}

}  // namespace xhal
