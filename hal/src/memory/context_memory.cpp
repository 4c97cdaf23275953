// SPDX-License-Identifier: Apache-2.0
#include "memory/context_memory.hpp"

#include <algorithm>
#include <utility>

#include "core/device_record.hpp"
#include "core/locks.hpp"
#include "core/object.hpp"
#include "core/state.hpp"
#include "memory/host_registration.hpp"
#include "memory/pinned.hpp"

namespace xhal {

ContextMemory::~ContextMemory() {
  if (!ended) Staging::close(staging);
  for (auto* peer = peers.load(std::memory_order_relaxed); peer != nullptr;)
    delete std::exchange(peer, peer->next);
}

static StripedMutex& locks() {
  static auto* locks = new StripedMutex(Rank::context_memory);
  return *locks;
}
static const AtLoad locks_at_load(locks);

std::mutex& ContextMemory::lock() const noexcept { return locks().of(this); }

void adopt_context_memory(ContextState& context) { context.memory = new ContextMemory(context); }

xhal_status scrub(ContextState& context, const AddressRange& range) {
  if ((context.flags & XHAL_CONTEXT_SCRUB) == 0 || context.device->lost) return XHAL_OK;
  const xhal_status status = load_slot(dispatch_of(context.handle)->context_scrub)(
      context.handle, range.base, range.size_bytes);
  // Lost meanwhile: there is nothing left to protect.
  return status == XHAL_ERR_DEVICE_LOST && context.device->lost ? XHAL_OK : status;
}

xhal_status end_context_memory(ContextState& context, bool lost) {
  auto* const memory = context.memory;
  if (memory->ended) return XHAL_OK;
  // At a shutdown other threads may be on their way out of it: then it stays as it is.
  auto empty = is_running() ? std::make_unique<ContextMemory>(context) : nullptr;
  if (!lost) {
    std::vector<uint64_t> left;
    {
      const std::lock_guard lock(memory->lock());
      left.assign(memory->own.begin(), memory->own.end());
    }
    xhal_status first = XHAL_OK;
    ErrorRecord first_error;
    for (const uint64_t base : left) {
      const auto range = address_map().find(base);
      if (!range || range->base != base) continue;
      if (const auto s = scrub(context, *range); s != XHAL_OK && first == XHAL_OK) {
        first = s;
        first_error = last_error();
      }
    }
    if (first != XHAL_OK) return first_error.status == first ? set_error(first_error) : first;
  }
  forget_host_registrations(*memory);
  forget_registrations(context);
  Staging::close(memory->staging);
  address_map().remove_context(context.handle);
  memory->ended = true;
  if (empty == nullptr) return XHAL_OK;
  context.memory = empty.release();
  delete memory;
  return XHAL_OK;
}

xhal_status take_helper(ContextState& context, HelperStream** helper) {
  auto& memory = *context.memory;
  for (;;) {
    std::unique_ptr<HelperStream> failed;
    {
      const std::lock_guard lock(memory.lock());
      for (auto it = memory.helpers.begin(); it != memory.helpers.end(); ++it) {
        auto& h = **it;
        if (h.busy) continue;
        const xhal_status state = poll_event(h.last);
        if (state == XHAL_NOT_READY) continue;
        if (state == XHAL_OK) {
          h.busy = true;
          *helper = &h;
          return XHAL_OK;
        }
        failed = std::move(*it);
        memory.helpers.erase(it);
        break;
      }
    }
    if (failed == nullptr) break;
    (void)xhal_stream_destroy(failed->stream);
  }
  auto fresh = std::make_unique<HelperStream>(HelperStream{nullptr, {}, true});
  if (const auto s = xhal_stream_create(context.handle, nullptr, &fresh->stream); s != XHAL_OK)
    return s;
  *helper = fresh.get();
  const std::lock_guard lock(memory.lock());
  memory.helpers.push_back(std::move(fresh));
  return XHAL_OK;
}

xhal_event give_back_helper(ContextState& context, HelperStream& helper) {
  auto& side = *state_of(helper.stream);
  xhal_event last{};
  const ErrorRecord error = last_error();  // of the copy, which the caller will report
  if (record_event(side, 0, &last) != XHAL_OK) {
    set_error(error);
    last = {side.timeline.load()->handle(), UINT64_MAX, 0, 0};  // has failed: never reached
  }
  const std::lock_guard lock(context.memory->lock());
  helper.last = last;
  helper.busy = false;
  return last;
}

bool peer_copies(ContextState& context, DeviceRecord& peer) {
  auto& memory = *context.memory;
  auto& device = *context.device;
  if (!device.has(XHAL_CAP_PEER_COPY) || device.plugin != peer.plugin) return false;
  const uint64_t number = private_of(peer.device)->number;
  auto* known = memory.peers.load(std::memory_order_acquire);
  for (auto* p = known; p != nullptr; p = p->next) {
    if (p->device == number) return p->copies;
  }
  uint32_t access = 0;
  const auto* table = dispatch_of(device.device);
  const bool copies =
      load_slot(table->device_peer_query)(device.device, peer.device, &access) == XHAL_OK &&
      (access & XHAL_PEER_COPY) != 0 &&
      load_slot(table->device_peer_enable)(device.device, peer.device) == XHAL_OK;
  // Two threads may both find out: then it is known twice.
  auto* fresh = new Peer{number, copies, known};
  while (!memory.peers.compare_exchange_weak(fresh->next, fresh, std::memory_order_acq_rel)) {
  }
  return copies;
}

}  // namespace xhal
