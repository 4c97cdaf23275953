// SPDX-License-Identifier: Apache-2.0
#include "harness/contracts.hpp"

#include <fmt/core.h>
#include <fnmatch.h>

#include <cctype>
#include <string_view>

#include "harness/catalogue.hpp"

namespace xhal::cts {
namespace {

// Where a contract stands. `asks` nullptr: the test's own name is the sentence.
struct Contract {
  const char* tests;  // display names, with * and ?
  const char* where;
  const char* asks;
};

// The first that matches counts.
constexpr Contract kContracts[] = {
    {kStart, "xhal/plugin.h",
     "xhal_plugin_negotiate and enumerate return, and leave the process alone: they do not wait, "
     "crash or exit"},
    {"outside of a test", "xhal/plugin.h (device_close, shutdown)",
     "closing a device ends by itself, and a plugin never ends the process"},
    {"Enumeration.*", "xhal/plugin.h (enumerate)",
     "it is passive: no driver call, and no thread and no descriptor is left, not even by the "
     "first"},
    {"Negotiation.*", "xhal/plugin.h (xhal_plugin_negotiate)", nullptr},
    {"Context.DestroyingOneGivesBack*", "xhal/plugin.h (context_destroy, stream_destroy)",
     "what was allocated and created in a context ends with it"},
    {"Context.*", "xhal/context.h", nullptr},
    {"Scrub.*", "xhal/plugin.h (context_scrub), xhal/context.h (XHAL_CONTEXT_SCRUB)",
     "what such a context allocated is overwritten before the memory is given back"},
    {"Device.Clock*", "xhal/device.h (xhal_device_clock)",
     "nanoseconds of the device's clock, and of CLOCK_MONOTONIC at the same moment"},
    {"Device.CanBeOpenedAgain*", "xhal/plugin.h (device_close)",
     "it stops all work, frees everything of the device and returns"},
    {"Device.*", "xhal/device.h", nullptr},
    {"Memory.AllocatingFromManyThreads*", "xhal/memory.h (xhal_memory_alloc)",
     "thread: any; every allocation is the caller's alone"},
    {"Memory.*OutOfMemory*", "xhal/memory.h (xhal_memory_alloc)",
     "OUT_OF_MEMORY when the device has no more; LIMIT is the context's quota, which libxhal "
     "counts"},
    {"Memory.*", "xhal/memory.h", nullptr},
    {"HostMemory.*", "xhal/memory.h (xhal_host_alloc, xhal_host_register)", nullptr},
    {"VirtualMemory.*", "xhal/memory.h (xhal_virtual_reserve and the others)", nullptr},
    {"Export.*", "xhal/memory.h (xhal_memory_export)", nullptr},
    {"Stream.*HostCall*", "xhal/stream.h (xhal_stream_host_call)",
     "the callback is called in stream order, exactly once for each accepted call"},
    {"Stream.Submitting*", "xhal/stream.h", "submitting never waits for other work to finish"},
    {"Stream.DestroyingItWaits*", "xhal/plugin.h (stream_destroy)",
     "it returns when the stream's work has run"},
    {"Width/FillPattern.*", "xhal/stream.h (xhal_stream_fill)",
     "the low `pattern_bytes` (1, 2, 4 or 8) of the pattern, repeated"},
    {"Stream.*", "xhal/stream.h", nullptr},
    {"*Dependent*HostCall*", "xhal/stream.h (xhal_stream_host_call)",
     "exactly once for each accepted call: with the stream's failure when it is dropped"},
    {"*Dependent*Recover*", "xhal/stream.h (xhal_stream_recover), xhal/plugin.h (stream_recover)",
     "a failed stream works again, and from now on its own timeline is `fresh`"},
    {"*Dependent*Timelines*", "xhal/plugin.h (stream_signal), xhal/host.h (timeline_fail)",
     "what a failed stream was to signal fails, with DEPENDENCY or the origin's status"},
    {"*Dependent*", "xhal/plugin.h (stream_wait), xhal/stream.h",
     "a stream that waits for a failed value fails with DEPENDENCY and the origin as its cause, "
     "and "
     "drops what is behind"},
    {"Failure.*", "xhal/stream.h, xhal/timeline.h", nullptr},
    {"OperatorFailure.*", "xhal/stream.h, xhal/host.h (timeline_fail)", nullptr},
    {"Abort.*", "xhal/stream.h (xhal_stream_abort)", nullptr},
    {"Timeline.*", "xhal/timeline.h, xhal/host.h (timeline_advance)", nullptr},
    {"Event.Timed*", "xhal/event.h (xhal_event_elapsed), xhal/host.h (xhal_timestamp)",
     "nanoseconds between two points of a stream, on a clock that runs as the host's does"},
    {"Event.*", "xhal/event.h", nullptr},
    {"Pool.*", "xhal/pool.h", nullptr},
    {"PoolLimit.*", "xhal/pool.h", nullptr},
    {"Graph.*", "xhal/graph.h", nullptr},
    {"Activity.*", "xhal/activity.h", nullptr},
    {"Claims.*", "xhal/device.h (XHAL_CAP_*)", nullptr},
    {"Structures.*", "docs/abi-policy.md, xhal/struct_check.hpp", nullptr},
    {"Handles.*", "xhal/base.h", nullptr},
    {"Errors.*", "xhal/status.h (xhal_error)", nullptr},
    {"Fork.*", "xhal/init.h", nullptr},
    {"Shutdown.*", "xhal/init.h (xhal_shutdown), xhal/plugin.h (device_close, shutdown)", nullptr},
    {"Leaks.*", "xhal/plugin.h (device_close, stream_destroy, memory_free)",
     "what is destroyed or freed leaves no thread, no descriptor and no memory behind"},
    {"Refusal.*Operand*", "xhal/status.h (xhal_error.operand), xhal/op.h (xhal_op_prepare)",
     "`operand` is 1 + the index of the operand that was refused"},
    {"Refusal.*", "xhal/op.h (xhal_op_prepare), xhal/status.h (xhal_error.text)",
     "INVALID_ARGUMENT for what contradicts the catalogue, UNSUPPORTED for what this plugin "
     "cannot, "
     "each with a text that says which and why"},
    {"CoreOperators.*Cost*", "xhal/op.h (xhal_op_properties), xhal/ops.inc",
     "flops and bytes of one launch, by the catalogue's cost formula"},
    {"CoreOperators.*Scalar*", "xhal/op.h (xhal_scalar)",
     "scalars left out have the catalogue's defaults; one given by address is read when the "
     "operator "
     "runs"},
    {"CoreOperators.*", "xhal/op.h (xhal_op_launch), xhal/ops.inc", nullptr},
    {"Core/CoreOperator.*", "xhal/ops.inc, xhal/op.h (xhal_tensor_desc)",
     "fill, strided_copy and axpby in f32 and i32, over every offset, stride and broadcast"},
};

// "AFillOfAnotherWidthIsRefused" is "a fill of another width is refused".
std::string sentence_of(std::string_view name) {
  std::string words;
  for (size_t i = 0; i < name.size(); ++i) {
    const auto c = static_cast<unsigned char>(name[i]);
    if (std::isupper(c) && i > 0) words += ' ';
    words += static_cast<char>(std::tolower(c));
  }
  return words;
}

// "gelu/f32/plain" is of the training profile.
const Operator* operator_in(const std::string& test) {
  const auto name = test.substr(0, test.find('/'));
  for (const auto& op : catalogue()) {
    if (op.name == name) return &op;
  }
  return nullptr;
}

}  // namespace

std::string contract_of(const std::string& test) {
  const auto text = [](const std::string& where, const std::string& asks) {
    return fmt::format("the contract, {}: {}", where, asks);
  };
  for (const auto& c : kContracts) {
    if (fnmatch(c.tests, test.c_str(), 0) != 0) continue;
    return text(c.where, c.asks != nullptr ? c.asks : sentence_of(test.substr(test.find('.') + 1)));
  }
  if (const auto* op = operator_in(test); op != nullptr)
    return text("xhal/ops.inc, " + op->name, op->prose);
  return text("xhal/xhal.h", sentence_of(test.substr(test.find('.') + 1)));
}

}  // namespace xhal::cts
