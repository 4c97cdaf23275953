// SPDX-License-Identifier: Apache-2.0
#include "copy.h"

#include <ATen/ExpandUtils.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/view_as_real.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "allocator.h"
#include "capture.h"
#include "fallback.h"
#include "op_call.h"
#include "operands.h"
#include "views.h"

namespace xhal_torch {
namespace {

// Same bytes in the same order: one plain copy does.
bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes().equals(b.sizes()) &&
         ((a.is_contiguous() && b.is_contiguous()) ||
          (a.is_non_overlapping_and_dense() && a.strides().equals(b.strides())));
}

void copy_bytes(xhal_stream* stream, const at::Tensor& dst, const at::Tensor& src) {
  check(xhal_stream_copy(stream, address_of(dst), address_of(src), src.nbytes()),
        "copying a tensor");
}

// Views as a type of the same width that the device can move, or of half the width with
// one more dimension.
at::Tensor as_movable(const at::Tensor& tensor) {
  const auto width = same_width(tensor.scalar_type());
  if (width == tensor.scalar_type()) return tensor;
  if (width != c10::ScalarType::Undefined) return reinterpret_as(tensor, width);
  TORCH_CHECK_NOT_IMPLEMENTED(tensor.itemsize() == 2 * c10::elementSize(at::kLong),
                              "xhal cannot move elements of ", tensor.scalar_type(), ": they have ",
                              tensor.itemsize(), " bytes");
  return reinterpret_as_pairs(tensor, at::kLong);
}

at::Tensor contiguous_as(const at::Tensor& tensor, c10::ScalarType type, bool pinned = false) {
  if (tensor.is_contiguous() && tensor.scalar_type() == type) return tensor;
  at::Tensor made = at::empty(tensor.sizes(), tensor.options()
                                                  .dtype(type)
                                                  .memory_format(at::MemoryFormat::Contiguous)
                                                  .pinned_memory(pinned));
  if (tensor.is_cpu()) {
    made.copy_(tensor);
  } else {
    copy_on_device(tensor, made);
  }
  return made;
}

// Whether the device converts: only between types it computes with, and when that makes
// less to move.
bool converts_on_device(const at::Tensor& src, const at::Tensor& dst) {
  if (!is_native(src.scalar_type()) || !is_native(dst.scalar_type())) return false;
  return src.is_cpu() ? src.element_size() < dst.element_size()
                      : src.element_size() > dst.element_size();
}

// Copies that need not wait for the device although nobody keeps their source: so small that a copy
// of it in pinned memory costs less than a wait.
constexpr size_t kMostStagedBytes = 64 << 10;

bool copy_staged(xhal_stream* stream, DeviceIndex index, const at::Tensor& dst,
                 const at::Tensor& src) {
  // A graph would repeat the value of now, not of the replay.
  if (src.nbytes() > kMostStagedBytes || capture_of(index, stream)) return false;
  const c10::DataPtr staged = pinned_allocator()->allocate(src.nbytes());
  std::memcpy(staged.get(), src.const_data_ptr(), src.nbytes());
  check(xhal_stream_copy(stream, address_of(dst), reinterpret_cast<uint64_t>(staged.get()),
                         src.nbytes()),
        "copying a tensor");
  if (!record_pinned_use(staged.get(), index, stream))
    check(xhal_stream_synchronize(stream, XHAL_FOREVER), "copying a tensor to the device");
  return true;
}

void host_to_device(const at::Tensor& src, const at::Tensor& dst, bool non_blocking) {
  const DeviceIndex index = dst.device().index();
  xhal_stream* stream = launch_stream(index);
  if (!same_layout(src, dst)) {
    // What is made of it here is pinned, so that it needs no wait either.
    const bool pinned = non_blocking && !capture_of(index, stream);
    const at::Tensor host = contiguous_as(
        src, converts_on_device(src, dst) ? src.scalar_type() : dst.scalar_type(), pinned);
    non_blocking = host.is_same(src) ? non_blocking : pinned;
    if (same_layout(host, dst)) return host_to_device(host, dst, non_blocking);
    at::Tensor staged =
        at::empty(host.sizes(), host.options().device(dst.device()).pinned_memory(false));
    host_to_device(host, staged, non_blocking);
    return copy_on_device(staged, dst);
  }
  if (non_blocking && !is_pinned(src.const_data_ptr()) && copy_staged(stream, index, dst, src))
    return;
  copy_bytes(stream, dst, src);
  if (non_blocking && record_pinned_use(src.const_data_ptr(), index, stream)) return;
  check(xhal_stream_synchronize(stream, XHAL_FOREVER), "copying a tensor to the device");
}

void device_to_host(const at::Tensor& src, const at::Tensor& dst, bool non_blocking) {
  const DeviceIndex index = src.device().index();
  xhal_stream* stream = launch_stream(index);
  if (!same_layout(src, dst)) {
    const at::Tensor packed =
        contiguous_as(src, converts_on_device(src, dst) ? dst.scalar_type() : src.scalar_type());
    if (same_layout(packed, dst)) return device_to_host(packed, dst, non_blocking);
    at::Tensor host = at::empty(packed.sizes(), packed.options().device(c10::kCPU));
    device_to_host(packed, host, false);
    dst.copy_(host);
    return;
  }
  copy_bytes(stream, dst, src);
  if (non_blocking && record_pinned_use(dst.const_data_ptr(), index, stream)) return;
  check(xhal_stream_synchronize(stream, XHAL_FOREVER), "copying a tensor to the host");
}

// The copy runs on the destination's stream, after what was queued on both.
void between_devices(const at::Tensor& src, const at::Tensor& dst) {
  const at::Tensor packed = same_layout(src, dst) ? src : contiguous_as(src, dst.scalar_type());
  at::Tensor landing = same_layout(packed, dst)
                           ? dst
                           : at::empty(packed.sizes(), packed.options().device(dst.device()));
  const DeviceIndex from = src.device().index(), to = dst.device().index();
  xhal_stream* source = current_stream(from);
  xhal_stream* target = current_stream(to);
  xhal_event ready{}, done{};
  check(xhal_event_record(source, 0, &ready), "copying between devices");
  check(xhal_stream_wait_event(target, &ready), "copying between devices");
  copy_bytes(target, landing, packed);
  check(xhal_event_record(target, 0, &done), "copying between devices");
  check(xhal_stream_wait_event(source, &done), "copying between devices");
  if (!landing.is_same(dst)) copy_on_device(landing, dst);
}

// ---- more dimensions than a descriptor has

struct CollapsedLayout {
  c10::SmallVector<int64_t, 16> sizes, from, to;  // strides in elements

