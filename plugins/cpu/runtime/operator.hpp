// SPDX-License-Identifier: Apache-2.0
// operator.hpp: a prepared operator: the handle, and the shared part that queued work and
// graphs keep alive.
#pragma once

#include <atomic>
#include <memory>
#include <string_view>
#include <vector>

#include "ops/op.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

class Device;
class Memory;

// How long one run takes, in nanoseconds on one thread: guessed from the catalogue's cost until it
// has been measured. Only steers where work runs, so races on it are harmless.
class CostEstimate {
 public:
  void guess(double flops, double bytes);
  void add(uint32_t ns);
  uint32_t ns() const { return ns_.load(std::memory_order_relaxed); }
  void measured(uint64_t ticks, uint32_t helpers);

 private:
  std::atomic<uint32_t> ns_{0};
};

struct PreparedOp {
  Prepared op;
  uint32_t id = 0;
  uint32_t operand_count = 0;
  uint32_t scalar_count = 0;
  bool as_is = true;  // pointers are the addresses: no operand has an offset
  std::vector<int64_t> offsets_bytes;
  std::vector<bool> is_empty;  // without elements: its address may be 0
  std::string_view name;
  mutable CostEstimate cost;

  // Turns launch addresses into what run() takes.
  void resolve(const Memory& memory, const uint64_t* addresses, void** pointers) const;
};

// What is wrong with the arguments of a launch, or nullptr. Also says whether a scalar is
// given by address.
const char* check_launch(const PreparedOp& op, const uint64_t* addresses, uint32_t address_count,
                         const xhal_scalar* scalars, uint32_t scalar_count, uint64_t workspace,
                         bool* by_address);
// All scalars of the operator; what is given by address is read now.
void read_scalars(const PreparedOp& op, const Memory& memory, const xhal_scalar* given,
                  uint32_t count, Scalar (&values)[kMaxScalars]);

// The xhal_op.
struct OpHandle : plugin::Object {
  OpHandle(Device& d, std::shared_ptr<const PreparedOp> s) : device(d), shared(std::move(s)) {}

  xhal_status query(xhal_op_properties* properties, xhal_operand_need* needs,
                    uint32_t need_capacity);
  xhal_status destroy();
  void let_go() { shared.reset(); }  // the device closes

  Device& device;
  std::shared_ptr<const PreparedOp> shared;
  std::vector<uint32_t>
      aliases;  // for each operand: 1 + the input it may share its address with, or 0
  bool deterministic = true;
};

// Prepares; throws plugin::Error with the refusal.
void prepare_operator(Device& device, const xhal_op_info& info, xhal_op** handle);

}  // namespace xhal::cpu
