// SPDX-License-Identifier: Apache-2.0
// validate.cpp: checks that are too slow to be on by default: live handles everywhere, addresses
// inside allocations, operands that overlap where the operator does not allow it. Destroyed objects
// are never used again while it is on, so every stale handle is found.
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string_view>
#include <vector>

#include "core/locks.hpp"
#include "core/tables.hpp"
#include "layers/layer_tables.hpp"
#include "memory/address_check.hpp"
#include "memory/copy.hpp"
#include "memory/host_registration.hpp"

namespace xhal {
namespace {

constexpr std::string_view kAliasRules[] = {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
  alias,
#include "xhal/ops.inc"
#undef XHAL_OP
};
constexpr uint32_t kOpIds[] = {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
  id,
#include "xhal/ops.inc"
#undef XHAL_OP
};
constexpr const char* kOpNames[] = {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
#name,
#include "xhal/ops.inc"
#undef XHAL_OP
};
constexpr uint32_t kInputGroups[] = {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
  [] {                                                                                 \
    uint32_t n = 0;                                                                    \
    for (char c : std::string_view(inputs)) n += c == ':';                             \
    return n;                                                                          \
  }(),
#include "xhal/ops.inc"
#undef XHAL_OP
};

int catalogue_index(uint32_t id) {
  for (size_t i = 0; i < std::size(kOpIds); ++i) {
    if (kOpIds[i] == id) return static_cast<int>(i);
  }
  return -1;
}

// What op_prepare was told, for checking launches.
struct Prepared {
  int catalogue;
  std::vector<xhal_tensor_desc> operands;
  uint32_t inputs;
};

struct PreparedOps {
  std::shared_mutex mutex;
  std::map<const void*, Prepared> ops;
};
PreparedOps& prepared() {
  static auto* p = new PreparedOps;
  return *p;
}
const AtLoad prepared_at_load(prepared);

// First and one-past-last byte a tensor touches.
void extent(const xhal_tensor_desc& t, uint64_t address, uint64_t* low, uint64_t* high) {
  int64_t first = t.offset_elements, last = t.offset_elements;
  for (uint32_t d = 0; d < t.ndim; ++d) {
    const int64_t reach = (t.sizes[d] - 1) * t.strides[d];
    (reach < 0 ? first : last) += reach;
  }
  const auto bytes = static_cast<int64_t>((t.bits + 7) / 8);
  *low = address + static_cast<uint64_t>(first * bytes);
  *high = address + static_cast<uint64_t>((last + 1) * bytes);
}

bool is_empty(const xhal_tensor_desc& t) {
  for (uint32_t d = 0; d < t.ndim; ++d) {
    if (t.sizes[d] == 0) return true;
  }
  return (t.flags & XHAL_TENSOR_ABSENT) != 0;
}

bool same_view(const xhal_tensor_desc& a, uint64_t at_a, const xhal_tensor_desc& b, uint64_t at_b) {
  if (at_a != at_b || a.ndim != b.ndim || a.bits != b.bits ||
      a.offset_elements != b.offset_elements)
    return false;
  for (uint32_t d = 0; d < a.ndim; ++d) {
    if (a.sizes[d] != b.sizes[d] || (a.sizes[d] > 1 && a.strides[d] != b.strides[d])) return false;
  }
  return true;
}

// A piece of memory that work on a stream is given by its address. `what`: "operand 2".
//
// What is held back is given to the device later, when its pool may have the block back already, as
// it may have with queued work: then only allocations are looked at.
xhal_status check_operand(xhal_stream* stream, uint64_t low, uint64_t high, const char* name,
                          const char* what) {
  auto& side = *state_of(stream);
  auto& record = *side.device;
  auto range = address_map().find(low);
  if (!range) range = registered_memory(*side.context->memory, low);
  if (!range || high > range->end()) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, name, "{}: {} spans {:#x} to {:#x}, {}", name, what, low,
                high,
                range ? fmt::format("beyond its allocation, which ends at {:#x}", range->end())
                      : "which is not memory of any device");
  }
  if (range->device != nullptr && range->device != record.device &&
      range->kind != XHAL_MEMORY_HOST) {
    uint32_t access = 0;
    auto& owner = *private_of(range->device)->device;
    const bool peer =
        record.plugin == owner.plugin &&
        record.raw.device_peer_query(record.device, owner.device, &access) == XHAL_OK &&
        (access & XHAL_PEER_ACCESS) != 0;
    if (!peer) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, name,
                  "{}: {} at {:#x} is memory of {}, the stream is of {}", name, what, low,
                  owner.id(), record.id());
    }
  }
  if (const auto s = check_owner(*side.context, *range, name, what); s != XHAL_OK) return s;
  const bool held = dispatch_of(stream) != &record.table;
  return held ? XHAL_OK : check_block(*range, low, high - low, name, what);
}

