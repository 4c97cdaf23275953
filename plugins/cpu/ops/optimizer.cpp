// SPDX-License-Identifier: Apache-2.0
// optimizer.cpp: optimiser steps over lists of tensors, cut into chunks of similar size.
#include "optimizer.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "chunks.hpp"
#include "convert.hpp"
#include "multi.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kChunk = 32768;  // elements
constexpr int64_t kBlock = 1024;

// The tensors of a list group, all dense.
class TensorList {
 public:
  TensorList() = default;
  TensorList(const OpRequest& request, uint32_t group) : first_(request.first_operand(group)) {
    for (const xhal_tensor_desc& t : request.group(group)) {
      const DType type = dtype_of(t);
      items_.push_back({loader<float>(type, true), storer<float>(type, true), element_count(t),
                        static_cast<uint8_t>(size_of(type)), type == DType::f32});
    }
  }
  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  int64_t count(size_t i) const { return items_[i].count; }

  // Elements [begin, begin + n) of tensor i as f32: the memory itself or, converted, `buffer`.
  const float* read(void* const* pointers, size_t i, int64_t begin, int64_t n,
                    float* buffer) const {
    const Item& item = items_[i];
    const char* from = static_cast<const char*>(pointers[first_ + i]) + begin * item.size;
    if (item.direct) return reinterpret_cast<const float*>(from);
    item.load(from, 1, static_cast<size_t>(n), buffer);
    return buffer;
  }
  float* target(void* const* pointers, size_t i, int64_t begin, float* buffer) const {
    const Item& item = items_[i];
    return item.direct ? static_cast<float*>(pointers[first_ + i]) + begin : buffer;
  }
  void commit(void* const* pointers, size_t i, int64_t begin, int64_t n,
              const float* buffer) const {
    const Item& item = items_[i];
    if (item.direct) return;
    item.store(buffer, static_cast<size_t>(n),
               static_cast<char*>(pointers[first_ + i]) + begin * item.size, 1);
  }

 private:
  struct Item {
    LoadFn<float> load;
    StoreFn<float> store;
    int64_t count;
    uint8_t size;
    bool direct;
  };
  uint32_t first_ = 0;
  std::vector<Item> items_;
};

// Each list is as long as the first, or empty where `may_be_empty` says so; all contiguous.
bool check_lists(const OpRequest& request, std::span<const uint32_t> groups, uint32_t may_be_empty,
                 Refusal& refusal) {
  const auto first = request.group(groups[0]);
  for (uint32_t group : groups) {
    const auto list = request.group(group);
    if (list.empty() && (may_be_empty >> group & 1) != 0) continue;
    if (list.size() != first.size()) {
      refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(group),
             text("the lists given to `", op_name(request.id()),
                  "` differ in length: ", first.size(), " and ", list.size()));
      return false;
    }
    for (uint32_t i = 0; i < list.size(); ++i) {
      if (is_contiguous(list[i])) continue;
      refuse(refusal, XHAL_ERR_UNSUPPORTED, 1 + request.first_operand(group) + i,
             text("tensors number ", i, " of `", op_name(request.id()), "` must be contiguous"));
      return false;
    }
  }
  return true;
}

bool found_inf(const Launch& launch, int operand) {
  return operand >= 0 && *static_cast<const float*>(launch.pointers[operand]) != 0;
}

int position_of(const OpRequest& request, uint32_t group) {
  return request.operand(group) == nullptr ? -1 : static_cast<int>(request.first_operand(group));
}

float as_float(const Launch& launch, int scalar) {
  return static_cast<float>(launch.scalars[scalar].as_double());
}

class AdamOp final : public Op {
 public:
  enum Group : uint32_t {
    kParam,
    kGrad,
    kAvg,
    kSq,
    kMaxSq,
    kStep,
    kFoundInf,
    kParamOut,
    kAvgOut,
    kSqOut,
    kMaxSqOut,
    kStepOut
  };

  explicit AdamOp(const OpRequest& request)
      : kernels_(optimizer_kernels()),
        amsgrad_(request.attribute_int("amsgrad") != 0),
        maximize_(request.attribute_int("maximize") != 0),
        decoupled_(request.attribute_int("decoupled") != 0),
        step_(request.first_operand(kStep)),
        step_out_(request.first_operand(kStepOut)),
        raises_step_(!request.group(kStepOut).empty()),
        found_inf_(position_of(request, kFoundInf)) {
    for (uint32_t g : {kParam, kGrad, kAvg, kSq, kMaxSq, kParamOut, kAvgOut, kSqOut, kMaxSqOut})
      lists_[g] = TensorList(request, g);
    for (size_t i = 0; i < lists_[kParam].size(); ++i)
      chunks_.add(static_cast<uint32_t>(i), lists_[kParam].count(i));
  }

