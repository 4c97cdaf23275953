// SPDX-License-Identifier: Apache-2.0
// copy.cpp: operators that move, set or convert elements: fill, copies, cat, flip, triangles,
// arange, block quantisation.
#include "copy.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "chunks.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kGrain = 65536;  // elements

// Any number of copies between operands.
class CopyOp final : public Op {
 public:
  void add(uint32_t to, const xhal_tensor_desc& to_view, int64_t to_offset, uint32_t from,
           const xhal_tensor_desc& from_view, int64_t from_offset) {
    if (element_count(to_view) == 0) return;
    tasks_.push_back({CopyTask(to_view, from_view), to, from,
                      to_offset * static_cast<int64_t>(size_of(dtype_of(to_view))),
                      from_offset * static_cast<int64_t>(size_of(dtype_of(from_view)))});
    const CopyTask& copy = tasks_.back().copy;
    chunks_.add(static_cast<uint32_t>(tasks_.size() - 1), copy.units(), copy.unit_elements());
  }

  xhal_status run(const Launch& launch) const override {
    chunks_.run(launch.pool, [&](const Chunk& chunk, size_t) {
      const Task& task = tasks_[chunk.item];
      task.copy.run(static_cast<char*>(launch.pointers[task.to]) + task.to_bytes,
                    static_cast<const char*>(launch.pointers[task.from]) + task.from_bytes,
                    chunk.begin, chunk.end);
    });
    return XHAL_OK;
  }

 private:
  struct Task {
    CopyTask copy;
    uint32_t to, from;  // operands
    int64_t to_bytes, from_bytes;
  };
  std::vector<Task> tasks_;
  ChunkList chunks_{kGrain};
};

Prepared prepare_strided_copy(const OpRequest& request, Refusal&) {
  auto op = std::make_unique<CopyOp>();
  op->add(1, *request.operand(1), 0, 0, *request.operand(0), 0);
  return op;
}

Prepared prepare_multi_copy(const OpRequest& request, Refusal& refusal) {
  const auto in = request.group(0), out = request.group(1);
  if (in.size() != out.size())
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
                  "`multi_copy` needs as many outputs as inputs");
  auto op = std::make_unique<CopyOp>();
  const auto count = static_cast<uint32_t>(in.size());
  for (uint32_t i = 0; i < count; ++i) op->add(count + i, out[i], 0, i, in[i], 0);
  return op;
}

Prepared prepare_flip(const OpRequest& request, Refusal& refusal) {
  xhal_tensor_desc in = *request.operand(0);
  const xhal_tensor_desc& out = *request.operand(1);
  int64_t offset = 0;
  for (int64_t dim : request.attribute_ints("dims")) {
    const int64_t d = dim < 0 ? dim + in.ndim : dim;
    if (d < 0 || d >= in.ndim)
      return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0, text("`flip` has no dimension ", dim));
    offset += (in.sizes[d] - 1) * in.strides[d];
    in.strides[d] = -in.strides[d];
  }
  auto op = std::make_unique<CopyOp>();
  op->add(1, out, 0, 0, in, offset);
  return op;
}

Prepared prepare_cat(const OpRequest& request, Refusal& refusal) {
  const auto in = request.group(0);
  const xhal_tensor_desc& out = *request.operand(1);
  const auto count = static_cast<uint32_t>(in.size());
  int64_t dim = request.attribute_int("dim");
  if (dim < 0) dim += out.ndim;
  if (dim < 0 || dim >= out.ndim)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0, text("`cat` has no dimension ", dim));
  // Of a dimension that the inputs lack the catalogue says nothing; where all have as many as
  // `out`, it has made sure that they fit.
  const auto misfit = [&](uint32_t operand) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + operand,
                  "the sizes given to `cat` do not fit each other");
  };
  auto op = std::make_unique<CopyOp>();
  int64_t at = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (element_count(in[i]) == 0) continue;  // an empty one may have any sizes
    if (in[i].ndim != out.ndim) return misfit(i);
    xhal_tensor_desc slice = out;
    slice.sizes[dim] = in[i].sizes[dim];
    op->add(count, slice, at * out.strides[dim], i, in[i], 0);
    at += in[i].sizes[dim];
  }
  if (at != out.sizes[dim] && element_count(out) != 0) return misfit(count);
  return op;
}

template <class T>
void fill_run(char* to, int64_t stride, int64_t n, const void* value) {
  T v;
  std::memcpy(&v, value, sizeof v);
  T* p = reinterpret_cast<T*>(to);
  if (stride == 1) {
    std::fill_n(p, n, v);
  } else {
    for (int64_t i = 0; i < n; ++i) p[i * stride] = v;
  }
}