xhal_status check_launch(xhal_stream* stream, const Prepared& op, const uint64_t* addresses,
                         uint32_t count, uint64_t workspace, uint64_t workspace_bytes) {
  const char* name = op.catalogue < 0 ? "operator" : kOpNames[op.catalogue];
  if (count != op.operands.size() || (addresses == nullptr && count > 0)) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, name,
                "{}: {} addresses given, it was prepared with {} operands", name, count,
                op.operands.size());
  }
  std::vector<std::pair<uint64_t, uint64_t>> extents(count);
  for (uint32_t i = 0; i < count; ++i) {
    const auto& t = op.operands[i];
    if (is_empty(t)) continue;
    extent(t, addresses[i], &extents[i].first, &extents[i].second);
    const auto s = check_operand(stream, extents[i].first, extents[i].second, name,
                                 fmt::format("operand {}", i).c_str());
    if (s != XHAL_OK) return s;
  }
  if (workspace_bytes > 0) {
    const auto s =
        check_operand(stream, workspace, workspace + workspace_bytes, name, "the workspace");
    if (s != XHAL_OK) return s;
  }
  const bool any_alias = op.catalogue >= 0 && kAliasRules[op.catalogue].size() > 0;
  for (uint32_t o = op.inputs; o < count; ++o) {
    if (is_empty(op.operands[o])) continue;
    for (uint32_t i = 0; i < count; ++i) {
      if (i == o || is_empty(op.operands[i])) continue;
      const bool overlap =
          extents[i].first < extents[o].second && extents[o].first < extents[i].second;
      if (!overlap) continue;
      const bool in_place = any_alias && i < op.inputs &&
                            same_view(op.operands[i], addresses[i], op.operands[o], addresses[o]);
      if (in_place) continue;
      // Interleaved views of one allocation touch different elements although their extents cross.
      const bool strided =
          op.operands[i].ndim > 1 && op.operands[o].ndim > 1 && addresses[i] != addresses[o];
      if (strided) continue;
      return fail(XHAL_ERR_OVERLAP, name,
                  "{}: output {} overlaps operand {} ({:#x} to {:#x}), and the catalogue allows {}",
                  name, o, i, extents[i].first, extents[i].second,
                  any_alias
                      ? fmt::format("only \"{}\" with the same layout", kAliasRules[op.catalogue])
                      : "no alias");
    }
  }
  return XHAL_OK;
}

template <class Arg>
xhal_status check_handle(Arg, const char*) {
  return XHAL_OK;
}
template <class T>
requires(kKindOf<T> != 0) xhal_status check_handle(T* handle, const char* name) {
  return is_live(handle, kKindOf<T>) ? XHAL_OK : bad_handle(handle, kKindOf<T>, name);
}

