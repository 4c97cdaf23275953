// SPDX-License-Identifier: Apache-2.0
// random.cpp: random numbers. Element i (row-major) comes from word i % 4 of counter offset + i /
// 4, whatever the layout of the tensor, the instruction set and the number of threads.
#include "random.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "convert.hpp"
#include "iterate.hpp"
#include "xhal/half.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kBlock = 1024;  // elements; a multiple of 4
constexpr int64_t kBlocksOfGrain = 16;

// Bits of a uniform number that the dtype can hold, so that rounding cannot reach 1.
int digits_of(DType type) { return type == DType::bf16 ? 8 : type == DType::f16 ? 11 : 24; }

// Nests of up to three operands in row-major order, the block's part of one written or read.
class Elements {
 public:
  Elements(const xhal_tensor_desc& t, uint32_t operand)
      : operand_(operand), size_(static_cast<int64_t>(size_of(dtype_of(t)))) {
    const int64_t* strides[] = {t.strides};
    plan_ = plan_iteration(t.ndim, t.sizes, strides, true);
    const bool dense = plan_.inner_stride(0) == 1;
    load_ = loader<float>(dtype_of(t), dense);
    store_ = storer<float>(dtype_of(t), dense);
    store_int_ = storer<int64_t>(dtype_of(t), dense);
  }
  int64_t count() const { return plan_.count; }

  void read(void* const* pointers, int64_t first, int64_t n, float* to) const {
    each_run(pointers, first, n, [&](char* p, int64_t done, size_t k) {
      load_(p, plan_.inner_stride(0), k, to + done);
    });
  }
  void write(void* const* pointers, int64_t first, int64_t n, const float* from) const {
    each_run(pointers, first, n, [&](char* p, int64_t done, size_t k) {
      store_(from + done, k, p, plan_.inner_stride(0));
    });
  }
  void write(void* const* pointers, int64_t first, int64_t n, const int64_t* from) const {
    each_run(pointers, first, n, [&](char* p, int64_t done, size_t k) {
      store_int_(from + done, k, p, plan_.inner_stride(0));
    });
  }

 private:
  template <class F>
  void each_run(void* const* pointers, int64_t first, int64_t n, F&& f) const {
    char* base = static_cast<char*>(pointers[operand_]);
    IterPosition at(plan_, first);
    for (int64_t done = 0; done < n;) {
      const int64_t k = std::min(n - done, at.left());
      f(base + at.offset(0) * size_, done, static_cast<size_t>(k));
      at.advance(k);
      done += k;
    }
  }

  IterPlan plan_;
  uint32_t operand_;
  int64_t size_;
  LoadFn<float> load_;
  StoreFn<float> store_;
  StoreFn<int64_t> store_int_;
};

uint64_t seed_of(const Launch& launch, int first) {
  return static_cast<uint64_t>(launch.scalars[first].as_int());
}

class RandomOp : public Op {
 protected:
  explicit RandomOp(const OpRequest& request, uint32_t group)
      : kernels_(random_kernels()),
        out_(*request.operand(group), request.first_operand(group)),
        type_(dtype_of(*request.operand(group))) {}

  // body(first element, number of elements, their words), block by block on all threads.
  template <class Body>
  void each_block(const Launch& launch, int seed_scalar, Body&& body) const {
    const uint64_t seed = seed_of(launch, seed_scalar), offset = seed_of(launch, seed_scalar + 1);
    const int64_t blocks = (out_.count() + kBlock - 1) / kBlock;
    launch.pool.parallel_for(blocks, kBlocksOfGrain, [&](int64_t begin, int64_t end) {
      alignas(64) uint32_t words[kBlock];
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kBlock, n = std::min(kBlock, out_.count() - first);
        kernels_.words(seed, offset + static_cast<uint64_t>(first / 4), words,
                       static_cast<size_t>((n + 3) / 4));
        body(first, n, words);
      }
    });
  }

  const RandomKernels& kernels_;
  Elements out_;
  DType type_;
};

// The largest number of a dtype that is less than `bound`.
float below(DType type, float bound) {
  float next = std::nextafter(bound, -std::numeric_limits<float>::infinity());
  if (type == DType::f32) return next;
  const auto rounded = [&](float x) {
    return type == DType::bf16 ? to_float(to_bf16(x)) : to_float(to_f16(x));
  };
  float step = std::max(std::fabs(bound), 1e-7f) * (type == DType::bf16 ? 0x1p-9f : 0x1p-12f);
  for (next = rounded(bound); next >= bound; step += step) next = rounded(bound - step);
  return next;
}

class UniformOp final : public RandomOp {
 public:
  explicit UniformOp(const OpRequest& request) : RandomOp(request, 0) {}

