// SPDX-License-Identifier: Apache-2.0
// What torch's core asks of an accelerator that it does not know by name.
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/Storage.h>

#include "allocator.h"
#include "generator.h"
#include "views.h"

namespace xhal_torch {
namespace {

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasPrimaryContext(DeviceIndex index) const override { return device_is_open(index); }
  DeviceIndex deviceCount() const override { return device_count(); }
  void init() const override {}

  void setCurrentDevice(DeviceIndex index) const override { set_current_device(index); }
  DeviceIndex getCurrentDevice() const override { return current_device(); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override {
    const DeviceIndex before = current_device();
    set_current_device(index);
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override {
    return index < 0 ? current_device() : exchangeDevice(index);
  }

  const at::Generator& getDefaultGenerator(DeviceIndex index) const override {
    return default_generator(index);
  }
  at::Generator getNewGenerator(DeviceIndex index) const override { return new_generator(index); }

  at::Device getDeviceFromPtr(void* data) const override {
    xhal_pointer_info info{};
    check(xhal_pointer_query(reinterpret_cast<uint64_t>(data), &info),
          "finding the device of an address");
    for (DeviceIndex index = 0; info.device && index < device_count(); ++index) {
      if (device_is_open(index) && device(index).handle == info.device) return {kXhal, index};
    }
    TORCH_CHECK(false, "the address ", data, " is not memory of a xhal device");
  }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  at::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }

  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size_bytes) const override {
    resize_storage(storage.unsafeGetStorageImpl(), size_bytes);
  }
};

const bool registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

}  // namespace
}  // namespace xhal_torch
