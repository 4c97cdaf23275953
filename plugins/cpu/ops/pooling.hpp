// SPDX-License-Identifier: Apache-2.0
// pooling.hpp: operators that turn the last two dimensions of a tensor, a plane, into a plane
// of another size.
#pragma once

#include <algorithm>
#include <functional>
#include <string_view>

#include "index.hpp"
#include "op.hpp"

namespace xhal::cpu {

// A tensor as a list of planes.
struct Planes {
  uint32_t operand = 0;
  DType type = DType::f32;
  int64_t count = 0, height = 0, width = 0;
  int64_t row_stride = 0, column_stride = 0;
  IterPlan starts;  // of the planes

  Planes() = default;
  Planes(const xhal_tensor_desc& t, uint32_t position);
  int64_t size() const { return height * width; }
  char* at(void* const* pointers, int64_t plane) const {
    return static_cast<char*>(pointers[operand]) +
           IterPosition(starts, plane).offset(0) * static_cast<int64_t>(size_of(type));
  }
  // A plane to and from dense f32.
  void load(void* const* pointers, int64_t plane, float* to) const;
  void store(void* const* pointers, int64_t plane, const float* from) const;
};

// Brings a plane of `from` to f32, makes one of `to` of it, and stores that; planes are shared
// among the threads.
class PlaneOp : public Op {
 public:
  Planes from, to;

  xhal_status run(const Launch& launch) const override;

 protected:
  // `out` has room for one more row. Returns false to stop the run with XHAL_ERR_DEVICE; `explain`
  // then writes the text.
  virtual bool make_plane(const Launch& launch, int64_t plane, const float* in,
                          float* out) const = 0;
  virtual std::string explain(const Launch&, int64_t /*plane*/) const { return {}; }
  bool set(const OpRequest& request, uint32_t from_group, uint32_t to_group, std::string_view name,
           Refusal& refusal);
  void set_costs(double flops_per_output);

 private:
  uint64_t area_bytes() const;
  int64_t grain() const;
};

Prepared prepare_upsample_nearest(const OpRequest& request, Refusal& refusal);
Prepared prepare_upsample_nearest_grad(const OpRequest& request, Refusal& refusal);
Prepared prepare_upsample_bilinear(const OpRequest& request, Refusal& refusal);
Prepared prepare_upsample_bilinear_grad(const OpRequest& request, Refusal& refusal);

}  // namespace xhal::cpu