class FillOp final : public Op {
 public:
  explicit FillOp(const xhal_tensor_desc& out) : type_(dtype_of(out)), size_(size_of(type_)) {
    const int64_t* strides[] = {out.strides};
    plan_ = plan_iteration(out.ndim, out.sizes, strides);
    from_double_ = storer<double>(type_, true);
    from_int_ = storer<int64_t>(type_, true);
  }

  xhal_status run(const Launch& launch) const override {
    alignas(8) char value[8];
    const Scalar& s = launch.scalars[0];
    if (s.is_int) {
      from_int_(&s.i, 1, value, 1);
    } else {
      from_double_(&s.f, 1, value, 1);
    }
    char* out = static_cast<char*>(launch.pointers[0]);
    if (plan_.ndim == 1 && plan_.inner_stride(0) == 1 &&
        worth_streaming(plan_.count * static_cast<int64_t>(size_)))
      return run_large(launch, out, value);
    launch.pool.parallel_for(plan_.count, kGrain, [&](int64_t begin, int64_t end) {
      IterPosition at(plan_, begin);
      while (begin < end) {
        const int64_t n = std::min(end - begin, at.left());
        char* to = out + at.offset(0) * static_cast<int64_t>(size_);
        switch (size_) {
          case 1:
            fill_run<uint8_t>(to, plan_.inner_stride(0), n, value);
            break;
          case 2:
            fill_run<uint16_t>(to, plan_.inner_stride(0), n, value);
            break;
          case 4:
            fill_run<uint32_t>(to, plan_.inner_stride(0), n, value);
            break;
          default:
            fill_run<uint64_t>(to, plan_.inner_stride(0), n, value);
            break;
        }
        at.advance(n);
        begin += n;
      }
    });
    return XHAL_OK;
  }

 private:
  // Whole lines past the caches; what is left and right of them as usual.
  xhal_status run_large(const Launch& launch, char* out, const void* value) const {
    alignas(64) char pattern[64];
    for (size_t i = 0; i < 64; i += size_) std::memcpy(pattern + i, value, size_);
    const int64_t bytes = plan_.count * static_cast<int64_t>(size_);
    const auto head = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(out) % 64);
    const int64_t lines = (bytes - head) / 64, tail = bytes - head - lines * 64;
    // `head` is a multiple of the element, so the pattern starts anew behind it.
    std::memcpy(out, pattern, static_cast<size_t>(head));
    std::memcpy(out + head + lines * 64, pattern, static_cast<size_t>(tail));
    const StreamFillFn fill = stream_filler();
    launch.pool.parallel_for(lines, 4096, [&](int64_t begin, int64_t end) {
      fill(pattern, out + head + begin * 64, static_cast<size_t>(end - begin) * 64);
      finish_streaming();
    });
    return XHAL_OK;
  }

  IterPlan plan_;
  DType type_;
  size_t size_;
  StoreFn<double> from_double_;
  StoreFn<int64_t> from_int_;
};

Prepared prepare_fill(const OpRequest& request, Refusal&) {
  return std::make_unique<FillOp>(*request.operand(0));
}

class ArangeOp final : public Op {
 public:
  explicit ArangeOp(const xhal_tensor_desc& out)
      : count_(out.sizes[0]), stride_(out.strides[0]), type_(dtype_of(out)) {
    from_double_ = storer<double>(type_, false);
    from_int_ = storer<int64_t>(type_, false);
  }

  xhal_status run(const Launch& launch) const override {
    launch.pool.parallel_for(count_, kGrain, [&](int64_t begin, int64_t end) {
      if (is_float(type_)) return write(launch, from_double_, begin, end);
      write(launch, from_int_, begin, end);
    });
    return XHAL_OK;
  }

 private:
  template <class T>
  void write(const Launch& launch, StoreFn<T> store, int64_t begin, int64_t end) const {
    const Scalar *start = &launch.scalars[0], *step = &launch.scalars[1];
    T block[256];
    for (int64_t i = begin; i < end; i += 256) {
      const int64_t n = std::min<int64_t>(end - i, 256);
      for (int64_t k = 0; k < n; ++k) {
        if constexpr (std::is_same_v<T, double>) {
          block[k] = start->as_double() + static_cast<double>(i + k) * step->as_double();
        } else {
          block[k] = start->as_int() + (i + k) * step->as_int();
        }
      }
      store(block, static_cast<size_t>(n),
            static_cast<char*>(launch.pointers[0]) +
                i * stride_ * static_cast<int64_t>(size_of(type_)),
            stride_);
    }
  }