  xhal_status run(const Launch& launch) const override {
    const auto from = static_cast<float>(launch.scalars[0].as_double());
    const auto to = static_cast<float>(launch.scalars[1].as_double());
    const float most = to > from ? below(type_, to) : from;
    const int digits = digits_of(type_);
    each_block(launch, 2, [&](int64_t first, int64_t n, const uint32_t* words) {
      alignas(64) float values[kBlock];
      kernels_.unit(words, values, static_cast<size_t>(n), digits);
      if (from != 0 || to != 1)
        for (int64_t i = 0; i < n; ++i) values[i] = std::min(from + values[i] * (to - from), most);
      out_.write(launch.pointers, first, n, values);
    });
    return XHAL_OK;
  }
};

class NormalOp final : public RandomOp {
 public:
  explicit NormalOp(const OpRequest& request) : RandomOp(request, 0) {}

  xhal_status run(const Launch& launch) const override {
    const auto mean = static_cast<float>(launch.scalars[0].as_double());
    const auto deviation = static_cast<float>(launch.scalars[1].as_double());
    each_block(launch, 2, [&](int64_t first, int64_t n, const uint32_t* words) {
      alignas(64) float values[kBlock];
      kernels_.normal(words, values, static_cast<size_t>((n + 3) / 4 * 4));
      for (int64_t i = 0; i < n; ++i) values[i] = values[i] * deviation + mean;
      out_.write(launch.pointers, first, n, values);
    });
    return XHAL_OK;
  }
};

class ExponentialOp final : public RandomOp {
 public:
  explicit ExponentialOp(const OpRequest& request) : RandomOp(request, 0) {}

  xhal_status run(const Launch& launch) const override {
    const auto rate = static_cast<float>(launch.scalars[0].as_double());
    // Neither the division nor the rounding to the dtype may make a 0, which the distribution
    // lacks.
    const float least = std::isinf(rate) ? 0.0f : type_ == DType::f16 ? 0x1p-24f : 0x1p-126f;
    each_block(launch, 1, [&](int64_t first, int64_t n, const uint32_t* words) {
      alignas(64) float values[kBlock];
      kernels_.exponential(words, values, static_cast<size_t>(n));
      for (int64_t i = 0; i < n; ++i) values[i] = std::max(values[i] / rate, least);
      out_.write(launch.pointers, first, n, values);
    });
    return XHAL_OK;
  }
};

class RandomIntOp final : public RandomOp {
 public:
  explicit RandomIntOp(const OpRequest& request) : RandomOp(request, 0) {}

  xhal_status run(const Launch& launch) const override {
    const int64_t from = launch.scalars[0].as_int();
    const uint64_t range =
        static_cast<uint64_t>(launch.scalars[1].as_int()) - static_cast<uint64_t>(from);
    if (range > uint64_t{1} << 32 || range == 0) return run_wide(launch, from, range);
    each_block(launch, 2, [&](int64_t first, int64_t n, const uint32_t* words) {
      alignas(64) int64_t values[kBlock];
      for (int64_t i = 0; i < n; ++i)
        values[i] = from + static_cast<int64_t>(words[i] * range >> 32);
      out_.write(launch.pointers, first, n, values);
    });
    return XHAL_OK;
  }

 private:
  // Ranges above 2^32 take two words an element: words 2 * (i % 2) and the next of counter offset +
  // i / 2.
  xhal_status run_wide(const Launch& launch, int64_t from, uint64_t range) const {
    const uint64_t seed = seed_of(launch, 2), offset = seed_of(launch, 3);
    constexpr int64_t kHalf = kBlock / 2;
    launch.pool.parallel_for(
        (out_.count() + kHalf - 1) / kHalf, kBlocksOfGrain, [&](int64_t begin, int64_t end) {
          alignas(64) uint32_t words[kBlock];
          alignas(64) int64_t values[kHalf];
          for (int64_t block = begin; block < end; ++block) {
            const int64_t first = block * kHalf, n = std::min(kHalf, out_.count() - first);
            kernels_.words(seed, offset + static_cast<uint64_t>(first / 2), words,
                           static_cast<size_t>((n + 1) / 2));
            for (int64_t i = 0; i < n; ++i) {
              const uint64_t x = uint64_t{words[2 * i + 1]} << 32 | words[2 * i];
              const uint64_t scaled =
                  range == 0
                      ? x
                      : static_cast<uint64_t>(static_cast<unsigned __int128>(x) * range >> 64);
              values[i] = static_cast<int64_t>(static_cast<uint64_t>(from) + scaled);
            }
            out_.write(launch.pointers, first, n, values);
          }
        });
    return XHAL_OK;
  }
};

