// SPDX-License-Identifier: Apache-2.0
// dnnl.hpp: the one door to oneDNN. What differs between its 2.x and 3.x interfaces
// stays behind it.
//
// A DnnlKernel is a compiled primitive for fixed shapes: immutable, used by many threads at once.
// It runs on the calling thread alone; whoever wants several threads runs several kernels. oneDNN
// takes its thread count from OpenMP's setting of the calling thread, so kernels are made and run
// under a SingleThread guard.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "op.hpp"

namespace xhal::cpu {

enum class Activation : uint8_t { none, relu, gelu, gelu_tanh };

// One matrix product on dense or strided row- or column-major matrices: dst[m, n] (+)= src[m, k]
// weights[k, n] + bias[n].
struct MatmulSpec {
  int64_t m = 0, n = 0, k = 0;
  DType in = DType::f32, out = DType::f32;
  bool src_transposed = false, weights_transposed = false;
  int64_t src_stride = 0, weights_stride = 0,
          dst_stride = 0;     // between rows, or columns of a transposed one
  DType bias = DType::other;  // other = none
  bool accumulate = false;    // adds to what dst holds
  Activation activation = Activation::none;
};

// Sets OpenMP's thread count of the calling thread to one and puts it back.
class SingleThread {
 public:
  SingleThread();
  ~SingleThread();
  SingleThread(const SingleThread&) = delete;
  SingleThread& operator=(const SingleThread&) = delete;

 private:
  const int before_;
};

// A compiled primitive and the memory it expects.
class DnnlKernel {
  struct Impl;

 public:
  enum Slot { src, weights, bias, dst, scratch, slot_count };

  // nullptr, with oneDNN's reason in `why`, when there is no such primitive.
  static std::shared_ptr<const DnnlKernel> matmul(const MatmulSpec& spec, std::string& why);

  uint64_t scratch_bytes() const;

  // One thread's use of the kernel. A thread keeps the memory objects of its last kernels, so that
  // the next session costs next to nothing. A thread has one session at a time.
  class Session {
   public:
    explicit Session(const DnnlKernel& kernel);
    ~Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    // Slots that the kernel does not have are ignored.
    void set(Slot slot, const void* address);
    // False when oneDNN reports a failure, which its documentation allows only for lack of memory.
    bool run();

   private:
    struct State;
    static State& state_for(const Impl& impl);
    SingleThread guard_;
    State& state_;
  };

  explicit DnnlKernel(std::unique_ptr<Impl> impl);
  ~DnnlKernel();

 private:
  std::unique_ptr<Impl> impl_;
};

// What oneDNN does well on this processor (DNNL_MAX_CPU_ISA lowers it).
bool dnnl_has_bf16();
bool dnnl_has_avx512();

}  // namespace xhal::cpu