  int64_t count_, stride_;
  DType type_;
  StoreFn<double> from_double_;
  StoreFn<int64_t> from_int_;
};

Prepared prepare_arange(const OpRequest& request, Refusal&) {
  return std::make_unique<ArangeOp>(*request.operand(0));
}

// Row by row: a run of the row is copied, what is left and right of it is zero.
class TriangleOp final : public Op {
 public:
  TriangleOp(const xhal_tensor_desc& in, const xhal_tensor_desc& out, int64_t diagonal, bool lower)
      : diagonal_(diagonal), lower_(lower), size_(size_of(dtype_of(out))) {
    rows_ = out.sizes[out.ndim - 2];
    columns_ = out.sizes[out.ndim - 1];
    in_stride_ = in.strides[in.ndim - 1];
    out_stride_ = out.strides[out.ndim - 1];
    const int64_t* strides[] = {out.strides, in.strides};
    plan_ = plan_iteration(out.ndim - 1, out.sizes, strides, true);
    if (columns_ == 0) plan_.count = 0;
  }

  xhal_status run(const Launch& launch) const override {
    launch.pool.parallel_for(plan_.count,
                             std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns_)),
                             [&](int64_t begin, int64_t end) {
                               switch (size_) {
                                 case 1:
                                   return write<uint8_t>(launch, begin, end);
                                 case 2:
                                   return write<uint16_t>(launch, begin, end);
                                 case 4:
                                   return write<uint32_t>(launch, begin, end);
                                 default:
                                   return write<uint64_t>(launch, begin, end);
                               }
                             });
    return XHAL_OK;
  }

 private:
  template <class T>
  void write(const Launch& launch, int64_t begin, int64_t end) const {
    IterPosition at(plan_, begin);
    for (int64_t index = begin; index < end; ++index, at.advance(1)) {
      const int64_t edge =
          std::clamp<int64_t>(index % rows_ + diagonal_ + (lower_ ? 1 : 0), 0, columns_);
      const int64_t first = lower_ ? 0 : edge, last = lower_ ? edge : columns_;
      const T* from = static_cast<const T*>(launch.pointers[0]) + at.offset(1);
      T* to = static_cast<T*>(launch.pointers[1]) + at.offset(0);
      for (int64_t i = 0; i < first; ++i) to[i * out_stride_] = 0;
      if (in_stride_ == 1 && out_stride_ == 1) {
        std::memmove(to + first, from + first, static_cast<size_t>(last - first) * sizeof(T));
      } else {
        for (int64_t i = first; i < last; ++i) to[i * out_stride_] = from[i * in_stride_];
      }
      for (int64_t i = last; i < columns_; ++i) to[i * out_stride_] = 0;
    }
  }

  IterPlan plan_;  // of the rows
  int64_t rows_, columns_, diagonal_, in_stride_, out_stride_;
  bool lower_;
  size_t size_;
};

template <bool kLower>
Prepared prepare_triangle(const OpRequest& request, Refusal& refusal) {
  const xhal_tensor_desc &in = *request.operand(0), &out = *request.operand(1);
  if (out.ndim < 2 || dtype_of(in) != dtype_of(out))
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1,
                  text("`", op_name(request.id()), "` needs matrices of one format"));
  // Rows are visited in order, so that the row number is the index modulo their number.
  return std::make_unique<TriangleOp>(in, out, request.attribute_int("diagonal"), kLower);
}

// A tensor cut into blocks along its last dimension, with one scale for each.
class BlockOp : public Op {
 public:
  BlockOp(const OpRequest& request, uint32_t values, uint32_t codes, uint32_t scale, int64_t block)
      : values_(values), codes_(codes), scale_(scale) {
    const auto operand = [&](uint32_t i) -> const xhal_tensor_desc& {
      return request.info().operands[i];
    };
    const xhal_tensor_desc& v = operand(values);
    const uint32_t last = v.ndim - 1;
    columns_ = v.sizes[last];
    block_ = std::min(block, std::max<int64_t>(1, columns_));  // a block may be of any size
    value_stride_ = v.strides[last];
    code_stride_ = operand(codes).strides[last];
    scale_stride_ = operand(scale).strides[last];
    type_ = dtype_of(v);
    const int64_t* strides[] = {v.strides, operand(codes).strides, operand(scale).strides};
    rows_ = plan_iteration(last, v.sizes, strides, true);
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t blocks = (columns_ + block_ - 1) / block_;
    launch.pool.parallel_for(rows_.count * blocks, std::max<int64_t>(1, kGrain / 4 / block_),
                             [&](int64_t begin, int64_t end) {
                               for (int64_t i = begin; i < end; ++i)
                                 run_block(launch, i / blocks, i % blocks);
                             });
    return XHAL_OK;
  }

