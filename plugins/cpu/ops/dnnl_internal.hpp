// SPDX-License-Identifier: Apache-2.0
// dnnl_internal.hpp: what the files of the oneDNN adapter share. Included by dnnl*.cpp only.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

#include "op.hpp"

namespace xhal::cpu {

// Never destroyed: kernels run until the process exits.
const dnnl::engine& dnnl_engine();
// One stream a thread.
const dnnl::stream& dnnl_stream();
dnnl::memory::data_type dnnl_type(DType type);

// A primitive descriptor from the arguments that both generations of oneDNN share.
template <class Primitive, class... Args>
typename Primitive::primitive_desc dnnl_describe(const dnnl::primitive_attr& attr,
                                                 const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return {dnnl_engine(), args..., attr};
#else
  return {typename Primitive::desc(args...), attr, dnnl_engine()};
#endif
}

// The same for a backward primitive, which wants to know its forward one.
template <class Primitive, class Hint, class... Args>
typename Primitive::primitive_desc dnnl_describe_backward(const dnnl::primitive_attr& attr,
                                                          const Hint& hint, const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return {dnnl_engine(), args..., hint, attr};
#else
  return {typename Primitive::desc(args...), attr, dnnl_engine(), hint};
#endif
}

}  // namespace xhal::cpu
