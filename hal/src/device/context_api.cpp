// SPDX-License-Identifier: Apache-2.0
// context_api.cpp: contexts, and what ends with them.
#include "core/argument_check.hpp"
#include "core/context_state.hpp"
#include "core/locks.hpp"
#include "core/object.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "device/open_devices.hpp"
#include "memory/context_memory.hpp"
#include "memory/pool.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {

Mutex& ContextState::mutex() {
  static auto* m = new Mutex(Rank::context);
  return *m;
}
const AtLoad mutex_at_load(&ContextState::mutex);

ContextToBe::ContextToBe(DeviceRecord& record, const xhal_context_info& info, bool is_default)
    : state_(std::make_unique<ContextState>()) {
  state_->device = &record;
  state_->flags = info.flags;
  state_->is_default = is_default;
  state_->quota_bytes = info.quota_bytes;
  std::set<xhal_context*> place{nullptr};
  listed_ = place.extract(place.begin());
  adopt_context_memory(*state_);
}

ContextToBe::~ContextToBe() {
  if (state_ != nullptr) delete state_->memory;
}

void ContextToBe::becomes(xhal_context* context) noexcept {
  state_->handle = context;
  listed_.value() = context;
  const std::lock_guard lock(DeviceRecord::mutex());
  state_->device->contexts.insert(std::move(listed_));
  private_of(context)->state = state_.release();
}

// Streams first, for pools have blocks on them; memory last, for pools give theirs back.
xhal_status empty_context(ContextState& context) {
  for (;;) {
    xhal_stream* stream = nullptr;
    xhal_pool* pool = nullptr;
    {
      const std::lock_guard lock(ContextState::mutex());
      if (!context.streams.empty())
        stream = *context.streams.begin();
      else if (!context.pools.empty())
        pool = *context.pools.begin();
    }
    if (stream != nullptr) {
      xhal_stream_destroy(stream);
      // It may refuse (BUSY), and be destroyed by whoever keeps it busy.
      const std::lock_guard lock(ContextState::mutex());
      context.streams.erase(stream);
    } else if (pool != nullptr) {
      abandon_pool(pool);
    } else {
      return end_context_memory(context, context.device->lost);
    }
  }
}

void forget_context(ContextState& context) noexcept {
  if (is_running()) {
    delete context.memory;
    delete &context;
  } else {  // at a shutdown other threads may be on their way out of it
    keep_for_ever(&context);
  }
}

}  // namespace xhal

using xhal::fail;
using xhal::is_live;

extern "C" {

xhal_status xhal_context_create(xhal_device* device, const xhal_context_info* info,
                                xhal_context** context) {
  constexpr const char* op = "xhal_context_create";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_context_info local{};
    if (const auto s = xhal::required(op, {{"context", context}}); s != XHAL_OK) return s;
    if (const auto s = xhal::structs::read(info, local, xhal::structs::Chains::pass);
        s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    constexpr uint32_t kKnown = XHAL_CONTEXT_SCRUB | XHAL_CONTEXT_PRIORITY_LIMIT;
    if ((local.flags & ~kKnown) != 0) return xhal::refuse_flags(op, local.flags & ~kKnown);
    auto& record = *xhal::private_of(device)->device;
    if ((record.open_flags & XHAL_OPEN_OBSERVE) != 0) {
      return fail(
          XHAL_ERR_PERMISSION, op,
          "{}: {} was opened with XHAL_OPEN_OBSERVE, which creates nothing; open it without", op,
          record.id());
    }
    if ((local.flags & XHAL_CONTEXT_SCRUB) != 0 && !record.has(XHAL_CAP_SCRUB)) {
      return fail(
          XHAL_ERR_UNSUPPORTED, op,
          "{}: {} cannot overwrite memory before it is given back (XHAL_CONTEXT_SCRUB); its "
          "plugin must have the slot context_scrub of ABI 0.3",
          op, record.id());
    }
    if ((local.flags & XHAL_CONTEXT_PRIORITY_LIMIT) != 0 && !record.plugin->speaks(3)) {
      return fail(
          XHAL_ERR_UNSUPPORTED, op,
          "{}: plugin {} is older than ABI 0.3 and would ignore XHAL_CONTEXT_PRIORITY_LIMIT", op,
          record.plugin->name);
    }
    xhal::ContextToBe ours(record, local, false);
    xhal_context* made = nullptr;
    xhal_status status =
        xhal::load_slot(xhal::dispatch_of(device)->context_create)(device, &local, &made);
    if (status == XHAL_OK && !is_live(made, XHAL_KIND_CONTEXT)) {
      status = fail(XHAL_ERR_PLUGIN, op,
                    "{}: the plugin returned success without a context made by object_alloc", op);
    }
    if (status != XHAL_OK) return xhal::annotate(status, device, op);
    ours.becomes(made);
    *context = made;
    return XHAL_OK;
  });
}

xhal_status xhal_context_destroy(xhal_context* context) {
  constexpr const char* op = "xhal_context_destroy";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  return xhal::exported(op, [&]() -> xhal_status {
    if (!xhal::is_running()) return XHAL_OK;  // a child of a fork, or closed by the shutdown
    auto& record = *xhal::private_of(context)->device;
    if (context == record.context) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                  "{}: the default context of {} ends with xhal_device_close", op, record.id());
    }
    auto& state = *xhal::state_of(context);
    std::set<xhal_context*>::node_type listed;  // goes back into the list without an allocation
    {
      // Who takes it out of the list destroys it: a close of the device may be about to.
      const std::lock_guard lock(xhal::DeviceRecord::mutex());
      listed = record.contexts.extract(context);
    }
    if (listed.empty()) return xhal::fail_state(op);
    const auto stays = [&] {
      const std::lock_guard lock(xhal::DeviceRecord::mutex());
      record.contexts.insert(std::move(listed));
    };
    if (const auto s = xhal::guarded(op, [&] { return xhal::empty_context(state); }); s < 0) {
      stays();
      return xhal::annotate(s, context, op);
    }
    const xhal_status status =
        xhal::load_slot(xhal::dispatch_of(context)->context_destroy)(context);
    if (status < 0 && is_live(context, XHAL_KIND_CONTEXT)) {  // the plugin still has it, empty
      stays();
      return xhal::annotate(status, context, op);
    }
    xhal::forget_context(state);
    return status >= 0 ? status : xhal::annotate(status, record.device, op);
  });
}

}  // extern "C"
