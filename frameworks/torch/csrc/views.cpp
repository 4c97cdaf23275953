// SPDX-License-Identifier: Apache-2.0
#include "views.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <ATen/native/ResizeCommon.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "allocator.h"
#include "op_call.h"

namespace xhal_torch {
namespace {

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

// The allocator allocates on the current device; the guard costs nothing when that is the one.
class On {
 public:
  explicit On(c10::Device device) : before_(current_device()) {
    if (device.has_index()) set_current_device(device.index());
  }
  ~On() { set_current_device_unchecked(before_); }

 private:
  DeviceIndex before_;
};

}  // namespace

at::Tensor new_tensor(c10::IntArrayRef sizes, c10::ScalarType type, c10::Device device) {
  const On on(device);
  return at::Tensor(
      at::detail::empty_generic(sizes, device_allocator(), kKeys, type, std::nullopt));
}

at::Tensor new_tensor(c10::IntArrayRef sizes, c10::ScalarType type, c10::Device device,
                      at::MemoryFormat format) {
  const On on(device);
  return at::Tensor(at::detail::empty_generic(sizes, device_allocator(), kKeys, type, format));
}

at::Tensor new_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType type,
                       c10::Device device) {
  const On on(device);
  return at::Tensor(
      at::detail::empty_strided_generic(sizes, strides, device_allocator(), kKeys, type));
}

at::Tensor new_dense_like(const at::TensorBase& like, c10::ScalarType type) {
  if (like.is_contiguous() || !like.is_non_overlapping_and_dense()) {
    return new_tensor(like.sizes(), type, like.device());
  }
  return new_strided(like.sizes(), like.strides(), type, like.device());
}

void resize_storage(c10::StorageImpl* storage, size_t size_bytes) {
  TORCH_CHECK(storage->resizable(), "Trying to resize storage that is not resizable");
  const On on(storage->device());
  c10::DataPtr grown = device_allocator()->allocate(size_bytes);
  const size_t keep = std::min(size_bytes, storage->nbytes());
  if (keep) {
    check(
        xhal_stream_copy(current_stream(current_device()), reinterpret_cast<uint64_t>(grown.get()),
                         reinterpret_cast<uint64_t>(storage->data()), keep),
        "growing a storage");
  }
  storage->set_data_ptr_noswap(std::move(grown));
  storage->set_nbytes(size_bytes);
}

at::Tensor reinterpret_as(const at::Tensor& tensor, c10::ScalarType type) {
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW,
                                                             c10::Storage(tensor.storage()), kKeys,
                                                             c10::scalarTypeToTypeMeta(type));
  auto* impl = view.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return view;
}

at::Tensor reinterpret_as_pairs(const at::Tensor& tensor, c10::ScalarType half) {
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW,
                                                             c10::Storage(tensor.storage()), kKeys,
                                                             c10::scalarTypeToTypeMeta(half));
  c10::SmallVector<int64_t, 8> sizes(tensor.sizes().begin(), tensor.sizes().end());
  c10::SmallVector<int64_t, 8> strides;
  for (int64_t stride : tensor.strides()) strides.push_back(2 * stride);
  sizes.push_back(2);
  strides.push_back(1);
  view.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, 2 * tensor.storage_offset());
  return view;
}

namespace {

// torch.use_deterministic_algorithms: what nobody has written reads as NaN or the largest number.
bool fills() {
  return at::globalContext().deterministicAlgorithms() &&
         at::globalContext().deterministicFillUninitializedMemory();
}
at::Tensor filled_if_asked(at::Tensor tensor) {
  if (fills()) [[unlikely]]
    at::native::fill_empty_deterministic_(tensor);
  return tensor;
}

at::Tensor empty(c10::IntArrayRef sizes, std::optional<at::ScalarType> type,
                 std::optional<at::Layout> layout, std::optional<at::Device> device,
                 std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!layout || *layout == at::kStrided, "xhal tensors are strided; ", *layout,
              " is not supported");
  TORCH_CHECK(!pinned || !*pinned, "only dense CPU tensors can be pinned");
  const On on(device.value_or(at::Device(kXhal)));
  return filled_if_asked(at::Tensor(
      at::detail::empty_generic(sizes, device_allocator(), kKeys,
                                type.value_or(c10::get_default_dtype_as_scalartype()), format)));
}