 protected:
  static constexpr int64_t kPiece = 256;  // elements converted at a time

  // One block.
  virtual void run(char* values, int8_t* codes, float* scale, int64_t count) const = 0;

  int64_t value_stride_ = 1, code_stride_ = 1;
  DType type_{};

 private:
  void run_block(const Launch& launch, int64_t row, int64_t block) const {
    const IterPosition at(rows_, row);
    const int64_t first = block * block_, size = static_cast<int64_t>(size_of(type_));
    run(static_cast<char*>(launch.pointers[values_]) +
            (at.offset(0) + first * value_stride_) * size,
        static_cast<int8_t*>(launch.pointers[codes_]) + at.offset(1) + first * code_stride_,
        static_cast<float*>(launch.pointers[scale_]) + at.offset(2) + block * scale_stride_,
        std::min(block_, columns_ - first));
  }

  uint32_t values_, codes_, scale_;  // operands
  int64_t block_, columns_, scale_stride_;
  IterPlan rows_;
};

class QuantiseOp final : public BlockOp {
 public:
  QuantiseOp(const OpRequest& request, int64_t block)
      : BlockOp(request, 0, 1, 2, block), load_(loader<float>(type_, value_stride_ == 1)) {}

 private:
  void for_each_piece(const char* values, int64_t count, auto&& body) const {
    float piece[kPiece];
    const int64_t bytes = value_stride_ * static_cast<int64_t>(size_of(type_));
    for (int64_t i = 0; i < count; i += kPiece) {
      const int64_t n = std::min(kPiece, count - i);
      load_(values + i * bytes, value_stride_, static_cast<size_t>(n), piece);
      body(i, n, piece);
    }
  }

  void run(char* values, int8_t* codes, float* scale, int64_t count) const override {
    float largest = 0;
    for_each_piece(values, count, [&](int64_t, int64_t n, const float* piece) {
      for (int64_t k = 0; k < n; ++k) {
        const float magnitude = std::fabs(piece[k]);
        if (magnitude > largest || std::isnan(magnitude)) largest = magnitude;
        if (std::isnan(largest)) return;
      }
    });
    *scale = largest / 127;
    const bool usable = *scale != 0 && std::isfinite(*scale);
    for_each_piece(values, count, [&](int64_t first, int64_t n, const float* piece) {
      for (int64_t k = 0; k < n; ++k) {
        const float code = usable ? std::nearbyint(piece[k] / *scale) : 0;
        codes[(first + k) * code_stride_] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
      }
    });
  }

  LoadFn<float> load_;
};

class DequantiseOp final : public BlockOp {
 public:
  DequantiseOp(const OpRequest& request, int64_t block)
      : BlockOp(request, 2, 0, 1, block), store_(storer<float>(type_, value_stride_ == 1)) {}

 private:
  void run(char* values, int8_t* codes, float* scale, int64_t count) const override {
    float piece[kPiece];
    const int64_t bytes = value_stride_ * static_cast<int64_t>(size_of(type_));
    for (int64_t i = 0; i < count; i += kPiece) {
      const int64_t n = std::min(kPiece, count - i);
      for (int64_t k = 0; k < n; ++k)
        piece[k] = static_cast<float>(codes[(i + k) * code_stride_]) * *scale;
      store_(piece, static_cast<size_t>(n), values + i * bytes, value_stride_);
    }
  }

  StoreFn<float> store_;
};

template <class BlockOperator>
Prepared prepare_blocks(const OpRequest& request, Refusal& refusal) {
  const int64_t block = request.attribute_int("block");
  if (block < 1)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1,
                  text("`", op_name(request.id()), "` needs a `block` of at least 1"));
  return std::make_unique<BlockOperator>(request, block);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_fill, prepare_fill},
    {XHAL_OP_strided_copy, prepare_strided_copy},
    {XHAL_OP_cat, prepare_cat},
    {XHAL_OP_tril, prepare_triangle<true>},
    {XHAL_OP_triu, prepare_triangle<false>},
    {XHAL_OP_arange, prepare_arange},
    {XHAL_OP_flip, prepare_flip},
    {XHAL_OP_multi_copy, prepare_multi_copy},
    {XHAL_OP_quantise_block, prepare_blocks<QuantiseOp>},
    {XHAL_OP_dequantise_block, prepare_blocks<DequantiseOp>},
};

}  // namespace

std::span<const KernelEntry> copy_ops() { return kOps; }

}  // namespace xhal::cpu
