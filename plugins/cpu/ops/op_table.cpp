// SPDX-License-Identifier: Apache-2.0
// op_table.cpp: from ids to kernels, and what a kernel asks of a request the catalogue has
// accepted.
#include <array>
#include <cstring>

#include "op.hpp"
#include "xhal/half.hpp"
#include "xhal/op_check.hpp"

namespace xhal::cpu {
namespace {

using PrepareTable = std::array<PrepareFn, catalogue::kIdLimit>;

// By id; nullptr where the plugin has no kernel.
const PrepareTable& prepare_table() {
  static const PrepareTable table = [] {
    PrepareTable made{};
    for (auto ops : {pointwise_ops(), copy_ops(), reduce_ops(), softmax_ops(), loss_ops(),
                     norm_ops(), random_ops(), optimizer_ops(), gemm_ops(), attention_ops(),
                     index_ops(), conv_ops(), pool_ops(), recurrent_ops(), rope_ops()})
      for (const KernelEntry& op : ops) made[op.id] = op.prepare;
    return made;
  }();
  return table;
}

// The catalogue's cost of one run; in and out are the elements of the first list that is there. A
// kernel that has already stated its flops (k, the length contracted, is only known to it) keeps
// them.
void state_cost(const catalogue::Operator& known, const OpRequest& request, Op& op) {
  for (const xhal_tensor_desc& t : std::span(request.info().operands, request.info().operand_count))
    op.bytes += static_cast<double>(element_count(t)) * static_cast<double>(t.bits / 8);
  if (op.flops != 0) return;
  const auto elements = [&](bool output) {
    double count = 0;
    for (uint32_t g = 0; g < known.group_count; ++g) {
      if (known.groups()[g].output != output || request.group(g).empty()) continue;
      for (const xhal_tensor_desc& t : request.group(g))
        count += static_cast<double>(element_count(t));
      return count;
    }
    return count;
  };
  op.flops = known.flops.of(elements(false), elements(true), 1);
}

template <class T>
T read(uint64_t address) {
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

bool read_scalar(const xhal_scalar& s, Scalar& out) {
  const auto integer = [&](int64_t v) { out = {true, v, static_cast<double>(v)}; };
  const auto real = [&](double v) { out = {false, 0, v}; };
  switch (dtype_of(s.code, s.bits)) {
    case DType::f32:
      real(read<float>(s.value.address));
      return true;
    case DType::f64:
      real(read<double>(s.value.address));
      return true;
    case DType::bf16:
      real(to_float(read<Bf16>(s.value.address)));
      return true;
    case DType::f16:
      real(to_float(read<F16>(s.value.address)));
      return true;
    case DType::i8:
      integer(read<int8_t>(s.value.address));
      return true;
    case DType::u8:
      integer(read<uint8_t>(s.value.address));
      return true;
    case DType::i16:
      integer(read<int16_t>(s.value.address));
      return true;
    case DType::i32:
      integer(read<int32_t>(s.value.address));
      return true;
    case DType::u32:
      integer(read<uint32_t>(s.value.address));
      return true;
    case DType::i64:
      integer(read<int64_t>(s.value.address));
      return true;
    case DType::boolean:
      integer(read<uint8_t>(s.value.address) != 0);
      return true;
    case DType::other:
      break;
  }
  return false;
}

}  // namespace

std::span<const xhal_tensor_desc> OpRequest::group(uint32_t index) const {
  return {info_.operands + first_operand(index), info_.group_sizes[index]};
}

uint32_t OpRequest::first_operand(uint32_t group) const {
  uint32_t first = 0;
  for (uint32_t g = 0; g < group; ++g) first += info_.group_sizes[g];
  return first;
}

const xhal_tensor_desc* OpRequest::operand(uint32_t group) const {
  const auto tensors = this->group(group);
  return tensors.empty() ? nullptr : tensors.data();
}

Prepared refuse(Refusal& refusal, xhal_status status, uint32_t operand, std::string text) {
  refusal = {status, operand, 0, std::move(text)};
  return nullptr;
}

Prepared prepare_op(const xhal_op_info& info, Refusal& refusal) {
  refusal = catalogue::check(info);
  if (refusal) return nullptr;
  const catalogue::Operator& known = *catalogue::find(info.id);
  // The catalogue says nothing of a tensor so marked, and kernels rely on what it says.
  for (uint32_t i = 0; i < info.operand_count; ++i)
    if ((info.operands[i].flags & XHAL_TENSOR_ABSENT) != 0)
      return refuse(refusal, XHAL_ERR_UNSUPPORTED, 1 + i,
                    text("operand ", i, " of `", known.name,
                         "` is marked as absent; this plugin takes no lists with gaps"));
  const PrepareFn prepare = prepare_table()[info.id];
  if (prepare == nullptr)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 0,
                  text("`", known.name, "` has no kernel in this plugin"));
  const OpRequest request(info);
  Prepared op = prepare(request, refusal);
  if (op != nullptr && op->bytes == 0) state_cost(known, request, *op);
  return op;
}

bool fill_scalars(uint32_t id, std::span<const xhal_scalar> given, Scalar (&out)[kMaxScalars]) {
  const catalogue::Operator* known = catalogue::find(id);
  if (known == nullptr || given.size() > known->scalar_count) return false;
  const auto defaults = known->scalars();
  for (size_t i = 0; i < defaults.size(); ++i) {
    if (i >= given.size()) {
      out[i] = {defaults[i].is_int, defaults[i].i, defaults[i].f};
      continue;
    }
    const xhal_scalar& s = given[i];
    if (s.kind == XHAL_SCALAR_INT) {
      out[i] = {true, s.value.i, static_cast<double>(s.value.i)};
    } else if (s.kind == XHAL_SCALAR_FLOAT) {
      out[i] = {false, 0, s.value.f};
    } else if (s.kind != XHAL_SCALAR_ADDRESS || !read_scalar(s, out[i])) {
      return false;
    }
  }
  return true;
}

std::string_view op_name(uint32_t id) {
  const catalogue::Operator* known = catalogue::find(id);
  return known == nullptr ? std::string_view{} : known->name;
}

}  // namespace xhal::cpu