  void add(int64_t size, int64_t src, int64_t dst) {
    sizes.push_back(size);
    from.push_back(src);
    to.push_back(dst);
  }
};

// The same elements in as few dimensions as they need, slowest of the destination first.
CollapsedLayout fold(const at::Tensor& src, const at::Tensor& dst) {
  c10::SmallVector<int64_t, 16> order;
  for (int64_t d = 0; d < dst.dim(); ++d) {
    if (dst.size(d) != 1) order.push_back(d);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return dst.stride(a) > dst.stride(b); });
  CollapsedLayout layout;
  for (int64_t d : order) {
    const int64_t size = dst.size(d), from = src.stride(d), to = dst.stride(d);
    if (!layout.sizes.empty() && layout.from.back() == size * from &&
        layout.to.back() == size * to) {
      layout.sizes.back() *= size;
      layout.from.back() = from;
      layout.to.back() = to;
    } else {
      layout.add(size, from, to);
    }
  }
  return layout;
}

// Copies what `layout` has from dimension `first` on; what a descriptor cannot hold is walked here.
bool copy_collapsed(const at::Tensor& src, const at::Tensor& dst, const CollapsedLayout& layout,
                    size_t first, int64_t src_offset, int64_t dst_offset, std::string* refusal) {
  if (layout.sizes.size() - first > XHAL_MAX_DIMENSIONS) {
    for (int64_t i = 0; i < layout.sizes[first]; ++i) {
      if (!copy_collapsed(src, dst, layout, first + 1, src_offset + i * layout.from[first],
                          dst_offset + i * layout.to[first], refusal))
        return false;
    }
    return true;
  }
  const auto at = [](const at::Tensor& tensor, int64_t offset) {
    return reinterpret_cast<const void*>(address_of(tensor) +
                                         static_cast<uint64_t>(offset * tensor.element_size()));
  };
  const auto rest = [first](c10::IntArrayRef all) { return all.slice(first); };
  OpCall call(XHAL_OP_strided_copy, dst);
  call.raw(at(src, src_offset), src.scalar_type(), rest(layout.sizes), rest(layout.from), false);
  call.raw(at(dst, dst_offset), dst.scalar_type(), rest(layout.sizes), rest(layout.to), true);
  if (call.require_layout().run()) return true;
  *refusal = call.refusal();
  return false;
}

bool copy_folded(const at::Tensor& src, const at::Tensor& dst, std::string* refusal) {
  return copy_collapsed(src, dst, fold(src, dst), 0, 0, 0, refusal);
}

}  // namespace

