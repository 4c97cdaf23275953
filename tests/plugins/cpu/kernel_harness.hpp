// SPDX-License-Identifier: Apache-2.0
// kernel_harness.hpp: tensors, calls and worker pools for tests of single operators of the cpu
// plugin, below the ABI.
#pragma once

#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "op.hpp"
#include "reference/dtype.hpp"

namespace xhal::cpu::test {

// Threads made for each call: slow, but every run has another schedule.
class TestPool final : public WorkerPool {
 public:
  explicit TestPool(int threads) : threads_(threads) {}
  int threads() const override { return threads_; }

 protected:
  void run(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
           void* user) override {
    thread_local bool inside = false;
    if (inside) return body(user, 0, count);
    std::atomic<int64_t> next{0};
    const auto work = [&] {
      inside = true;
      for (int64_t at; (at = next.fetch_add(grain)) < count;)
        body(user, at, std::min(count, at + grain));
      inside = false;
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads_; ++i) others.emplace_back(work);
    work();
    for (auto& t : others) t.join();
  }

 private:
  int threads_;
};

// The element formats of the conformance suite's reference, which know nothing of the plugin's own
// conversions. f64 exists only here.
inline ref::DType format_of(DType type) {
  switch (type) {
    case DType::f32:
      return ref::DType::f32;
    case DType::bf16:
      return ref::DType::bf16;
    case DType::f16:
      return ref::DType::f16;
    case DType::i8:
      return ref::DType::i8;
    case DType::i16:
      return ref::DType::i16;
    case DType::i32:
      return ref::DType::i32;
    case DType::u32:
      return ref::DType::u32;
    case DType::i64:
      return ref::DType::i64;
    case DType::boolean:
      return ref::DType::boolean;
    default:
      return ref::DType::u8;
  }
}

inline double load_element(DType type, const void* p) {
  if (type != DType::f64) return ref::decode(format_of(type), p);
  double value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline void store_element(DType type, void* p, double value) {
  if (type == DType::f64) {
    std::memcpy(p, &value, sizeof value);
  } else {
    ref::encode(format_of(type), ref::round_to(format_of(type), value), p);
  }
}

inline uint8_t code_of(DType type) {
  return type == DType::f64 ? uint8_t{XHAL_CODE_FLOAT} : ref::code_of(format_of(type));
}

using Sizes = std::vector<int64_t>;

// A view of memory that it shares with its copies.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType type, Sizes sizes) : type_(type), sizes_(std::move(sizes)), strides_(sizes_.size()) {
    int64_t step = 1;
    for (size_t d = sizes_.size(); d-- > 0; step *= std::max<int64_t>(sizes_[d], 1))
      strides_[d] = step;
    memory_ = std::make_shared<std::vector<char>>((static_cast<size_t>(step) + 1) * size_of(type));
  }

  // Values evenly spread over [low, high]; whole numbers for integers.
  static Tensor random(DType type, Sizes sizes, uint32_t seed, double low = -1, double high = 1) {
    Tensor t(type, std::move(sizes));
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> real(low, high);
    std::uniform_int_distribution<int64_t> whole(static_cast<int64_t>(low),
                                                 static_cast<int64_t>(high));
    t.fill([&](int64_t) {
      return is_float(type) ? real(generator) : static_cast<double>(whole(generator));
    });
    return t;
  }
  static Tensor of(DType type, Sizes sizes, std::initializer_list<double> values) {
    Tensor t(type, std::move(sizes));
    t.fill([&](int64_t i) { return values.begin()[i]; });
    return t;
  }

  DType type() const { return type_; }
  const Sizes& sizes() const { return sizes_; }
  int64_t size(size_t d) const { return sizes_[d]; }
  int64_t count() const {
    return std::accumulate(sizes_.begin(), sizes_.end(), int64_t{1}, std::multiplies<>());
  }

