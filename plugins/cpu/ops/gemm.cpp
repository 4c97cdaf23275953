// SPDX-License-Identifier: Apache-2.0
// gemm.cpp: matrix products: cut into tiles of fixed sizes, one single-threaded primitive a tile.
//
// The cut depends on the shapes only, so results do not depend on the number of threads. oneDNN 2.6
// is fast for dense matrices, transposed or not, and slow for parts of larger ones: what is not
// dense, or not of a dtype it multiplies, is packed first.
#include <algorithm>
#include <optional>

#include "dnnl.hpp"
#include "gemm_blas.hpp"
#include "gemm_matrix.hpp"
#include "pointwise.hpp"
#include "scratch.hpp"

namespace xhal::cpu {
namespace {

enum Group : uint32_t { kA, kB, kC, kBias, kOut };

PointwiseFn<float> activation_kernel(Activation activation) {
  switch (activation) {
    case Activation::none:
      return nullptr;
    case Activation::relu:
      return float_kernel(Kernel::relu);
    case Activation::gelu:
      return float_kernel(Kernel::gelu);
    case Activation::gelu_tanh:
      return float_kernel(Kernel::gelu_tanh);
  }
  return nullptr;
}

class GemmOp final : public Op {
 public:
  View a, b, c, out;
  bool has_c = false;
  int64_t batch = 1, m = 0, n = 0, k = 0;
  DType bias_type = DType::other;
  int64_t bias_stride = 1;
  uint32_t bias_operand = 0;
  Activation activation = Activation::none;

  void plan();
  bool make_kernels(std::string& why);
  xhal_status run(const Launch& launch) const override;

 private:
  struct Run;
  // How a tile reaches `out`: written by the primitive, added to it, or as f32 in scratch memory
  // and finished from there.
  enum Mode : uint8_t { direct, direct_add, through_f32, mode_count };

  Mode mode_of(float alpha, float beta) const;
  bool make_kernel(Mode mode, bool last_rows, bool last_columns, std::string& why);
  const char* prepare_bias(const Launch& launch) const;
  const char* prepare_b(const Launch& launch) const;
  const char* weights_of(const Run& r, int64_t item, int64_t j, int64_t columns,
                         char* packed) const;
  void run_tiles(Run& r, int64_t begin, int64_t end) const;
  void copy_c(const Run& r, int64_t item, int64_t i, int64_t rows, int64_t j, int64_t columns,
              float* row) const;
  void finish(const Run& r, float* tile, int64_t item, int64_t i, int64_t rows, int64_t j,
              int64_t columns, float* row_of_c) const;

