// SPDX-License-Identifier: Apache-2.0
#include "core/correlation.hpp"

#include <new>
#include <vector>

#include "core/error.hpp"
#include "core/locks.hpp"
#include "core/thread_value.hpp"
#include "xhal/activity.h"

namespace xhal {
namespace {

struct Correlation {
  std::vector<uint64_t> stack;
  bool overridden = false;
  uint64_t override_id = 0;
};
ThreadValue<Correlation>& thread_correlation() {
  static auto* value = new ThreadValue<Correlation>;
  return *value;
}
const AtLoad thread_correlation_at_load(thread_correlation);

}  // namespace

uint64_t current_correlation() noexcept {
  const auto* c = thread_correlation().find();
  if (c == nullptr) return 0;
  if (c->overridden) return c->override_id;
  return c->stack.empty() ? 0 : c->stack.back();
}

CorrelationScope::CorrelationScope(uint64_t id) noexcept {
  auto* const c = thread_correlation().get();
  if (c == nullptr) return;  // no memory: the work is done without its id
  outer_active_ = c->overridden;
  outer_ = c->override_id;
  c->overridden = true;
  c->override_id = id;
  set_ = true;
}

CorrelationScope::~CorrelationScope() {
  if (!set_) return;
  auto* const c = thread_correlation().find();
  c->overridden = outer_active_;
  c->override_id = outer_;
}

}  // namespace xhal

extern "C" {

xhal_status xhal_correlation_push(uint64_t id) {
  return xhal::exported("xhal_correlation_push", [&] {
    auto* const c = xhal::thread_correlation().get();
    if (c == nullptr) throw std::bad_alloc();
    c->stack.push_back(id);
    return XHAL_OK;
  });
}

xhal_status xhal_correlation_pop(uint64_t* id) {
  constexpr const char* op = "xhal_correlation_pop";
  auto* const c = xhal::thread_correlation().find();
  if (c == nullptr || c->stack.empty())
    return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: nothing was pushed on this thread", op);
  auto& stack = c->stack;
  if (id != nullptr) *id = stack.back();
  stack.pop_back();
  return XHAL_OK;
}

}  // extern "C"