void copy_on_device(const at::Tensor& src, const at::Tensor& dst) {
  expect_device(src, dst.device());
  if (dst.numel() == 0 || src.is_same(dst)) return;
  if (same_layout(src, dst)) {
    if (address_of(src) != address_of(dst))
      copy_bytes(launch_stream(dst.device().index()), dst, src);
    return;
  }
  const bool same_type = src.scalar_type() == dst.scalar_type();
  // A view written back to where it is: what Python makes of `x[:, ::2] += 1`.
  if (same_type && address_of(src) == address_of(dst) && src.strides().equals(dst.strides()))
    return;
  const at::Tensor from = same_type ? as_movable(src) : src;
  const at::Tensor to = same_type ? as_movable(dst) : dst;
  OpCall call(XHAL_OP_strided_copy, dst);
  std::string refusal;
  if (to.dim() <= XHAL_MAX_DIMENSIONS) {
    if (call.in(from).out(to).require_layout().run()) return;
    refusal = call.refusal();
  } else if (copy_folded(from, to, &refusal)) {
    return;
  }
  TORCH_CHECK(!same_type, "the device cannot copy ", src.scalar_type(), ": ", refusal);
  note_fallback("aten::_copy_from", refusal);
  const at::Tensor host = to_host(src).to(dst.scalar_type());
  if (dst.is_contiguous()) return copy_tensor(host.contiguous(), dst, false);
  const at::Tensor packed = to_device(host.contiguous(), dst.device());
  copy_on_device(packed, dst);
}

void copy_tensor(const at::Tensor& given, const at::Tensor& dst, bool non_blocking) {
  if (given.is_same(dst) || dst.numel() == 0) return;
  const at::Tensor src = given.sizes().equals(dst.sizes()) ? given : given.expand(dst.sizes());
  if (src.is_cpu()) return host_to_device(src, dst, non_blocking);
  if (dst.is_cpu()) return device_to_host(src, dst, non_blocking);
  TORCH_CHECK(src.device().type() == kXhal && dst.device().type() == kXhal, "copying from ",
              src.device(), " to ", dst.device(), " goes through the host: use .cpu() first");
  if (src.device() == dst.device()) {
    at::assert_no_partial_overlap(dst, src);
    return copy_on_device(src, dst);
  }
  between_devices(src, dst);
}

// The dimensions keep their order in memory, which an operator's result takes over; what is
// repeated comes once.
at::Tensor to_host(const at::Tensor& tensor) {
  const auto options = tensor.options().device(c10::kCPU);
  if (tensor.is_non_overlapping_and_dense()) {
    at::Tensor host = at::empty_strided(tensor.sizes(), tensor.strides(), options);
    if (tensor.numel()) device_to_host(tensor, host, false);
    return host;
  }
  at::Tensor once = tensor;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.stride(d) == 0 && tensor.size(d) > 1) once = once.narrow(d, 0, 1);
  }
  const auto strides = at::infer_dense_strides(once.sizes(), once.strides());
  at::Tensor host = at::empty_strided(once.sizes(), strides, options);
  if (once.numel()) device_to_host(once, host, false);
  return host.expand(tensor.sizes());
}

at::Tensor to_device(const at::Tensor& host, c10::Device device) {
  at::Tensor made =
      host.is_non_overlapping_and_dense()
          ? at::empty_strided(host.sizes(), host.strides(), host.options().device(device))
          : at::empty(host.sizes(), host.options().device(device));
  if (host.numel()) host_to_device(host, made, false);
  return made;
}

namespace {

// Lazily conjugated and negated views are copied as they layout; the result is put right where
// the two differ.
at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool non_blocking) {
  if (!self.is_same(dst)) at::assert_no_internal_overlap(dst);
  at::Tensor from = self, to = dst;
  if (from.is_conj()) from = from._conj();
  if (from.is_neg()) from = from._neg_view();
  if (to.is_conj()) to = to._conj();
  if (to.is_neg()) to = to._neg_view();
  copy_tensor(from, to, non_blocking);
  if (self.is_conj() != dst.is_conj()) at::view_as_real(to).select(-1, 1).neg_();
  if (self.is_neg() != dst.is_neg()) to.neg_();
  return dst;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& dst) {
  if (!dst.sizes().equals(self.sizes())) dst.resize_(self.sizes());
  return copy_from(self, dst, false);
}

// The value of one element.
at::Scalar local_scalar(const at::Tensor& self) {
  TORCH_CHECK(self.numel() == 1, "a Tensor with ", self.numel(),
              " elements cannot be converted to Scalar");
  alignas(16) char word[16] = {};
  xhal_stream* stream = current_stream(self.device().index());
  check(xhal_stream_copy(stream, reinterpret_cast<uint64_t>(word), address_of(self),
                         self.element_size()),
        "reading one element");
  check(xhal_stream_synchronize(stream, XHAL_FOREVER), "reading one element");
  switch (self.scalar_type()) {
#define XHAL_CASE(type, name) \
  case at::ScalarType::name:  \
    return at::Scalar(*reinterpret_cast<const type*>(word));
    AT_FORALL_SCALAR_TYPES_WITH_COMPLEX_EXCEPT_COMPLEX_HALF_F8NZ(XHAL_CASE)
    XHAL_CASE(uint16_t, UInt16)
    XHAL_CASE(uint32_t, UInt32)
    XHAL_CASE(uint64_t, UInt64)
#undef XHAL_CASE
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "no Python number for ", self.scalar_type());
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
}

// torch's core lets only copy_ through for lazily conjugated and negated views; without these
// .cpu() of one recurses.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, Negative, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

}  // namespace xhal_torch