  int64_t offset_of(int64_t i) const {
    int64_t offset = offset_;
    for (size_t d = sizes_.size(); d-- > 0; i /= sizes_[d]) offset += i % sizes_[d] * strides_[d];
    return offset;
  }
  // Element i in row-major order.
  double operator[](int64_t i) const { return load_element(type_, address(offset_of(i))); }
  void set(int64_t i, double value) { store_element(type_, address(offset_of(i)), value); }
  double at(std::initializer_list<int64_t> where) const {
    return load_element(type_, address(offset_at(where)));
  }
  void fill(const std::function<double(int64_t)>& f) {
    for (int64_t i = 0; i < count(); ++i) set(i, f(i));
  }
  std::vector<double> values() const {
    std::vector<double> v;
    for (int64_t i = 0; i < count(); ++i) v.push_back((*this)[i]);
    return v;
  }

  Tensor transposed(size_t a, size_t b) const {
    Tensor t = *this;
    std::swap(t.sizes_[a], t.sizes_[b]);
    std::swap(t.strides_[a], t.strides_[b]);
    return t;
  }
  Tensor expanded(size_t d, int64_t size) const {
    Tensor t = *this;
    t.sizes_[d] = size;
    t.strides_[d] = 0;
    return t;
  }
  // Elements first, first + step, ... of dimension d.
  Tensor sliced(size_t d, int64_t first, int64_t size, int64_t step = 1) const {
    Tensor t = *this;
    t.offset_ += first * strides_[d];
    t.sizes_[d] = size;
    t.strides_[d] *= step;
    return t;
  }
  // The same values in memory where dimension d has `step` times its distance and an offset.
  Tensor spread(size_t d, int64_t step = 2) const {
    Sizes wide = sizes_;
    wide[d] = wide[d] * step + 1;
    Tensor t = Tensor(type_, wide).sliced(d, 1, sizes_[d], step);
    t.fill([&](int64_t i) { return (*this)[i]; });
    return t;
  }
  // The same values with dimensions stored in the order given, outermost first.
  Tensor stored_as(const std::vector<size_t>& order) const {
    Sizes s;
    for (size_t d : order) s.push_back(sizes_[d]);
    const Tensor dense(type_, s);
    Tensor t = dense;
    t.sizes_ = sizes_;
    for (size_t i = 0; i < order.size(); ++i) t.strides_[order[i]] = dense.strides_[i];
    t.fill([&](int64_t i) { return (*this)[i]; });
    return t;
  }
  Tensor copy() const {
    Tensor t = *this;
    t.memory_ = std::make_shared<std::vector<char>>(*memory_);
    return t;
  }

  xhal_tensor_desc desc() const {
    xhal_tensor_desc t{};
    t.offset_elements = offset_;
    t.code = code_of(type_);
    t.bits = static_cast<uint8_t>(size_of(type_) * 8);
    t.lanes = 1;
    t.ndim = static_cast<uint32_t>(sizes_.size());
    std::copy(sizes_.begin(), sizes_.end(), t.sizes);
    std::copy(strides_.begin(), strides_.end(), t.strides);
    return t;
  }
  void* data() const { return address(offset_); }
  const std::vector<char>& bytes() const { return *memory_; }

 private:
  char* address(int64_t offset) const {
    return memory_->data() + offset * static_cast<int64_t>(size_of(type_));
  }
  int64_t offset_at(std::initializer_list<int64_t> where) const {
    int64_t offset = offset_;
    size_t d = 0;
    for (int64_t i : where) offset += i * strides_[d++];
    return offset;
  }

  DType type_ = DType::f32;
  Sizes sizes_, strides_;
  int64_t offset_ = 0;
  std::shared_ptr<std::vector<char>> memory_;
};