  DType type_ = DType::f32;  // of the elements that are multiplied
  bool a_transposed_ = false, b_transposed_ = false;
  bool pack_a_ = false;  // a tile at a time
  enum class PackB : uint8_t { no, whole, tile } pack_b_ = PackB::no;
  bool direct_out_ = false;  // the primitive may write `out`
  bool bias_as_is_ = false;
  Tiles tiles_;
  const BlasGemm* blas_ = nullptr;
  // The workspace: packed b, bias in f32, then areas of {packed a, packed part of b, tile, a row of
  // c, the primitive's own scratch}.
  uint64_t whole_b_bytes_ = 0, bias_bytes_ = 0;
  uint64_t packed_a_bytes_ = 0, packed_b_bytes_ = 0, tile_bytes_ = 0, row_bytes_ = 0,
           scratch_bytes_ = 0;
  uint64_t area_bytes() const {
    return packed_a_bytes_ + packed_b_bytes_ + tile_bytes_ + row_bytes_ + scratch_bytes_;
  }
  int areas_ = 1;
  std::shared_ptr<const DnnlKernel> kernels_[mode_count][2][2];
};

struct GemmOp::Run {
  const Launch& launch;
  Mode mode;
  float alpha, beta;
  const char* bias;
  const char* b;
  ScratchAreas areas;
  std::atomic<bool> failed{false};
};

void GemmOp::plan() {
  // Matrices that share b and follow each other in memory are one tall matrix.
  const auto joins = [](const View& v) { return v.batch_stride == v.rows * v.row_stride; };
  if (batch > 1 && b.batch_stride == 0 && joins(a) && joins(out) && (!has_c || joins(c))) {
    m *= batch;
    batch = 1;
    for (View* v : {&a, &c, &out}) v->rows = m;
  }
  if (bias_type == DType::other && !out.row_major() && out.column_major()) {  // out^T = b^T a^T
    std::swap(a, b);
    std::swap(m, n);
    for (View* v : {&a, &b, &c, &out}) *v = v->transposed();
  }
  tiles_ = cut_into_tiles(batch, m, n, k);

  type_ = a.type == DType::bf16 && dnnl_has_bf16() ? DType::bf16 : DType::f32;
  if (type_ == DType::f32 && !dnnl_has_avx512()) blas_ = BlasGemm::get();
  a_transposed_ = a.column_major() && !a.row_major();
  b_transposed_ = b.column_major() && !b.row_major();
  const bool one_column_tile = tiles_.column_count <= 1;
  bool a_fits = a_transposed_ ? a.leading(true) == m && tiles_.row_count <= 1
                              : a.row_major() && a.leading(false) == k;
  bool b_fits = b_transposed_ ? b.leading(true) == k
                              : b.row_major() && b.leading(false) == n && one_column_tile;
  bool out_fits = out.row_major() && out.leading(false) == n && one_column_tile;
  if (blas_ != nullptr) {  // takes parts as they are, but only adds and stores
    a_fits = a.row_major() || a.column_major();
    b_fits = b.row_major() || b.column_major();
    out_fits = out.row_major() && bias_type == DType::other && activation == Activation::none;
  }
  pack_a_ = a.type != type_ || !a_fits;
  if (b.type != type_ || !b_fits) pack_b_ = one_column_tile ? PackB::whole : PackB::tile;
  direct_out_ = out_fits && k > 0 && (out.type == DType::f32 || out.type == type_);
  bias_as_is_ = bias_type == DType::f32 && (bias_stride == 1 || n == 1);

  const auto bytes_of = [](int64_t count, DType type) {
    return align64(static_cast<uint64_t>(count) * size_of(type));
  };
  if (pack_b_ == PackB::whole)
    whole_b_bytes_ = bytes_of((b.batch_stride == 0 ? 1 : batch) * k * n, type_);
  if (pack_b_ == PackB::tile) packed_b_bytes_ = bytes_of(k * tiles_.columns, type_);
  if (bias_type != DType::other && !bias_as_is_) bias_bytes_ = bytes_of(n, DType::f32);
  if (pack_a_) packed_a_bytes_ = bytes_of(tiles_.rows * k, type_);
  tile_bytes_ = bytes_of(tiles_.rows * tiles_.columns, DType::f32);
  if (has_c) row_bytes_ = bytes_of(tiles_.columns, DType::f32);
}

bool GemmOp::make_kernel(Mode mode, bool last_rows, bool last_columns, std::string& why) {
  MatmulSpec spec;
  spec.m = last_rows ? m - (tiles_.row_count - 1) * tiles_.rows : tiles_.rows;
  spec.n = last_columns ? n - (tiles_.column_count - 1) * tiles_.columns : tiles_.columns;
  spec.k = k;
  spec.in = type_;
  spec.out = mode == through_f32 ? DType::f32 : out.type;
  spec.src_transposed = a_transposed_;
  spec.weights_transposed = b_transposed_;
  spec.src_stride = a_transposed_ ? spec.m : k;
  spec.weights_stride = b_transposed_ ? k : spec.n;
  spec.dst_stride = spec.n;
  spec.accumulate = mode == direct_add;
  if (mode != through_f32) {
    if (bias_type != DType::other) spec.bias = DType::f32;
    spec.activation = activation;
  }
  auto& kernel = kernels_[mode][last_rows][last_columns];
  kernel = DnnlKernel::matmul(spec, why);
  if (kernel != nullptr)
    scratch_bytes_ = std::max(scratch_bytes_, align64(kernel->scratch_bytes()));
  return kernel != nullptr;
}

bool GemmOp::make_kernels(std::string& why) {
  const bool any = batch > 0 && m > 0 && n > 0 && k > 0 && blas_ == nullptr;
  for (const Mode mode : {direct, direct_add, through_f32}) {
    if (!any || (mode != through_f32 && (!direct_out_ || (mode == direct_add) != has_c))) continue;
    for (const bool last_rows : {false, true})
      for (const bool last_columns : {false, true}) {
        // With one tile in a direction, it is the last one.
        if ((!last_rows && tiles_.row_count == 1) || (!last_columns && tiles_.column_count == 1))
          continue;
        if (!make_kernel(mode, last_rows, last_columns, why)) return false;
      }
  }
  areas_ = ScratchAreas::count_for(batch * tiles_.row_count * tiles_.column_count);
  workspace_bytes = whole_b_bytes_ + bias_bytes_ + static_cast<uint64_t>(areas_) * area_bytes();
  return true;
}

GemmOp::Mode GemmOp::mode_of(float alpha, float beta) const {
  if (!direct_out_ || alpha != 1.0f) return through_f32;
  if (!has_c) return direct;
  const bool exact = c.type == out.type || out.type == DType::f32;
  return beta == 1.0f && exact ? direct_add : through_f32;
}

const char* GemmOp::prepare_bias(const Launch& launch) const {
  if (bias_type == DType::other) return nullptr;
  const auto* given = static_cast<const char*>(launch.pointers[bias_operand]);
  if (bias_as_is_) return given;
  auto* to = static_cast<char*>(launch.workspace) + whole_b_bytes_;
  loader<float>(bias_type, bias_stride == 1)(given, bias_stride, static_cast<size_t>(n),
                                             reinterpret_cast<float*>(to));
  return to;
}

const char* GemmOp::prepare_b(const Launch& launch) const {
  const auto* given = static_cast<const char*>(launch.pointers[b.operand]);
  if (pack_b_ != PackB::whole) return given;
  auto* to = static_cast<char*>(launch.workspace);
  if (k == 0 || n == 0) return to;
  const Packer packer(b, type_);
  const int64_t lines = packer.lines(k, n), length = k * n / lines;
  const int64_t item_bytes = k * n * static_cast<int64_t>(size_of(type_));
  const int64_t items = b.batch_stride == 0 ? 1 : batch;
  const int64_t grain = std::max<int64_t>(1, 32768 / length);
  launch.pool.parallel_for(items * lines, grain, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const int64_t item = at / lines, first = at % lines;
      const int64_t last = std::min(lines, first + end - at);
      packer.run(b, b.at(given, item, 0, 0), first, last, length, to + item * item_bytes);
      at += last - first;
    }
  });
  return to;
}

