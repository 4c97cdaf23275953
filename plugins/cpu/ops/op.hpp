// SPDX-License-Identifier: Apache-2.0
// op.hpp: what an operator of the cpu plugin is: prepared once from a request, run many times on
// a worker pool.
//
// The kernels know nothing of streams, devices or the ABI's objects: an Op gets host pointers and a
// pool. Runs of one Op may be concurrent, so run() is const and keeps its temporary data in the
// workspace or on the stack.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "xhal/dtype.hpp"
#include "xhal/op_attributes.hpp"
#include "xhal/refusal.hpp"
#include "xhal/xhal.h"

namespace xhal::cpu {

// Fixed threads bound to the device's cores. The caller helps; nested calls run inline. Chunks
// depend on count and grain only, never on the number of threads, so that results do not either.
class WorkerPool {
 public:
  virtual ~WorkerPool() = default;
  virtual int threads() const = 0;
  // Calls body(begin, end) for disjoint chunks that cover [0, count); each chunk has at least
  // `grain` items but the last. Returns when all have run. body must not throw.
  void parallel_for(int64_t count, int64_t grain, auto&& body) {
    if (count <= 0) return;
    if (count <= grain || threads() == 1) return body(int64_t{0}, count);
    using Body = std::remove_reference_t<decltype(body)>;
    run(
        count, grain,
        [](void* b, int64_t begin, int64_t end) { (*static_cast<Body*>(b))(begin, end); }, &body);
  }

 protected:
  virtual void run(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
                   void* user) = 0;
};

// A request that the catalogue has accepted.
class OpRequest {
 public:
  explicit OpRequest(const xhal_op_info& info) : info_(info), attributes_(info) {}
  uint32_t id() const { return info_.id; }
  // Operands of a group; groups are numbered inputs first, then outputs, as in ops.inc.
  std::span<const xhal_tensor_desc> group(uint32_t index) const;
  // Position of a group's first operand in the launch's address list.
  uint32_t first_operand(uint32_t group) const;
  // The only operand of a group, or nullptr when it is absent.
  const xhal_tensor_desc* operand(uint32_t group) const;
  // By the catalogue's name, with its default when left out; a name it does not have is a mistake
  // of the kernel and throws std::logic_error.
  int64_t attribute_int(std::string_view name) const { return attributes_.integer(name); }
  double attribute_float(std::string_view name) const { return attributes_.real(name); }
  std::span<const int64_t> attribute_ints(std::string_view name) const {
    return attributes_.integers(name);
  }
  bool deterministic_only() const { return (info_.flags & XHAL_OP_DETERMINISTIC) != 0; }
  const xhal_op_info& info() const { return info_; }

 private:
  const xhal_op_info& info_;
  const catalogue::Attributes attributes_;
};

// A launch scalar, already read from its address if it was given by one.
struct Scalar {
  bool is_int;
  int64_t i;
  double f;
  double as_double() const { return is_int ? static_cast<double>(i) : f; }
  int64_t as_int() const { return is_int ? i : to_integer(f); }
};

struct Launch {
  void* const* pointers;  // one per operand, offset_elements applied; nullptr for absent
  const Scalar* scalars;  // all of the catalogue's, defaults filled in
  void* workspace;        // at least workspace_bytes, 64-byte aligned
  WorkerPool& pool;
  std::string* error;  // run() says here why it fails
};

class Op {
 public:
  virtual ~Op() = default;
  // XHAL_OK, or the status that fails the stream (an index out of range, say), with
  // launch.error filled in.
  virtual xhal_status run(const Launch& launch) const = 0;

  uint64_t workspace_bytes = 0;
  double flops = 0, bytes = 0;  // of one run
};

using catalogue::Refusal;
using Prepared = std::unique_ptr<Op>;
using catalogue::text;

// Fills in `refusal` and returns nullptr, so that a prepare function can `return refuse(...)`.
Prepared refuse(Refusal& refusal, xhal_status status, uint32_t operand, std::string text);
// Returns the operator, or nullptr with `refusal` filled in.
using PrepareFn = Prepared (*)(const OpRequest& request, Refusal& refusal);

struct KernelEntry {
  uint32_t id;
  PrepareFn prepare;
};

// One function a kernel file; op_table.cpp joins them into the table by id.
std::span<const KernelEntry> pointwise_ops();
std::span<const KernelEntry> copy_ops();
std::span<const KernelEntry> reduce_ops();
std::span<const KernelEntry> rope_ops();
std::span<const KernelEntry> softmax_ops();
std::span<const KernelEntry> loss_ops();
std::span<const KernelEntry> norm_ops();
std::span<const KernelEntry> random_ops();
std::span<const KernelEntry> optimizer_ops();
std::span<const KernelEntry> gemm_ops();
std::span<const KernelEntry> attention_ops();
std::span<const KernelEntry> index_ops();
std::span<const KernelEntry> conv_ops();
std::span<const KernelEntry> pool_ops();
std::span<const KernelEntry> recurrent_ops();

// op_table.cpp: checks the request against the catalogue, finds the kernel, calls prepare.
Prepared prepare_op(const xhal_op_info& info, Refusal& refusal);
// Fills all scalars of operator `id` from the ones given, defaults for the rest; false when too
// many are given or an address has an unknown format.
using catalogue::kMaxScalars;
bool fill_scalars(uint32_t id, std::span<const xhal_scalar> given, Scalar (&out)[kMaxScalars]);
std::string_view op_name(uint32_t id);

}  // namespace xhal::cpu
