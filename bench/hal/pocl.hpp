// SPDX-License-Identifier: Apache-2.0
// pocl.hpp: PoCL, the portable OpenCL on host cores, as a peer.
#pragma once

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

namespace xhal::bench {

// One in-order queue on PoCL's CPU device and an empty kernel. Errors: std::runtime_error that says
// what to install.
class Pocl {
 public:
  Pocl();
  cl_context context() const { return context_; }
  cl_command_queue queue() const { return queue_; }

  // Enqueues the empty kernel, one work item; `event` may be nullptr, `after` too.
  void enqueue(cl_event* event = nullptr, const cl_event* after = nullptr) const;
  void finish() const;

 private:
  cl_context context_ = nullptr;
  cl_command_queue queue_ = nullptr;
  cl_kernel kernel_ = nullptr;
};

// Throws what `status` means. `what` names the call.
void check_cl(cl_int status, const char* what);

}  // namespace xhal::bench
