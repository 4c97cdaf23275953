// SPDX-License-Identifier: Apache-2.0
// xhal/struct_check.hpp: the two-number rule for structures that cross the ABI, written once for
// libxhal and plugins.
//
// Each input and output structure has the size it was first released with and the size this side
// was compiled with. An input is copied into a local of today's size, so nobody reads past what the
// caller gave; an output is filled in a local and copied back as far as the caller has room.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "xhal/plugin.h"

namespace xhal::structs {

// First released sizes. Adding a field later changes sizeof, not these numbers.
template <class T>
inline constexpr uint32_t kFirstSize = 0;  // 0: not a versioned structure
template <>
inline constexpr uint32_t kFirstSize<xhal_init_info> = 32;
template <>
inline constexpr uint32_t kFirstSize<xhal_device_open_info> = 32;
template <>
inline constexpr uint32_t kFirstSize<xhal_context_info> = 32;
template <>
inline constexpr uint32_t kFirstSize<xhal_memory_info> = 40;
template <>
inline constexpr uint32_t kFirstSize<xhal_stream_info> = 24;
template <>
inline constexpr uint32_t kFirstSize<xhal_stream_properties> = 16;
template <>
inline constexpr uint32_t kFirstSize<xhal_pool_info> = 32;
template <>
inline constexpr uint32_t kFirstSize<xhal_pool_stats> = 112;
template <>
inline constexpr uint32_t kFirstSize<xhal_op_info> = 64;
template <>
inline constexpr uint32_t kFirstSize<xhal_op_properties> = 32;
template <>
inline constexpr uint32_t kFirstSize<xhal_module_info> = 80;
template <>
inline constexpr uint32_t kFirstSize<xhal_kernel_properties> = 40;
template <>
inline constexpr uint32_t kFirstSize<xhal_grid> = 32;
template <>
inline constexpr uint32_t kFirstSize<xhal_error> = 120;

template <class T>
concept Versioned = (kFirstSize<std::remove_const_t<T>> != 0);

// No structure of this ABI is larger; a larger struct_size is memory that nobody has initialised.
inline constexpr uint32_t kLargestSize = 4096;
// No chain is longer; a longer one is a circle.
inline constexpr uint32_t kLongestChain = 64;

template <class T>
constexpr bool is_size(uint32_t struct_size) {
  return struct_size >= kFirstSize<std::remove_const_t<T>> && struct_size <= kLargestSize;
}

// Whether this side is the last that reads a structure: then it refuses what it does not know of
// the `next` chain; otherwise it hands the chain on.
enum class Chains { refuse, pass };

// Which chained structures the last reader knows: none, unless it says otherwise.
using KnowsChain = bool (*)(uint32_t type);
inline bool knows_none(uint32_t) { return false; }

inline xhal_status check_chain(const xhal_chain* chain, Chains chains = Chains::refuse,
                               KnowsChain knows = knows_none) {
  for (uint32_t length = 0; chain != nullptr; chain = chain->next) {
    if (chain->struct_size < sizeof(xhal_chain)) return XHAL_ERR_STRUCT_SIZE;
    if (++length > kLongestChain) return XHAL_ERR_UNKNOWN_STRUCT;
    const bool ignorable = (chain->type & XHAL_STRUCT_IGNORABLE) != 0;
    if (chains == Chains::refuse && !ignorable && !knows(chain->type))
      return XHAL_ERR_UNKNOWN_STRUCT;
  }
  return XHAL_OK;
}

// Copies the caller's structure into `local`, zero-extended; refuses sizes and tails the rule
// does not allow.
template <Versioned T>
xhal_status read(const T* given, T& local, Chains chains = Chains::refuse,
                 KnowsChain knows = knows_none) {
  std::memset(&local, 0, sizeof(T));
  if (given == nullptr) {
    local.struct_size = sizeof(T);
    return XHAL_OK;
  }
  const uint32_t size = given->struct_size;
  if (!is_size<T>(size)) return XHAL_ERR_STRUCT_SIZE;
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (uint32_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] != 0) return XHAL_ERR_UNKNOWN_FIELD;
  }
  std::memcpy(&local, given, size < sizeof(T) ? size : sizeof(T));
  local.struct_size = sizeof(T);
  if constexpr (requires { local.next; }) {
    if (local.type != 0) return XHAL_ERR_UNKNOWN_FIELD;
    return check_chain(local.next, chains, knows);
  }
  return XHAL_OK;
}

// Copies `local` back as far as the caller has room and zeroes what this side does not know.
template <Versioned T>
void write(const T& local, T* given) {
  const uint32_t size = given->struct_size;
  const uint32_t known = size < sizeof(T) ? size : static_cast<uint32_t>(sizeof(T));
  auto* bytes = reinterpret_cast<unsigned char*>(given);
  std::memcpy(bytes + 4, reinterpret_cast<const unsigned char*>(&local) + 4, known - 4);
  if (size > known) std::memset(bytes + known, 0, size - known);
}

// One argument of a slot on its way through: plain values pass, structures are read before and
// written after the call.
template <class A>
struct Argument {
  A value;
  explicit Argument(A a) : value(a) {}
  xhal_status begin(Chains, KnowsChain) { return XHAL_OK; }
  A get() { return value; }
  void end() {}
};
template <Versioned T>
requires(!std::is_const_v<T>) struct Argument<const T*> {
  const T* given;
  T local;
  explicit Argument(const T* g) : given(g) {}
  xhal_status begin(Chains chains, KnowsChain knows) { return read(given, local, chains, knows); }
  const T* get() { return given == nullptr ? nullptr : &local; }
  void end() {}
};
template <Versioned T>
requires(!std::is_const_v<T>) struct Argument<T*> {
  T* given;
  T local;
  explicit Argument(T* g) : given(g) {}
  xhal_status begin(Chains, KnowsChain) {
    std::memset(&local, 0, sizeof(T));
    local.struct_size = sizeof(T);
    return given != nullptr && !is_size<T>(given->struct_size) ? XHAL_ERR_STRUCT_SIZE : XHAL_OK;
  }
  T* get() { return given == nullptr ? nullptr : &local; }
  void end() {
    if (given != nullptr) write(local, given);
  }
};

template <class A>
inline constexpr bool kPlain = !(std::is_pointer_v<A> && Versioned<std::remove_pointer_t<A>>);

// Calls `function(first, arguments...)` with every structure checked and adapted.
template <class F, class First, class... Args>
xhal_status call(Chains chains, KnowsChain knows, F&& function, First first, Args... arguments) {
  if constexpr ((kPlain<Args> && ...)) {
    return function(first, arguments...);
  } else {
    return [&](Argument<Args>... adapted) -> xhal_status {
      xhal_status status = XHAL_OK;
      (void)((status = adapted.begin(chains, knows), status == XHAL_OK) && ...);
      if (status != XHAL_OK) return status;
      status = function(first, adapted.get()...);
      if (status == XHAL_OK) (adapted.end(), ...);
      return status;
    }(Argument<Args>(arguments)...);
  }
}

}  // namespace xhal::structs