struct Validate {
  template <SlotName kName, class Slot, class Handle, class... Rest>
  static xhal_status around(DeviceRecord& record, Slot next, Handle* handle,
                            Rest... rest) noexcept {
    constexpr std::string_view name = kName.text;
    xhal_status status = check_handle(handle, kName.text);
    (void)((status == XHAL_OK && (status = check_handle(rest, kName.text), true)) && ...);
    if (status != XHAL_OK) return status;
    if constexpr (name == "xhal_op_launch") {
      status = launch(record, handle, rest...);
      if (status != XHAL_OK) return status;
    }
    if constexpr (name == "xhal_kernel_launch") {
      status = check_arguments(handle, rest...);
      if (status != XHAL_OK) return status;
    }
    status = next(handle, rest...);
    if constexpr (name == "xhal_op_prepare") {
      if (status == XHAL_OK) remember(rest...);
    }
    if constexpr (name == "xhal_op_destroy") {
      const std::unique_lock lock(prepared().mutex);
      prepared().ops.erase(handle);
    }
    return status;
  }

  static void remember(const xhal_op_info* info, xhal_op** op) noexcept {
    try {
      Prepared p{
          catalogue_index(info->id), {info->operands, info->operands + info->operand_count}, 0};
      if (p.catalogue >= 0) {
        for (uint32_t g = 0; g < kInputGroups[p.catalogue] && g < info->group_count; ++g)
          p.inputs += info->group_sizes[g];
      }
      const std::unique_lock lock(prepared().mutex);
      prepared().ops[*op] = std::move(p);
    } catch (...) {  // not remembered: its launches are not checked
    }
  }

  // How much of it a kernel touches is not known, so only where an address points is looked at.
  static xhal_status check_arguments(xhal_stream* stream, xhal_kernel*, const xhal_grid*,
                                     const xhal_kernel_arg* args, uint32_t count) noexcept {
    constexpr const char* op = "xhal_kernel_launch";
    return guarded(op, [&]() -> xhal_status {
      const auto& record = *state_of(stream)->device;
      for (uint32_t i = 0; args != nullptr && i < count; ++i) {
        const uint64_t address = args[i].value.bits;
        if (args[i].kind != XHAL_ARG_ADDRESS || address == 0) continue;
        const auto what = fmt::format("argument {}", i);
        const bool known = address_map().find(address).has_value() ||
                           registered_memory(*state_of(stream)->context->memory, address);
        const auto s = !known && record.has(XHAL_CAP_HOST_VISIBLE)
                           ? check_host_memory(address, 1, op, what.c_str())
                           : check_operand(stream, address, address + 1, op, what.c_str());
        if (s != XHAL_OK) return s;
      }
      return XHAL_OK;
    });
  }

  static xhal_status launch(DeviceRecord& record, xhal_stream* stream, xhal_op* op,
                            const uint64_t* addresses, uint32_t count, const xhal_scalar* scalars,
                            uint32_t scalar_count, uint64_t workspace) noexcept {
    if (scalars == nullptr && scalar_count > 0) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, "xhal_op_launch",
                  "xhal_op_launch: {} scalars, but the array is NULL", scalar_count);
    }
    if (private_of(op)->device != &record) {
      return fail(XHAL_ERR_FOREIGN_HANDLE, "xhal_op_launch",
                  "xhal_op_launch: the operator was prepared on {}, the stream "
                  "is of {}",
                  private_of(op)->device->id(), record.id());
    }
    return guarded("xhal_op_launch", [&]() -> xhal_status {
      xhal_op_properties properties{};
      properties.struct_size = sizeof properties;
      record.raw.op_query(op, &properties, nullptr, 0);
      const std::shared_lock lock(prepared().mutex);
      const auto it = prepared().ops.find(op);
      if (it == prepared().ops.end()) return XHAL_OK;
      return check_launch(stream, it->second, addresses, count, workspace,
                          properties.workspace_bytes);
    });
  }
};

}  // namespace

void wrap_validate(xhal_dispatch& table) { wrap_table<Validate, Layer::validate>(table); }

}  // namespace xhal
