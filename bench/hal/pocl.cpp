// SPDX-License-Identifier: Apache-2.0
#include "pocl.hpp"

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace xhal::bench {

void check_cl(cl_int status, const char* what) {
  if (status != CL_SUCCESS)
    throw std::runtime_error(fmt::format("OpenCL: {} failed with {}", what, status));
}

Pocl::Pocl() {
  cl_uint count = 0;
  (void)clGetPlatformIDs(0, nullptr, &count);
  std::vector<cl_platform_id> platforms(count);
  if (count != 0) check_cl(clGetPlatformIDs(count, platforms.data(), nullptr), "clGetPlatformIDs");
  for (auto* platform : platforms) {
    char name[256] = {};
    check_cl(clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, nullptr),
             "clGetPlatformInfo");
    if (std::string(name).find("Portable Computing Language") == std::string::npos) continue;
    cl_device_id device = nullptr;
    check_cl(clGetDeviceIDs(platform, CL_DEVICE_TYPE_CPU, 1, &device, nullptr), "clGetDeviceIDs");
    cl_int status = CL_SUCCESS;
    context_ = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &status);
    check_cl(status, "clCreateContext");
    queue_ = clCreateCommandQueue(context_, device, 0, &status);
    check_cl(status, "clCreateCommandQueue");
    const char* source = "__kernel void nop() {}";
    const auto program = clCreateProgramWithSource(context_, 1, &source, nullptr, &status);
    check_cl(status, "clCreateProgramWithSource");
    check_cl(clBuildProgram(program, 1, &device, "", nullptr, nullptr), "clBuildProgram");
    kernel_ = clCreateKernel(program, "nop", &status);
    check_cl(status, "clCreateKernel");
    enqueue();  // compiled for its size at the first launch
    finish();
    return;
  }
  throw std::runtime_error("PoCL is not installed; run: apt-get install pocl-opencl-icd");
}

void Pocl::enqueue(cl_event* event, const cl_event* after) const {
  const size_t one = 1;
  check_cl(clEnqueueNDRangeKernel(queue_, kernel_, 1, nullptr, &one, &one, after == nullptr ? 0 : 1,
                                  after, event),
           "clEnqueueNDRangeKernel");
}

void Pocl::finish() const { check_cl(clFinish(queue_), "clFinish"); }

}  // namespace xhal::bench