at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides,
                         std::optional<at::ScalarType> type, std::optional<at::Layout> layout,
                         std::optional<at::Device> device, std::optional<bool> pinned) {
  TORCH_CHECK(!layout || *layout == at::kStrided, "xhal tensors are strided; ", *layout,
              " is not supported");
  TORCH_CHECK(!pinned || !*pinned, "only dense CPU tensors can be pinned");
  return filled_if_asked(new_strided(sizes, strides,
                                     type.value_or(c10::get_default_dtype_as_scalartype()),
                                     device.value_or(at::Device(kXhal))));
}

// Grows the storage of `self` to hold its present sizes and strides.
void fit_storage(at::TensorImpl* self) {
  if (self->numel() == 0) return;
  const size_t needed = at::detail::computeStorageNbytes(self->sizes(), self->strides(),
                                                         self->itemsize(), self->storage_offset());
  const c10::Storage& storage = self->unsafe_storage();
  if (needed > storage.nbytes()) resize_storage(storage.unsafeGetStorageImpl(), needed);
}

const at::Tensor& resize(const at::Tensor& self, c10::IntArrayRef sizes,
                         std::optional<at::MemoryFormat> format) {
  auto* impl = self.unsafeGetTensorImpl();
  const auto old_bytes = static_cast<int64_t>(impl->unsafe_storage().nbytes());
  if (!self.sizes().equals(sizes)) {
    at::detail::check_size_nonnegative(sizes);
    impl->set_sizes_contiguous(sizes);
    fit_storage(impl);
  }
  if (format) {
    TORCH_CHECK(*format != at::MemoryFormat::Preserve, "Unsupported memory format ", *format);
    impl->empty_tensor_restride(*format);
  }
  if (fills()) [[unlikely]]
    at::native::fill_resize_deterministic_(self, old_bytes);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, int64_t offset,
                        c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  at::native::checkSetStorage(self, std::move(storage), offset, sizes, strides);
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_offset(offset);
  if (strides.data()) {
    impl->set_sizes_and_strides(sizes, strides);
  } else {
    impl->set_sizes_contiguous(sizes);
  }
  fit_storage(impl);
  return self;
}

at::Tensor& set_nothing(at::Tensor& self) {
  c10::Storage none(c10::Storage::use_byte_size_t(), 0, device_allocator()->allocate(0),
                    device_allocator(), true);
  return set_storage(self, std::move(none), 0, {0}, {});
}

void record_stream_op(at::Tensor& self, at::Stream stream) {
  record_stream(self.storage().data_ptr(), stream.device_index(), stream.id());
}

bool shallow_copies(const at::Tensor& self, const at::Tensor& from) {
  // Moving a module between the CPU and this device may swap the data of a parameter in place: tied
  // weights stay tied.
  const auto known = [](const at::Tensor& tensor) {
    return tensor.layout() == at::kStrided && (tensor.device().type() == kXhal || tensor.is_cpu());
  };
  return known(self) && known(from);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("resize_", TORCH_FN(resize));
  m.impl("set_.source_Storage",
         TORCH_FN(static_cast<at::Tensor& (*)(at::Tensor&, at::Storage)>(at::native::set_)));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  m.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  m.impl("set_", TORCH_FN(set_nothing));
  m.impl("record_stream", TORCH_FN(record_stream_op));
  m.impl("_has_compatible_shallow_copy_type", TORCH_FN(shallow_copies));
}

// Autograd would refuse the question for this key before the answer above is reached.
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_has_compatible_shallow_copy_type", torch::CppFunction::makeFallthrough());
}

}  // namespace xhal_torch
