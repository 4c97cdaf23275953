// SPDX-License-Identifier: Apache-2.0
// compat.h: what differs between the torch versions we build against (2.6 and newer). One place
// for every guard.
#pragma once

#include <c10/core/Allocator.h>
#include <torch/version.h>

#define XHAL_TORCH_AT_LEAST(major, minor) \
  (TORCH_VERSION_MAJOR > (major) ||       \
   (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

// c10::DeviceAllocator and at::HostAllocator, torch.accelerator.memory_*
#define XHAL_TORCH_HAS_DEVICE_ALLOCATOR XHAL_TORCH_AT_LEAST(2, 9)
// c10::DeviceCapability, DeviceGuardImplInterface::getStreamNativeHandle
#define XHAL_TORCH_HAS_CAPABILITY XHAL_TORCH_AT_LEAST(2, 12)
// torch.accelerator.Graph
#define XHAL_TORCH_HAS_GRAPH XHAL_TORCH_AT_LEAST(2, 13)

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
#include <c10/core/CachingDeviceAllocator.h>
#endif

namespace xhal_torch {

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
using DeviceAllocatorBase = c10::DeviceAllocator;
#else
using DeviceAllocatorBase = c10::Allocator;
#endif

}  // namespace xhal_torch