  xhal_status run(const Launch& launch) const override {
    if (found_inf(launch, found_inf_)) return XHAL_OK;
    chunks_.run(launch.pool, [&](const Chunk& chunk, size_t) { run_chunk(launch, chunk); });
    for (size_t i = 0; raises_step_ && i < lists_[kParam].size(); ++i)
      *static_cast<float*>(launch.pointers[step_out_ + i]) = static_cast<float>(step_of(launch, i));
    return XHAL_OK;
  }

 private:
  // The number of this step, counted from 1.
  double step_of(const Launch& launch, size_t i) const {
    return static_cast<double>(*static_cast<const float*>(launch.pointers[step_ + i])) +
           (raises_step_ ? 1 : 0);
  }

  AdamStep step_for(const Launch& launch, size_t i) const {
    const double lr = launch.scalars[0].as_double(), beta1 = launch.scalars[1].as_double();
    const double beta2 = launch.scalars[2].as_double(), number = step_of(launch, i);
    AdamStep step{};
    step.lr = static_cast<float>(lr);
    step.beta1 = static_cast<float>(beta1);
    step.beta2 = static_cast<float>(beta2);
    step.weight_decay = as_float(launch, 3);
    step.eps = as_float(launch, 4);
    step.inverse_grad_scale = static_cast<float>(1 / launch.scalars[5].as_double());
    step.step_size = static_cast<float>(lr / (1 - std::pow(beta1, number)));
    step.inverse_root_of_correction2 =
        static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, number)));
    step.maximize = maximize_;
    step.decoupled = decoupled_;
    return step;
  }

  void run_chunk(const Launch& launch, const Chunk& chunk) const {
    alignas(64) float block[5][kBlock];
    const size_t i = chunk.item;
    const AdamStep step = step_for(launch, i);
    void* const* p = launch.pointers;
    for (int64_t begin = chunk.begin; begin < chunk.end; begin += kBlock) {
      const int64_t n = std::min(kBlock, chunk.end - begin);
      AdamRun run{};
      run.param = lists_[kParam].read(p, i, begin, n, block[0]);
      run.grad = lists_[kGrad].read(p, i, begin, n, block[1]);
      run.avg = lists_[kAvg].read(p, i, begin, n, block[2]);
      run.sq = lists_[kSq].read(p, i, begin, n, block[3]);
      run.param_out = lists_[kParamOut].target(p, i, begin, block[0]);
      run.avg_out = lists_[kAvgOut].target(p, i, begin, block[2]);
      run.sq_out = lists_[kSqOut].target(p, i, begin, block[3]);
      if (amsgrad_) {
        run.max_sq = lists_[kMaxSq].read(p, i, begin, n, block[4]);
        run.max_sq_out = lists_[kMaxSqOut].target(p, i, begin, block[4]);
      }
      kernels_.adam(run, step, static_cast<size_t>(n));
      lists_[kParamOut].commit(p, i, begin, n, block[0]);
      lists_[kAvgOut].commit(p, i, begin, n, block[2]);
      lists_[kSqOut].commit(p, i, begin, n, block[3]);
      if (amsgrad_) lists_[kMaxSqOut].commit(p, i, begin, n, block[4]);
    }
  }

  const OptimizerKernels& kernels_;
  bool amsgrad_, maximize_, decoupled_;
  uint32_t step_, step_out_;
  bool raises_step_;
  int found_inf_;
  TensorList lists_[kMaxSqOut + 1];
  ChunkList chunks_{kChunk};
};