// One request, its operands and scalars; run() prepares and runs it.
class Call {
 public:
  explicit Call(uint32_t id) : id_(id) {}
  Call& add(const Tensor& t) { return group({t}); }
  Call& absent() { return group({}); }
  Call& group(const std::vector<Tensor>& tensors) {
    group_sizes_.push_back(static_cast<uint32_t>(tensors.size()));
    for (const Tensor& t : tensors) {
      descs_.push_back(t.desc());
      tensors_.push_back(t);
    }
    return *this;
  }
  Call& attr(uint32_t index, int64_t value) {
    xhal_attribute a{index, XHAL_ATTR_INT, {}, 1};
    a.value.i = value;
    attributes_.push_back(a);
    return *this;
  }
  Call& attr_float(uint32_t index, double value) {
    xhal_attribute a{index, XHAL_ATTR_FLOAT, {}, 1};
    a.value.f = value;
    attributes_.push_back(a);
    return *this;
  }
  Call& attr_list(uint32_t index, Sizes values) {
    lists_.push_back(std::make_unique<Sizes>(std::move(values)));
    xhal_attribute a{index, XHAL_ATTR_INTS, {}, lists_.back()->size()};
    a.value.ints = lists_.back()->data();
    attributes_.push_back(a);
    return *this;
  }
  Call& scalar(double value) {
    xhal_scalar s{};
    s.kind = value == std::floor(value) ? XHAL_SCALAR_INT : XHAL_SCALAR_FLOAT;
    if (s.kind == XHAL_SCALAR_INT) {
      s.value.i = static_cast<int64_t>(value);
    } else {
      s.value.f = value;
    }
    scalars_.push_back(s);
    return *this;
  }

  Prepared prepare() {
    xhal_op_info info{};
    info.struct_size = sizeof info;
    info.id = id_;
    info.attributes = attributes_.data();
    info.attribute_count = static_cast<uint32_t>(attributes_.size());
    info.group_sizes = group_sizes_.data();
    info.group_count = static_cast<uint32_t>(group_sizes_.size());
    info.operands = descs_.data();
    info.operand_count = static_cast<uint32_t>(descs_.size());
    return prepare_op(info, refusal);
  }
  // XHAL_OK, the refusal's status, or the run's; `error` has the text.
  xhal_status run(int threads = 1) {
    const Prepared op = prepare();
    if (op == nullptr) {
      error = refusal.text;
      return refusal.status;
    }
    TestPool pool(threads);
    return run_on(*op, pool);
  }
  xhal_status run_on(const Op& op, WorkerPool& pool) {
    std::vector<void*> pointers;
    for (const Tensor& t : tensors_) pointers.push_back(t.data());
    Scalar scalars[kMaxScalars];
    if (!fill_scalars(id_, scalars_, scalars)) return XHAL_ERR_INVALID_ARGUMENT;
    // A guard behind the workspace shows a kernel that asked for too little.
    constexpr size_t kGuard = 256;
    const auto bytes = static_cast<size_t>((op.workspace_bytes + 63) / 64 * 64);
    const std::unique_ptr<char, decltype(&std::free)> workspace(
        static_cast<char*>(std::aligned_alloc(64, bytes + kGuard)), &std::free);
    std::memset(workspace.get(), 0x7f, bytes + kGuard);
    const Launch launch{pointers.data(), scalars, workspace.get(), pool, &error};
    const xhal_status status = op.run(launch);
    for (size_t i = 0; i < kGuard; ++i)
      if (workspace.get()[bytes + i] != 0x7f) {
        error = "the operator wrote behind its workspace";
        return XHAL_ERR_INTERNAL;
      }
    return status;
  }

  Refusal refusal;
  std::string error;

 private:
  uint32_t id_;
  std::vector<Tensor> tensors_;
  std::vector<xhal_tensor_desc> descs_;
  std::vector<uint32_t> group_sizes_;
  std::vector<xhal_attribute> attributes_;
  std::vector<std::unique_ptr<Sizes>> lists_;
  std::vector<xhal_scalar> scalars_;
};

// Half of the last place of a dtype, relative.
inline double unit_roundoff(DType type) {
  return type == DType::bf16 ? 0x1p-8 : type == DType::f16 ? 0x1p-11 : 0x1p-24;
}

}  // namespace xhal::cpu::test