// Columns [j, j + columns) of matrix `item` of b, as the primitive takes them.
const char* GemmOp::weights_of(const Run& r, int64_t item, int64_t j, int64_t columns,
                               char* packed) const {
  const auto size = static_cast<int64_t>(size_of(type_));
  if (b.batch_stride == 0) item = 0;
  if (pack_b_ == PackB::whole)
    return r.b + item * k * n * size + (b_transposed_ ? j * k : 0) * size;
  const char* const given = b.at(r.b, item, 0, j);
  if (pack_b_ == PackB::no) return given;
  const Packer packer(b, type_);
  const int64_t lines = packer.lines(k, columns);
  packer.run(b, given, 0, lines, k * columns / lines, packed);
  return packed;
}

xhal_status GemmOp::run(const Launch& launch) const {
  if (batch == 0 || m == 0 || n == 0) return XHAL_OK;
  const auto alpha = static_cast<float>(launch.scalars[0].as_double());
  const auto beta = has_c ? static_cast<float>(launch.scalars[1].as_double()) : 0.0f;
  auto* areas = static_cast<char*>(launch.workspace) + whole_b_bytes_ + bias_bytes_;
  Run r{launch,
        mode_of(alpha, beta),
        alpha,
        beta,
        prepare_bias(launch),
        prepare_b(launch),
        ScratchAreas(areas, area_bytes(), areas_)};
  const double tile_flops =
      2.0 * static_cast<double>(tiles_.rows * tiles_.columns) * static_cast<double>(k);
  const auto grain = static_cast<int64_t>(std::min(1e6, 1e6 / std::max(tile_flops, 1.0))) + 1;
  launch.pool.parallel_for(batch * tiles_.row_count * tiles_.column_count, grain,
                           [&](int64_t begin, int64_t end) { run_tiles(r, begin, end); });
  if (!r.failed) return XHAL_OK;
  *launch.error =
      "gemm: oneDNN could not run its matmul primitive; the usual cause is a lack of memory";
  return XHAL_ERR_DEVICE;
}