Prepared prepare_adamw(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kLists[] = {AdamOp::kParam,  AdamOp::kGrad,  AdamOp::kAvg,
                                 AdamOp::kSq,     AdamOp::kMaxSq, AdamOp::kParamOut,
                                 AdamOp::kAvgOut, AdamOp::kSqOut, AdamOp::kMaxSqOut};
  const bool amsgrad = request.attribute_int("amsgrad") != 0;
  const uint32_t optional = amsgrad ? 0 : 1u << AdamOp::kMaxSq | 1u << AdamOp::kMaxSqOut;
  if (!check_lists(request, kLists, optional, refusal)) return nullptr;
  const size_t count = request.group(AdamOp::kParam).size();
  const size_t raised = request.group(AdamOp::kStepOut).size();
  if (request.group(AdamOp::kStep).size() != count || (raised != 0 && raised != count))
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(AdamOp::kStep),
                  "`multi_adamw` needs one step a tensor, and as many or no step_out");
  return std::make_unique<AdamOp>(request);
}

class SgdOp final : public Op {
 public:
  enum Group : uint32_t { kParam, kGrad, kMomentum, kFoundInf, kParamOut, kMomentumOut };

  explicit SgdOp(const OpRequest& request)
      : kernels_(optimizer_kernels()),
        nesterov_(request.attribute_int("nesterov") != 0),
        maximize_(request.attribute_int("maximize") != 0),
        first_(request.attribute_int("first") != 0),
        found_inf_(position_of(request, kFoundInf)) {
    for (uint32_t g : {kParam, kGrad, kMomentum, kParamOut, kMomentumOut})
      lists_[g] = TensorList(request, g);
    for (size_t i = 0; i < lists_[kParam].size(); ++i)
      chunks_.add(static_cast<uint32_t>(i), lists_[kParam].count(i));
  }

  xhal_status run(const Launch& launch) const override {
    if (found_inf(launch, found_inf_)) return XHAL_OK;
    SgdStep step{};
    step.lr = as_float(launch, 0);
    step.momentum = as_float(launch, 1);
    step.dampening = as_float(launch, 2);
    step.weight_decay = as_float(launch, 3);
    step.inverse_grad_scale = static_cast<float>(1 / launch.scalars[4].as_double());
    step.nesterov = nesterov_;
    step.maximize = maximize_;
    step.first = first_;
    chunks_.run(launch.pool, [&](const Chunk& chunk, size_t) { run_chunk(launch, chunk, step); });
    return XHAL_OK;
  }

 private:
  void run_chunk(const Launch& launch, const Chunk& chunk, const SgdStep& step) const {
    alignas(64) float block[3][kBlock];
    const size_t i = chunk.item;
    void* const* p = launch.pointers;
    const bool has_momentum = !lists_[kMomentumOut].empty();
    for (int64_t begin = chunk.begin; begin < chunk.end; begin += kBlock) {
      const int64_t n = std::min(kBlock, chunk.end - begin);
      const float* momentum =
          has_momentum && !first_ ? lists_[kMomentum].read(p, i, begin, n, block[2]) : nullptr;
      float* momentum_out =
          has_momentum ? lists_[kMomentumOut].target(p, i, begin, block[2]) : nullptr;
      kernels_.sgd(lists_[kParam].read(p, i, begin, n, block[0]),
                   lists_[kGrad].read(p, i, begin, n, block[1]), momentum,
                   lists_[kParamOut].target(p, i, begin, block[0]), momentum_out, step,
                   static_cast<size_t>(n));
      lists_[kParamOut].commit(p, i, begin, n, block[0]);
      if (has_momentum) lists_[kMomentumOut].commit(p, i, begin, n, block[2]);
    }
  }

  const OptimizerKernels& kernels_;
  bool nesterov_, maximize_, first_;
  int found_inf_;
  TensorList lists_[kMomentumOut + 1];
  ChunkList chunks_{kChunk};
};

Prepared prepare_sgd(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kLists[] = {SgdOp::kParam, SgdOp::kGrad, SgdOp::kMomentum, SgdOp::kParamOut,
                                 SgdOp::kMomentumOut};
  const bool first = request.attribute_int("first") != 0;
  if (!check_lists(request, kLists, 1u << SgdOp::kMomentum | 1u << SgdOp::kMomentumOut, refusal))
    return nullptr;
  const size_t in = request.group(SgdOp::kMomentum).size(),
               out = request.group(SgdOp::kMomentumOut).size();
  if (out != 0 && in == 0 && !first)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT,
                  1 + request.first_operand(SgdOp::kMomentumOut),
                  "`multi_sgd` needs the momentum buffers, or first=1");
  return std::make_unique<SgdOp>(request);
}

