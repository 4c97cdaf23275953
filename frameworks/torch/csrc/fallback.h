// SPDX-License-Identifier: Apache-2.0
// fallback.h: operators that run on the host because the device lacks them: named
// once, counted, switchable.
//
// XHAL_FALLBACK=warn (default: each operator named once on stderr) | error (raises) | silent.
// Counted in every mode. A fallback drains the stream by copying its operands over it; device
// memory is never touched by the host.
#pragma once

#include <ATen/native/CPUFallback.h>

#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace xhal_torch {

void host_fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// Counts a fallback that does not come through the dispatcher, and warns or raises as set. Called
// once the operator has run on the host copies: what that raises is about the call, not the device.
void note_fallback(const char* name, std::string_view why);

// Why an operator that has a kernel runs on the host, where the kernel has not told: `foreign` is a
// type in the call that is not the device's, or Undefined.
std::string host_reason(c10::ScalarType foreign);

std::map<std::string, uint64_t> fallback_counts();
void reset_fallback_counts();

// Remembers, for this thread's next fallback, why the device refused.
void set_refusal(std::string_view why);
std::string take_refusal();

// Runs a native kernel's operator on the host instead, after the device has refused it.
template <class Op, class... Args>
decltype(auto) on_host(Args&&... args) {
  return at::native::call_fallback_fn<&host_fallback, Op>::call(std::forward<Args>(args)...);
}

}  // namespace xhal_torch