void GemmOp::run_tiles(Run& r, int64_t begin, int64_t end) const {
  const ScratchAreas::Loan area(r.areas);
  char* const packed_a = area.data();
  char* const packed_b = packed_a + packed_a_bytes_;
  auto* const tile = reinterpret_cast<float*>(packed_b + packed_b_bytes_);
  auto* const row_of_c = reinterpret_cast<float*>(packed_b + packed_b_bytes_ + tile_bytes_);
  char* const scratch = reinterpret_cast<char*>(row_of_c) + row_bytes_;
  const Packer packer(a, type_);
  std::optional<DnnlKernel::Session> session;
  const DnnlKernel* current = nullptr;
  for (int64_t at = begin; at < end; ++at) {
    const int64_t column_tile = at % tiles_.column_count, rest = at / tiles_.column_count;
    const int64_t row_tile = rest % tiles_.row_count, item = rest / tiles_.row_count;
    const int64_t i = row_tile * tiles_.rows, j = column_tile * tiles_.columns;
    const int64_t rows = std::min(tiles_.rows, m - i), columns = std::min(tiles_.columns, n - j);
    if (k == 0) {
      std::fill_n(tile, rows * columns, 0.0f);
      finish(r, tile, item, i, rows, j, columns, row_of_c);
      continue;
    }

    const char* src = a.at(r.launch.pointers[a.operand], item, i, 0);
    if (pack_a_) {
      const int64_t lines = packer.lines(rows, k);
      packer.run(a, src, 0, lines, rows * k / lines, packed_a);
      src = packed_a;
    }
    const char* const weights = weights_of(r, item, j, columns, packed_b);
    if (r.mode == direct_add) copy_c(r, item, i, rows, j, columns, row_of_c);
    char* const to = r.mode == through_f32
                         ? reinterpret_cast<char*>(tile)
                         : const_cast<char*>(out.at(r.launch.pointers[out.operand], item, i, j));
    if (blas_ != nullptr) {
      const int64_t a_stride = !pack_a_ ? a.leading(a_transposed_) : a_transposed_ ? rows : k;
      const int64_t b_stride = pack_b_ == PackB::no      ? b.leading(b_transposed_)
                               : b_transposed_           ? k
                               : pack_b_ == PackB::whole ? n
                                                         : columns;
      blas_->run(rows, columns, k, reinterpret_cast<const float*>(src), a_transposed_, a_stride,
                 reinterpret_cast<const float*>(weights), b_transposed_, b_stride,
                 reinterpret_cast<float*>(to), r.mode == through_f32 ? columns : out.leading(false),
                 r.mode == direct_add);
    } else {
      const bool last_rows = row_tile == tiles_.row_count - 1;
      const bool last_columns = column_tile == tiles_.column_count - 1;
      const DnnlKernel* kernel = kernels_[r.mode][last_rows][last_columns].get();
      if (kernel != current) session.emplace(*kernel);
      current = kernel;
      session->set(DnnlKernel::src, src);
      session->set(DnnlKernel::weights, weights);
      session->set(DnnlKernel::dst, to);
      session->set(DnnlKernel::bias, r.bias);
      session->set(DnnlKernel::scratch, scratch);
      if (!session->run()) r.failed = true;
    }
    if (r.mode == through_f32) finish(r, tile, item, i, rows, j, columns, row_of_c);
  }
}

// Puts c where the primitive adds to it; nothing to do when out is c.
void GemmOp::copy_c(const Run& r, int64_t item, int64_t i, int64_t rows, int64_t j, int64_t columns,
                    float* row) const {
  const void* from = r.launch.pointers[c.operand];
  void* to = r.launch.pointers[out.operand];
  if (from == to) return;
  const auto load = loader<float>(c.type, c.column_stride == 1);
  const auto store = storer<float>(out.type, true);
  for (int64_t row_index = i; row_index < i + rows; ++row_index) {
    load(c.at(from, item, row_index, j), c.column_stride, static_cast<size_t>(columns), row);
    store(row, static_cast<size_t>(columns), const_cast<char*>(out.at(to, item, row_index, j)), 1);
  }
}