class UnscaleOp final : public Op {
 public:
  explicit UnscaleOp(const OpRequest& request)
      : kernels_(optimizer_kernels()),
        in_(request, 0),
        out_(request, 3),
        found_inf_(request.first_operand(1)),
        inverse_scale_(request.first_operand(2)),
        found_inf_out_(request.first_operand(4)) {
    for (size_t i = 0; i < in_.size(); ++i) chunks_.add(static_cast<uint32_t>(i), in_.count(i));
  }

  xhal_status run(const Launch& launch) const override {
    const float scale = *static_cast<const float*>(launch.pointers[inverse_scale_]);
    std::atomic<bool> finite{true};
    chunks_.run(launch.pool, [&](const Chunk& chunk, size_t) {
      alignas(64) float block[kBlock];
      bool all = true;
      for (int64_t begin = chunk.begin; begin < chunk.end; begin += kBlock) {
        const int64_t n = std::min(kBlock, chunk.end - begin);
        const float* in = in_.read(launch.pointers, chunk.item, begin, n, block);
        all &= kernels_.unscale(in, scale, out_.target(launch.pointers, chunk.item, begin, block),
                                static_cast<size_t>(n));
        out_.commit(launch.pointers, chunk.item, begin, n, block);
      }
      if (!all) finite.store(false, std::memory_order_relaxed);
    });
    const float before = *static_cast<const float*>(launch.pointers[found_inf_]);
    *static_cast<float*>(launch.pointers[found_inf_out_]) = finite ? before : 1.0f;
    return XHAL_OK;
  }

 private:
  const OptimizerKernels& kernels_;
  TensorList in_, out_;
  uint32_t found_inf_, inverse_scale_, found_inf_out_;
  ChunkList chunks_{kChunk};
};

Prepared prepare_unscale(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kLists[] = {0, 3};
  if (!check_lists(request, kLists, 0, refusal)) return nullptr;
  return std::make_unique<UnscaleOp>(request);
}

class UpdateScaleOp final : public Op {
 public:
  explicit UpdateScaleOp(const OpRequest& request)
      : wide_(dtype_of(*request.operand(1)) == DType::i64) {}

  xhal_status run(const Launch& launch) const override {
    const double growth = launch.scalars[0].as_double(), backoff = launch.scalars[1].as_double();
    const int64_t interval = launch.scalars[2].as_int();
    float scale = *static_cast<const float*>(launch.pointers[0]);
    int64_t good = wide_ ? *static_cast<const int64_t*>(launch.pointers[1])
                         : *static_cast<const int32_t*>(launch.pointers[1]);
    if (*static_cast<const float*>(launch.pointers[2]) != 0) {
      scale = static_cast<float>(scale * backoff);
      good = 0;
    } else if (++good == interval) {
      const auto grown = static_cast<float>(scale * growth);
      if (std::isfinite(grown)) scale = grown;
      good = 0;
    }
    *static_cast<float*>(launch.pointers[3]) = scale;
    if (wide_) {
      *static_cast<int64_t*>(launch.pointers[4]) = good;
    } else {
      *static_cast<int32_t*>(launch.pointers[4]) = static_cast<int32_t>(good);
    }
    return XHAL_OK;
  }

 private:
  bool wide_;
};

Prepared prepare_update_scale(const OpRequest& request, Refusal& refusal) {
  if (dtype_of(*request.operand(1)) != dtype_of(*request.operand(4)))
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 5,
                  "both growth trackers of `update_scale` have one format");
  return std::make_unique<UpdateScaleOp>(request);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_multi_adamw, prepare_adamw},           {XHAL_OP_multi_sgd, prepare_sgd},
    {XHAL_OP_multi_unscale, prepare_unscale},       {XHAL_OP_update_scale, prepare_update_scale},
    {XHAL_OP_multi_axpby, prepare_multi_axpby},     {XHAL_OP_multi_mul, prepare_multi_mul},
    {XHAL_OP_multi_div, prepare_multi_div},         {XHAL_OP_multi_lerp, prepare_multi_lerp},
    {XHAL_OP_multi_addcmul, prepare_multi_addcmul}, {XHAL_OP_multi_addcdiv, prepare_multi_addcdiv},
    {XHAL_OP_multi_sqrt, prepare_multi_sqrt},       {XHAL_OP_multi_norm, prepare_multi_norm},
};

}  // namespace

std::span<const KernelEntry> optimizer_ops() { return kOps; }

}  // namespace xhal::cpu
