// exports.cpp: every exported function that is nothing but a slot: check the handles, adapt
// structures, call.
#include "error.hpp"
#include "object.hpp"
#include "tables.hpp"
#include "xhal/struct_check.hpp"

namespace {

// Kept out of the hot functions, so that a good call is a few instructions.
[[gnu::noinline, gnu::cold]] xhal_status bad_first(const void* object, uint32_t kind,
                                                   const char* operation) {
  return xhal::bad_handle(object, kind, operation);
}
[[gnu::noinline, gnu::cold]] xhal_status bad_second(const void* first, const void* second,
                                                    uint32_t kind, const char* operation) {
  if (!xhal::is_live(second, kind)) return xhal::bad_handle(second, kind, operation);
  return xhal::foreign_handle(first, second, operation);
}
[[gnu::noinline, gnu::cold]] xhal_status failed(xhal_status status, const void* object,
                                                const char* operation) {
  return xhal::annotate(status, object, operation);
}

[[gnu::noinline, gnu::cold]] xhal_status input_missing(const char* operation) {
  return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, operation, "{}: the info structure is NULL",
                    operation);
}

// No slot has an input structure with defaults: those that have are hosted.
template <class A>
constexpr bool is_missing(const A& argument) {
  if constexpr (std::is_pointer_v<A>) {
    using T = std::remove_pointer_t<A>;
    if constexpr (std::is_const_v<T> && xhal::structs::Versioned<T>) return argument == nullptr;
  }
  return false;
}
template <class... Args>
constexpr bool any_missing(const Args&... arguments) {
  return (is_missing(arguments) || ...);
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

#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second)                  \
  extern "C" xhal_status xhal_##name params {                                                 \
    constexpr uint32_t kind = xhal::kKindOf<std::remove_pointer_t<decltype(object)>>;         \
    if (__builtin_expect(!xhal::is_live(object, kind), 0))                                    \
      return bad_first(object, kind, "xhal_" #name);                                          \
    if (any_missing(XHAL_UNPACK args)) return input_missing("xhal_" #name);                   \
    XHAL_SECOND_##SECOND(object, second, "xhal_" #name) const auto slot =                     \
        __atomic_load_n(&xhal::head_of(object)->dispatch->name, __ATOMIC_RELAXED);            \
    const xhal_status status = xhal::structs::call(slot, XHAL_UNPACK args);                   \
    return __builtin_expect(status >= 0, 1) ? status : failed(status, object, "xhal_" #name); \
  }
#include "xhal/slots.inc"