// out = activation(alpha * tile + beta * c + bias)
void GemmOp::finish(const Run& r, float* tile, int64_t item, int64_t i, int64_t rows, int64_t j,
                    int64_t columns, float* row_of_c) const {
  const auto count = static_cast<size_t>(columns);
  const bool add_c = has_c && r.beta != 0.0f;
  const auto load = add_c ? loader<float>(c.type, c.column_stride == 1) : nullptr;
  const auto store = storer<float>(out.type, out.column_stride == 1);
  const auto activate = activation_kernel(activation);
  const auto* bias = reinterpret_cast<const float*>(r.bias);
  for (int64_t row = 0; row < rows; ++row) {
    float* x = tile + row * columns;
    if (r.alpha != 1.0f)
      for (size_t e = 0; e < count; ++e) x[e] *= r.alpha;
    if (add_c) {
      load(c.at(r.launch.pointers[c.operand], item, i + row, j), c.column_stride, count, row_of_c);
      for (size_t e = 0; e < count; ++e) x[e] += r.beta * row_of_c[e];
    }
    if (bias != nullptr)
      for (size_t e = 0; e < count; ++e) x[e] += bias[j + static_cast<int64_t>(e)];
    if (activate != nullptr) {
      const float* in[] = {x};
      const size_t inc[] = {1};
      activate(in, inc, &x, count, nullptr);
    }
    store(x, count, const_cast<char*>(out.at(r.launch.pointers[out.operand], item, i + row, j)),
          out.column_stride);
  }
}

Prepared prepare_gemm(const OpRequest& request, Refusal& refusal) {
  const auto& a = *request.operand(kA);
  const auto& b = *request.operand(kB);
  const auto& out = *request.operand(kOut);
  const auto* c = request.operand(kC);
  const auto* bias = request.operand(kBias);
  const auto invalid = [&](uint32_t group, const std::string& text) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(group), text);
  };

  if (out.ndim > 3)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 1 + request.first_operand(kOut),
                  "gemm takes one batch dimension; out has " + std::to_string(out.ndim - 2) +
                      ": flatten them, or run it once for each");
  auto op = std::make_unique<GemmOp>();
  op->a = View(a, request.first_operand(kA));
  op->b = View(b, request.first_operand(kB));
  op->out = View(out, request.first_operand(kOut));
  op->m = op->out.rows;
  op->n = op->out.columns;
  op->k = op->a.columns;
  op->batch = out.ndim == 3 ? out.sizes[0] : 1;
  if (dtype_of(a) != dtype_of(b)) return invalid(kB, "gemm: a and b must have the same dtype");
  if (op->out.type != op->a.type && op->out.type != DType::f32)
    return invalid(kOut, "gemm: out must have the dtype of a and b, or f32");
  if (c != nullptr) {
    op->has_c = true;
    op->c = View(*c, request.first_operand(kC));
  }
  if (bias != nullptr) {
    op->bias_type = dtype_of(*bias);
    op->bias_stride = bias->strides[0];
    op->bias_operand = request.first_operand(kBias);
  }
  const int64_t activation = request.attribute_int("activation");
  if (activation < 0 || activation > 3)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0, "gemm: activation must be 0, 1, 2 or 3");
  op->activation = static_cast<Activation>(activation);

  const auto elements = static_cast<double>(element_count(out));
  op->flops = 2.0 * elements * static_cast<double>(op->k);
  for (const auto& t : {a, b, out})
    op->bytes += static_cast<double>(element_count(t)) * static_cast<double>(size_of(dtype_of(t)));
  op->plan();
  std::string why;
  if (!op->make_kernels(why))
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 0,
                  "gemm: oneDNN has no primitive for this request: " + why);
  return op;
}

constexpr KernelEntry kOps[] = {{XHAL_OP_gemm, prepare_gemm}};

}  // namespace

std::span<const KernelEntry> gemm_ops() { return kOps; }

}  // namespace xhal::cpu
