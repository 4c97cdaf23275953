// SPDX-License-Identifier: Apache-2.0
// object_api.cpp: the exported functions of op.h and module.h that are more than a slot: objects
// end when nothing that libxhal holds back names them any more.
#include "core/argument_check.hpp"
#include "core/object.hpp"
#include "core/tables.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

// Destroys an object by its slot, or lets the last held-back submission that names it do so.
template <class Handle, auto kSlot>
xhal_status destroy(Handle* object, const char* operation) {
  if (!is_live(object, kKindOf<Handle>)) return bad_handle(object, kKindOf<Handle>, operation);
  const xhal_status status = destroy_unpinned(object, [](void* o) {
    const auto slot = load_slot(dispatch_of(o)->*kSlot);
    return slot(static_cast<Handle*>(o));
  });
  return status < 0 ? annotate(status, object, operation) : status;
}

}  // namespace
}  // namespace xhal

using xhal::is_live;

extern "C" {

xhal_status xhal_op_destroy(xhal_op* op) {
  return xhal::destroy<xhal_op, &xhal_dispatch::op_destroy>(op, "xhal_op_destroy");
}

xhal_status xhal_module_destroy(xhal_module* module) {
  return xhal::destroy<xhal_module, &xhal_dispatch::module_destroy>(module, "xhal_module_destroy");
}

xhal_status xhal_module_kernel(xhal_module* module, xhal_string name, xhal_kernel** kernel) {
  constexpr const char* op = "xhal_module_kernel";
  if (!is_live(module, XHAL_KIND_MODULE)) return xhal::bad_handle(module, XHAL_KIND_MODULE, op);
  if (const auto s = xhal::required(op, {{"kernel", kernel}}); s != XHAL_OK) return s;
  if (xhal::is_missing(name)) return xhal::refuse_null(op, "name");
  const auto slot = xhal::load_slot(xhal::dispatch_of(module)->module_kernel);
  xhal_kernel* made = nullptr;
  const xhal_status status = slot(module, name, &made);
  if (status < 0) return xhal::annotate(status, module, op);
  if (!is_live(made, XHAL_KIND_KERNEL)) {
    return xhal::fail(XHAL_ERR_PLUGIN, op,
                      "{}: the plugin returned success without a kernel made by object_alloc", op);
  }
  xhal::private_of(made)->state = module;
  *kernel = made;
  return status;
}

xhal_status xhal_kernel_query(xhal_kernel* kernel, xhal_kernel_properties* properties) {
  constexpr const char* op = "xhal_kernel_query";
  if (!is_live(kernel, XHAL_KIND_KERNEL)) return xhal::bad_handle(kernel, XHAL_KIND_KERNEL, op);
  if (const auto s = xhal::required(op, {{"properties", properties}}); s != XHAL_OK) return s;
  if (!xhal::structs::is_size<xhal_kernel_properties>(properties->struct_size)) {
    return xhal::fail(XHAL_ERR_STRUCT_SIZE, op, "{}: no xhal_kernel_properties has {} bytes", op,
                      properties->struct_size);
  }
  xhal_kernel_properties local{};
  local.struct_size = sizeof local;
  const auto slot = xhal::load_slot(xhal::dispatch_of(kernel)->kernel_query);
  const xhal_status status = slot(kernel, &local);
  if (status < 0) return xhal::annotate(status, kernel, op);
  local.number = xhal::private_of(kernel)->number;
  xhal::structs::write(local, properties);
  return status;
}

}  // extern "C"
