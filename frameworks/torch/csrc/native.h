// SPDX-License-Identifier: Apache-2.0
// native.h: registering a kernel under the name that torch's generated operator class carries.
#pragma once

#include <torch/library.h>

#include <string>
#include <type_traits>

#include "fallback.h"

namespace xhal_torch {

template <class Op, auto kernel>
void native(torch::Library& library) {
  std::string name = Op::name;
  if (*Op::overload_name) name.append(".").append(Op::overload_name);
  library.impl(name.c_str(),
               c10::CompileTimeFunctionPointer<std::remove_pointer_t<decltype(kernel)>, kernel>());
}

}  // namespace xhal_torch
