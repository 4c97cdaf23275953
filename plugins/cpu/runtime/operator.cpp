// SPDX-License-Identifier: Apache-2.0
#include "operator.hpp"

#include <algorithm>
#include <cstring>

#include "device.hpp"
#include "xhal/catalogue.hpp"

namespace xhal::cpu {
namespace {

// What a core does in a nanosecond, roughly: enough to tell small from large before the first run.
constexpr double kFlopsANs = 30, kBytesANs = 10, kLeastNs = 100;

// For each operand what xhal_operand_need.may_alias says of it.
std::vector<uint32_t> aliases_of(const catalogue::Operator& known, const xhal_op_info& info) {
  std::vector<uint32_t> aliases(info.operand_count, 0);
  const std::span sizes(info.group_sizes, info.group_count);
  for (uint32_t i = known.inputs_in(sizes); i < info.operand_count; ++i) {
    known.for_each_alias(sizes, i, [&](uint32_t input) {
      if (aliases[i] == 0) aliases[i] = input + 1;
    });
  }
  return aliases;
}

}  // namespace

void CostEstimate::guess(double flops, double bytes) {
  const double ns = kLeastNs + std::max(flops / kFlopsANs, bytes / kBytesANs);
  ns_.store(static_cast<uint32_t>(std::min(ns, 4e9)), std::memory_order_relaxed);
}

void CostEstimate::add(uint32_t ns) {
  const uint32_t old = ns_.load(std::memory_order_relaxed);
  ns_.store(old + std::min(ns, UINT32_MAX - old), std::memory_order_relaxed);
}

void CostEstimate::measured(uint64_t ticks, uint32_t helpers) {
  const auto ns =
      static_cast<uint32_t>(std::min<uint64_t>(ns_of(ticks) * (1 + helpers), UINT32_MAX));
  const uint32_t old = ns_.load(std::memory_order_relaxed);
  // Down at once, up slowly: a run that lost its core for a while says little about the operator.
  ns_.store(ns < old ? ns : old + std::min(ns - old, old / 4 + 16), std::memory_order_relaxed);
}

void PreparedOp::resolve(const Memory& memory, const uint64_t* addresses, void** pointers) const {
  if (as_is && !memory.guarded()) {
    std::memcpy(static_cast<void*>(pointers), addresses, operand_count * sizeof(uint64_t));
    return;
  }
  for (uint32_t i = 0; i < operand_count; ++i) {
    pointers[i] = addresses[i] == 0
                      ? nullptr
                      : static_cast<char*>(memory.translate(addresses[i])) + offsets_bytes[i];
  }
}

const char* check_launch(const PreparedOp& op, const uint64_t* addresses, uint32_t address_count,
                         const xhal_scalar* scalars, uint32_t scalar_count, uint64_t workspace,
                         bool* by_address) {
  if (address_count != op.operand_count)
    return "the number of addresses is not the number of operands prepared";
  if (scalar_count > op.scalar_count) return "more scalars are given than the catalogue names";
  if ((addresses == nullptr && address_count != 0) || (scalars == nullptr && scalar_count != 0)) {
    return "an array is NULL but its count is not 0";
  }
  for (uint32_t i = 0; i < address_count; ++i) {
    if (addresses[i] == 0 && !op.is_empty[i])
      return "an operand that has elements is given address 0";
  }
  for (uint32_t i = 0; i < scalar_count; ++i) {
    const xhal_scalar& s = scalars[i];
    if (s.kind > XHAL_SCALAR_ADDRESS) return "a scalar is of no known kind";
    if (s.kind != XHAL_SCALAR_ADDRESS) continue;
    if (s.value.address == 0 || dtype_of(s.code, s.bits) == DType::other) {
      return "a scalar by address has address 0 or a format it cannot be read from";
    }
    *by_address = true;
  }
  if (workspace == 0 && op.op->workspace_bytes != 0) return "it needs workspace and is given none";
  return nullptr;
}

void read_scalars(const PreparedOp& op, const Memory& memory, const xhal_scalar* given,
                  uint32_t count, Scalar (&values)[kMaxScalars]) {
  xhal_scalar seen[kMaxScalars];
  if (memory.guarded()) {
    for (uint32_t i = 0; i < count; ++i) {
      seen[i] = given[i];
      if (seen[i].kind != XHAL_SCALAR_ADDRESS) continue;
      seen[i].value.address = reinterpret_cast<uint64_t>(memory.translate(seen[i].value.address));
    }
    given = seen;
  }
  fill_scalars(op.id, {given, count}, values);
}

void prepare_operator(Device& device, const xhal_op_info& info, xhal_op** handle) {
  Refusal refusal;
  auto shared = std::make_shared<PreparedOp>();
  shared->op = prepare_op(info, refusal);
  if (shared->op == nullptr) throw plugin::Error(refusal.status, refusal.text, refusal.operand);
  const catalogue::Operator& known = *catalogue::find(info.id);
  shared->id = info.id;
  shared->name = known.name;
  shared->operand_count = info.operand_count;
  shared->scalar_count = known.scalar_count;
  shared->cost.guess(shared->op->flops, shared->op->bytes);
  for (uint32_t i = 0; i < info.operand_count; ++i) {
    const xhal_tensor_desc& t = info.operands[i];
    const int64_t offset = t.offset_elements * (t.bits / 8);
    shared->offsets_bytes.push_back(offset);
    shared->is_empty.push_back(element_count(t) == 0);
    shared->as_is = shared->as_is && offset == 0;
  }
  auto* op =
      plugin::make<OpHandle>(device.table(), XHAL_KIND_OP, handle, device, std::move(shared));
  op->aliases = aliases_of(known, info);
  op->deterministic =
      known.determinism != catalogue::Determinism::no || (info.flags & XHAL_OP_DETERMINISTIC) != 0;
  device.own(op);
}

xhal_status OpHandle::query(xhal_op_properties* properties, xhal_operand_need* needs,
                            uint32_t need_capacity) {
  if (properties == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "the properties pointer is NULL");
  if (needs != nullptr && need_capacity < shared->operand_count) {
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT,
                        "there is room for fewer needs than the operator has operands");
  }
  properties->flags =
      XHAL_OP_IS_CAPTURABLE | (deterministic ? uint32_t{XHAL_OP_IS_DETERMINISTIC} : 0);
  properties->workspace_bytes = shared->op->workspace_bytes;
  properties->flops = shared->op->flops;
  properties->bytes = shared->op->bytes;
  for (uint32_t i = 0; needs != nullptr && i < shared->operand_count; ++i) {
    needs[i] = {};
    needs[i].need = XHAL_NEED_AS_IS;
    needs[i].may_alias = aliases[i];
  }
  return XHAL_OK;
}

xhal_status OpHandle::destroy() {
  device.disown(this);
  device.retire(std::move(shared));
  return plugin::destroy(this);
}

}  // namespace xhal::cpu