class BernoulliOp final : public RandomOp {
 public:
  explicit BernoulliOp(const OpRequest& request) : RandomOp(request, 1) {
    if (const auto* p = request.operand(0); p != nullptr) p_.emplace(*p, 0);
  }

  xhal_status run(const Launch& launch) const override {
    const auto p = static_cast<float>(launch.scalars[0].as_double());
    std::atomic<bool> fine{p_ || (p >= 0 && p <= 1)};
    each_block(launch, 1, [&](int64_t first, int64_t n, const uint32_t* words) {
      alignas(64) float values[kBlock], chances[kBlock];
      kernels_.unit(words, values, static_cast<size_t>(n), 24);
      if (p_) {
        p_->read(launch.pointers, first, n, chances);
        bool inside = true;  // written so that NaN is not
        for (int64_t i = 0; i < n; ++i) inside &= chances[i] >= 0 && chances[i] <= 1;
        if (!inside) fine.store(false, std::memory_order_relaxed);
      }
      for (int64_t i = 0; i < n; ++i) values[i] = values[i] < (p_ ? chances[i] : p) ? 1.0f : 0.0f;
      out_.write(launch.pointers, first, n, values);
    });
    if (fine.load(std::memory_order_relaxed)) return XHAL_OK;
    *launch.error = "`bernoulli` was given a probability that is not in [0, 1]";
    return XHAL_ERR_INVALID_ARGUMENT;
  }

 private:
  std::optional<Elements> p_;
};

class DropoutOp final : public RandomOp {
 public:
  explicit DropoutOp(const OpRequest& request)
      : RandomOp(request, 1), in_(*request.operand(0), 0), mask_(*request.operand(2), 2) {}

  xhal_status run(const Launch& launch) const override {
    const auto p = static_cast<float>(launch.scalars[0].as_double());
    const float scale = p < 1 ? static_cast<float>(1 / (1 - launch.scalars[0].as_double())) : 0.0f;
    each_block(launch, 1, [&](int64_t first, int64_t n, const uint32_t* words) {
      alignas(64) float keep[kBlock], values[kBlock];
      kernels_.unit(words, keep, static_cast<size_t>(n), 24);
      in_.read(launch.pointers, first, n, values);
      for (int64_t i = 0; i < n; ++i) {
        const bool kept = keep[i] >= p;
        keep[i] = kept ? 1.0f : 0.0f;
        values[i] = kept ? values[i] * scale : 0.0f;
      }
      out_.write(launch.pointers, first, n, values);
      mask_.write(launch.pointers, first, n, keep);
    });
    return XHAL_OK;
  }

 private:
  Elements in_, mask_;
};

// Fisher-Yates with 64 bits a step: words 2 * (i % 2) and the next of counter offset + i / 2 choose
// who changes place with i.
class RandpermOp final : public RandomOp {
 public:
  explicit RandpermOp(const OpRequest& request) : RandomOp(request, 0) {
    workspace_bytes = static_cast<uint64_t>(out_.count()) * sizeof(int64_t);
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t n = out_.count();
    auto* order = static_cast<int64_t*>(launch.workspace);
    for (int64_t i = 0; i < n; ++i) order[i] = i;
    const uint64_t seed = seed_of(launch, 0), offset = seed_of(launch, 1);
    uint32_t words[kBlock];
    for (int64_t i = 0; i < n; ++i) {
      const int64_t in_block = i % (kBlock / 2);
      if (in_block == 0)
        kernels_.words(seed, offset + static_cast<uint64_t>(i / 2), words, kBlock / 4);
      const uint64_t x = uint64_t{words[2 * in_block + 1]} << 32 | words[2 * in_block];
      const auto left = static_cast<uint64_t>(n - i);
      std::swap(order[i],
                order[i + static_cast<int64_t>(static_cast<unsigned __int128>(x) * left >> 64)]);
    }
    out_.write(launch.pointers, 0, n, order);
    return XHAL_OK;
  }
};

template <class T>
Prepared prepare(const OpRequest& request, Refusal&) {
  return std::make_unique<T>(request);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_uniform, prepare<UniformOp>},      {XHAL_OP_normal, prepare<NormalOp>},
    {XHAL_OP_random_int, prepare<RandomIntOp>}, {XHAL_OP_bernoulli, prepare<BernoulliOp>},
    {XHAL_OP_dropout, prepare<DropoutOp>},      {XHAL_OP_exponential, prepare<ExponentialOp>},
    {XHAL_OP_randperm, prepare<RandpermOp>},
};

}  // namespace

std::span<const KernelEntry> random_ops() { return kOps; }

}  // namespace xhal::cpu
