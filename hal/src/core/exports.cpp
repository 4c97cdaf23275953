// SPDX-License-Identifier: Apache-2.0
// exports.cpp: every exported function that is nothing but a slot: check the handles and
// pointers, adapt structures, call.
#include "core/argument_check.hpp"
#include "core/error.hpp"
#include "core/object.hpp"
#include "core/tables.hpp"
#include "xhal/catalogue.hpp"
#include "xhal/struct_check.hpp"

namespace {

// Kept out of the hot functions, so that a good call is a few instructions.
[[gnu::noinline, gnu::cold]] xhal_status bad_first(const void* object, uint32_t kind,
                                                   const char* operation) {
  return xhal::bad_handle(object, kind, operation);
}
// A refused submission also ends the hope of a capture. end_capture and recover are hosted, so what
// a stream is the object of here is a submission.
[[gnu::noinline, gnu::cold]] xhal_status refused(xhal_status status, const void* object) {
  xhal::submission_refused(object);
  return status;
}
[[gnu::noinline, gnu::cold]] xhal_status bad_second(const void* first, const void* second,
                                                    uint32_t kind, const char* operation) {
  return refused(xhal::is_live(second, kind) ? xhal::foreign_handle(first, second, operation)
                                             : xhal::bad_handle(second, kind, operation),
                 first);
}
[[gnu::noinline, gnu::cold]] xhal_status failed(xhal_status status, const void* object,
                                                const char* operation) {
  return xhal::submitted(status, object, operation);
}

template <auto kRules, class... Args>
[[gnu::noinline, gnu::cold]] xhal_status refuse_missing(const void* object, const char* operation,
                                                        std::string_view names, Args... args) {
  return refused(xhal::refuse_null(operation, xhal::missing_argument<kRules>(names, args...)),
                 object);
}

// The plugin is the last reader of `next` chains.
template <class Slot, class... Args>
xhal_status call_slot(Slot slot, Args... args) {
  return xhal::structs::call(xhal::structs::Chains::pass, xhal::structs::knows_none, slot, args...);
}

uint32_t scalar_limit(uint32_t id) {
  const auto* op = xhal::catalogue::find(id);
  return op == nullptr ? UINT32_MAX : op->scalar_count;  // a vendor's own may have any number
}

// What libxhal remembers of a successful call: how many operands an operator has, to refuse a
// launch that it holds back.
template <class... Args>
void remember(Args...) {}
void remember(xhal_context*, const xhal_op_info* info, xhal_op** op) {
  if (!xhal::is_live(*op, XHAL_KIND_OP)) return;
  xhal::private_of(*op)->operand_count = info->operand_count;
  xhal::private_of(*op)->scalar_limit = scalar_limit(info->id);
}

template <class... Args>
constexpr xhal::Unknown unknown_bits(Args...) {
  return {};
}
xhal::Unknown unknown_bits(xhal_context*, const xhal_op_info* info, xhal_op**) {
  if (!xhal::structs::is_size<xhal_op_info>(info->struct_size)) return {};
  if (const uint32_t flags = info->flags & ~uint32_t{XHAL_OP_DETERMINISTIC}; flags != 0)
    return {flags};
  for (uint32_t i = 0; i < info->operand_count; ++i) {
    const auto& t = info->operands[i];
    constexpr uint32_t kKnown = XHAL_TENSOR_ABSENT | XHAL_TENSOR_BOUNDED;
    if (const uint32_t flags = t.flags & ~kKnown; flags != 0)
      return {flags, "the flags of an operand"};
    for (const uint64_t word : t.reserved) {
      if (word != 0) return {word, "the reserved part of an operand"};
    }
  }
  return {};
}
xhal::Unknown unknown_bits(xhal_stream*, xhal_host_fn, void*, uint32_t flags) {
  return {flags & ~uint32_t{XHAL_HOST_CALL_NON_BLOCKING}};
}

}  // namespace

#define XHAL_UNPACK(...) __VA_ARGS__
#define XHAL_SECOND_NONE(first, second, operation)
#define XHAL_SECOND_OF(kind, first, second, operation)                                    \
  if (__builtin_expect(!xhal::is_live(second, kind) ||                                    \
                           xhal::head_of(second)->plugin != xhal::head_of(first)->plugin, \
                       0)) {                                                              \
    return bad_second(first, second, kind, operation);                                    \
  }
#define XHAL_SECOND_OP(first, second, operation) \
  XHAL_SECOND_OF(XHAL_KIND_OP, first, second, operation)
#define XHAL_SECOND_KERNEL(first, second, operation) \
  XHAL_SECOND_OF(XHAL_KIND_KERNEL, first, second, operation)
#define XHAL_SECOND_GRAPH(first, second, operation) \
  XHAL_SECOND_OF(XHAL_KIND_GRAPH, first, second, operation)
#define XHAL_SECOND_DEVICE(first, second, operation) \
  XHAL_SECOND_OF(XHAL_KIND_DEVICE, first, second, operation)

#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second)                       \
  extern "C" xhal_status xhal_##name params {                                                      \
    constexpr uint32_t kind = xhal::kKindOf<std::remove_pointer_t<decltype(object)>>;              \
    if (__builtin_expect(!xhal::is_live(object, kind), 0))                                         \
      return bad_first(object, kind, "xhal_" #name);                                               \
    constexpr auto nulls = xhal::nulls::rules(&xhal_##name, "xhal_" #name, #args);                 \
    if (__builtin_expect(xhal::lacks_argument<nulls>(XHAL_UNPACK args), 0))                        \
      return refuse_missing<nulls>(object, "xhal_" #name, #args, XHAL_UNPACK args);                \
    XHAL_SECOND_##SECOND(                                                                          \
        object, second,                                                                            \
        "xhal_" #name) if (const auto unknown = unknown_bits(XHAL_UNPACK args);                    \
                           __builtin_expect(unknown.bits != 0,                                     \
                                            0)) return refused(xhal::refuse_unknown("xhal_" #name, \
                                                                                    unknown),      \
                                                               object);                            \
    const auto slot = xhal::load_slot(xhal::dispatch_of(object)->name);                            \
    const xhal_status status = call_slot(slot, XHAL_UNPACK args);                                  \
    if (__builtin_expect(status < 0, 0)) return failed(status, object, "xhal_" #name);             \
    remember(XHAL_UNPACK args);                                                                    \
    return status;                                                                                 \
  }
#include "xhal/slots.inc"
