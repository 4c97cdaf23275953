// gemm.cpp: matrix products: cut into tiles of fixed sizes, one single-threaded primitive a tile.
//
// The cut depends on the shapes only, so results do not depend on the number of threads. Matrices
// whose rows or columns are dense go to oneDNN as they are; others, and formats it does not
// multiply, are packed to f32 first.
#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "dnnl.hpp"
#include "gemm_blas.hpp"
#include "pointwise.hpp"
#include "scratch.hpp"

namespace xhal::cpu {
namespace {

enum Group : uint32_t { kA, kB, kC, kBias, kOut };

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// A batch of matrices inside a tensor.
struct View {
  DType type = DType::f32;
  uint32_t operand = 0;
  int64_t rows = 0, columns = 0;
  int64_t batch_stride = 0, row_stride = 0, column_stride = 0;

  bool row_major() const {
    return (column_stride == 1 || columns == 1) && (row_stride >= columns || rows == 1);
  }
  bool column_major() const {
    return (row_stride == 1 || rows == 1) && (column_stride >= rows || columns == 1);
  }
  int64_t leading(bool transposed) const {
    return transposed ? std::max(columns == 1 ? rows : column_stride, rows)
                      : std::max(rows == 1 ? columns : row_stride, columns);
  }
  View transposed() const {
    View v = *this;
    std::swap(v.rows, v.columns);
    std::swap(v.row_stride, v.column_stride);
    return v;
  }
  const char* at(const void* base, int64_t batch, int64_t row, int64_t column) const {
    return static_cast<const char*>(base) +
           (batch * batch_stride + row * row_stride + column * column_stride) *
               static_cast<int64_t>(size_of(type));
  }
};

View view_of(const xhal_tensor_desc& t, uint32_t operand) {
  View v;
  v.type = dtype_of(t);
  v.operand = operand;
  const uint32_t first = t.ndim - 2;
  v.rows = t.sizes[first];
  v.columns = t.sizes[first + 1];
  v.row_stride = t.strides[first];
  v.column_stride = t.strides[first + 1];
  if (t.ndim == 3 && t.sizes[0] != 1) v.batch_stride = t.strides[0];
  return v;
}

// Copies a rows x columns part into f32, dense along whichever of its two dimensions is dense at
// the source.
struct Packer {
  bool transposed = false;  // the result is column-major
  LoadFn<float> load = nullptr;
  int64_t item_bytes = 0;

  explicit Packer(const View& v)
      : transposed(v.column_major() && !v.row_major()),
        load(loader<float>(v.type, transposed || v.column_stride == 1)),
        item_bytes(static_cast<int64_t>(size_of(v.type))) {}

  // Lines [begin, end) of the result: rows, or columns when transposed.
  void run(const View& v, const char* from, int64_t begin, int64_t end, int64_t length,
           float* to) const {
    const int64_t line_stride = transposed ? v.column_stride : v.row_stride;
    const int64_t stride = transposed ? v.row_stride : v.column_stride;
    for (int64_t line = begin; line < end; ++line)
      load(from + line * line_stride * item_bytes, stride, static_cast<size_t>(length),
           to + line * length);
  }
};

struct Tiles {
  int64_t rows = 0, columns = 0;  // of a full tile
  int64_t row_count = 0, column_count = 0;
};

// Tiles of at least 2 Mflop, about eight of them, none with more than 256 rows: at 256 a
// primitive's own repacking of the second matrix no longer costs, at 64 it is a tenth of the run.
Tiles cut(int64_t batch, int64_t m, int64_t n, int64_t k) {
  constexpr int64_t kWanted = 8, kLeastFlops = 2'000'000;
  const int64_t per_matrix = std::max<int64_t>(1, kWanted / batch);
  const double row_flops =
      2.0 * static_cast<double>(n) * static_cast<double>(std::max<int64_t>(k, 1));
  const auto rows_least =
      static_cast<int64_t>(std::min(1e9, kLeastFlops / std::max(row_flops, 1.0))) + 1;
  Tiles t;
  if (batch == 0 || m == 0 || n == 0) return t;
  t.rows = std::clamp(round_up((m + per_matrix - 1) / per_matrix, 16), int64_t{64}, int64_t{256});
  t.rows = std::min(std::max(t.rows, round_up(rows_least, 16)), m);
  t.row_count = (m + t.rows - 1) / t.rows;
  t.columns = n;
  const int64_t column_tiles = per_matrix / t.row_count;
  if (column_tiles > 1 && n >= 512 && static_cast<double>(t.rows) * row_flops > 4.0 * kLeastFlops)
    t.columns = std::max<int64_t>(256, round_up((n + column_tiles - 1) / column_tiles, 64));
  t.columns = std::min(t.columns, n);
  t.column_count = (n + t.columns - 1) / t.columns;
  return t;
}

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
  void run_tiles(Run& r, int64_t begin, int64_t end) const;
  void copy_c(const Run& r, int64_t item, int64_t i, int64_t rows, int64_t j, int64_t columns,
              float* row) const;
  void finish(const Run& r, float* tile, int64_t item, int64_t i, int64_t rows, int64_t j,
              int64_t columns, float* row_of_c) const;

  DType type_ = DType::f32;  // of the elements that are multiplied
  bool pack_a_ = false, pack_b_ = false;
  bool a_transposed_ = false, b_transposed_ = false;
  int64_t a_stride_ = 0,
          b_stride_ =
              0;  // between rows, or columns of a transposed one, as the primitive sees them
  bool direct_out_ = false;  // the primitive may write `out`
  bool bias_as_is_ = false;
  Tiles tiles_;
  const BlasGemm* blas_ = nullptr;
  // The workspace: packed b, bias in f32, then areas of {packed a, tile, a row of c, the
  // primitive's own scratch}.
  uint64_t packed_b_bytes_ = 0, bias_bytes_ = 0, packed_a_bytes_ = 0, tile_bytes_ = 0,
           row_bytes_ = 0, scratch_bytes_ = 0;
  uint64_t area_bytes() const {
    return packed_a_bytes_ + tile_bytes_ + row_bytes_ + scratch_bytes_;
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
  tiles_ = cut(batch, m, n, k);

  const auto dense = [](const View& v) { return v.row_major() || v.column_major(); };
  type_ =
      a.type == DType::bf16 && dnnl_has_bf16() && dense(a) && dense(b) ? DType::bf16 : DType::f32;
  if (type_ == DType::f32 && !dnnl_has_avx512()) blas_ = BlasGemm::get();
  a_transposed_ = a.column_major() && !a.row_major();
  b_transposed_ = b.column_major() && !b.row_major();
  pack_a_ = a.type != type_ || !dense(a);
  pack_b_ = b.type != type_ || !dense(b);
  // oneDNN 2.6 is slow for a part of a transposed matrix times a transposed one, unless that part
  // is dense.
  if (a_transposed_ && b_transposed_ && type_ == DType::f32 && blas_ == nullptr)
    pack_a_ |= tiles_.row_count > 1;
  a_stride_ = a.leading(a_transposed_);
  b_stride_ = pack_b_ ? (b_transposed_ ? k : n) : b.leading(b_transposed_);

  const bool finished_by_primitive =
      blas_ == nullptr || (bias_type == DType::other && activation == Activation::none);
  direct_out_ = out.row_major() && k > 0 && finished_by_primitive &&
                (out.type == DType::f32 || out.type == type_);
  bias_as_is_ = bias_type == DType::f32 && (bias_stride == 1 || n == 1);

  const auto floats = [](int64_t count) {
    return align64(static_cast<uint64_t>(count) * sizeof(float));
  };
  if (pack_b_) packed_b_bytes_ = floats((b.batch_stride == 0 ? 1 : batch) * k * n);
  if (bias_type != DType::other && !bias_as_is_) bias_bytes_ = floats(n);
  if (pack_a_) packed_a_bytes_ = floats(tiles_.rows * k);
  tile_bytes_ = floats(tiles_.rows * tiles_.columns);
  if (has_c) row_bytes_ = floats(tiles_.columns);
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
  spec.src_stride = !pack_a_ ? a_stride_ : a_transposed_ ? spec.m : k;
  spec.weights_stride = b_stride_;
  spec.dst_stride = mode == through_f32 ? tiles_.columns : out.leading(false);
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
  workspace_bytes = packed_b_bytes_ + bias_bytes_ + static_cast<uint64_t>(areas_) * area_bytes();
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
  auto* to = static_cast<char*>(launch.workspace) + packed_b_bytes_;
  loader<float>(bias_type, bias_stride == 1)(given, bias_stride, static_cast<size_t>(n),
                                             reinterpret_cast<float*>(to));
  return to;
}

const char* GemmOp::prepare_b(const Launch& launch) const {
  const auto* given = static_cast<const char*>(launch.pointers[b.operand]);
  if (!pack_b_) return given;
  auto* to = static_cast<float*>(launch.workspace);
  const Packer packer(b);
  const int64_t lines = packer.transposed ? n : k, length = packer.transposed ? k : n;
  const int64_t items = b.batch_stride == 0 ? 1 : batch;
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(length, 1));
  launch.pool.parallel_for(items * lines, grain, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const int64_t item = at / lines, first = at % lines;
      const int64_t last = std::min(lines, first + end - at);
      packer.run(b, b.at(given, item, 0, 0), first, last, length, to + item * k * n);
      at += last - first;
    }
  });
  return reinterpret_cast<const char*>(to);
}

xhal_status GemmOp::run(const Launch& launch) const {
  if (batch == 0 || m == 0 || n == 0) return XHAL_OK;
  const auto alpha = static_cast<float>(launch.scalars[0].as_double());
  const auto beta = has_c ? static_cast<float>(launch.scalars[1].as_double()) : 0.0f;
  auto* areas = static_cast<char*>(launch.workspace) + packed_b_bytes_ + bias_bytes_;
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
  auto* packed_a = reinterpret_cast<float*>(area.data());
  auto* tile = reinterpret_cast<float*>(area.data() + packed_a_bytes_);
  auto* row_of_c = reinterpret_cast<float*>(area.data() + packed_a_bytes_ + tile_bytes_);
  char* scratch = area.data() + packed_a_bytes_ + tile_bytes_ + row_bytes_;
  const void* given_a = r.launch.pointers[a.operand];
  void* given_out = r.launch.pointers[out.operand];
  const Packer packer(a);

  std::unique_ptr<DnnlKernel::Session> session;
  const DnnlKernel* current = nullptr;
  for (int64_t at = begin; at < end; ++at) {
    const int64_t column_tile = at % tiles_.column_count, rest = at / tiles_.column_count;
    const int64_t row_tile = rest % tiles_.row_count, item = rest / tiles_.row_count;
    const int64_t i = row_tile * tiles_.rows, j = column_tile * tiles_.columns;
    const int64_t rows = std::min(tiles_.rows, m - i), columns = std::min(tiles_.columns, n - j);

    const char* src = a.at(given_a, item, i, 0);
    if (pack_a_) {
      const bool by_column = packer.transposed;
      packer.run(a, src, 0, by_column ? k : rows, by_column ? rows : k, packed_a);
      src = reinterpret_cast<const char*>(packed_a);
    }
    const int64_t b_item = b.batch_stride == 0 ? 0 : item;
    const auto b_size = static_cast<int64_t>(size_of(type_));
    const char* weights =
        pack_b_ ? r.b + (b_item * k * n + (b_transposed_ ? j * k : j)) * 4
                : r.b + (b_item * b.batch_stride + (b_transposed_ ? j * b_stride_ : j)) * b_size;
    if (r.mode == direct_add) copy_c(r, item, i, rows, j, columns, row_of_c);
    char* to = r.mode == through_f32 ? reinterpret_cast<char*>(tile)
                                     : const_cast<char*>(out.at(given_out, item, i, j));

    if (k == 0) {
      std::fill_n(tile, rows * tiles_.columns, 0.0f);
    } else if (blas_ != nullptr) {
      const int64_t a_stride = !pack_a_ ? a_stride_ : a_transposed_ ? rows : k;
      blas_->run(rows, columns, k, reinterpret_cast<const float*>(src), a_transposed_, a_stride,
                 reinterpret_cast<const float*>(weights), b_transposed_, b_stride_,
                 reinterpret_cast<float*>(to),
                 r.mode == through_f32 ? tiles_.columns : out.leading(false), r.mode == direct_add);
    } else {
      const DnnlKernel* kernel =
          kernels_[r.mode][row_tile == tiles_.row_count - 1][column_tile == tiles_.column_count - 1]
              .get();
      if (kernel != current) session = std::make_unique<DnnlKernel::Session>(*kernel);
      current = kernel;
      session->set(DnnlKernel::src, src);
      session->set(DnnlKernel::weights, weights);
      session->set(DnnlKernel::dst, to);
      if (r.mode != through_f32 && r.bias != nullptr)
        session->set(DnnlKernel::bias, r.bias + j * 4);
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
    float* x = tile + row * tiles_.columns;
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

std::string sizes_text(const xhal_tensor_desc& t) {
  std::string text = "[";
  for (uint32_t d = 0; d < t.ndim; ++d) text += (d == 0 ? "" : ", ") + std::to_string(t.sizes[d]);
  return text + "]";
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

  if (out.ndim < 2) return invalid(kOut, "gemm: out must be a matrix or a batch of matrices");
  if (out.ndim > 3)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 1 + request.first_operand(kOut),
                  "gemm takes one batch dimension; out has " + std::to_string(out.ndim - 2) +
                      ": flatten them, or run it once for each");
  if (a.ndim != out.ndim)
    return invalid(kA, "gemm: a and out must have the same number of dimensions");
  if (b.ndim != out.ndim)
    return invalid(kB, "gemm: b and out must have the same number of dimensions");
  auto op = std::make_unique<GemmOp>();
  op->a = view_of(a, request.first_operand(kA));
  op->b = view_of(b, request.first_operand(kB));
  op->out = view_of(out, request.first_operand(kOut));
  op->m = op->out.rows;
  op->n = op->out.columns;
  op->k = op->a.columns;
  op->batch = out.ndim == 3 ? out.sizes[0] : 1;
  const bool fits = op->a.rows == op->m && op->b.rows == op->k && op->b.columns == op->n &&
                    (out.ndim == 2 || (a.sizes[0] == op->batch && b.sizes[0] == op->batch));
  if (!fits)
    return invalid(kOut, "gemm: a " + sizes_text(a) + " times b " + sizes_text(b) +
                             " does not give out " + sizes_text(out));
  if (dtype_of(a) != dtype_of(b)) return invalid(kB, "gemm: a and b must have the same dtype");
  if (op->out.type != op->a.type && op->out.type != DType::f32)
    return invalid(kOut, "gemm: out must have the dtype of a and b, or f32");
  if (c != nullptr) {
    if (!same_sizes(*c, out))
      return invalid(kC, "gemm: c " + sizes_text(*c) + " must have out's sizes");
    op->has_c = true;
    op->c = view_of(*c, request.first_operand(kC));
  }
  if (bias != nullptr) {
    if (bias->ndim != 1 || bias->sizes[0] != op->n)
      return invalid(kBias, "gemm: bias " + sizes_text(*bias) +
                                " must have one element for each column of out");
    op->bias_type = dtype_of(*bias);
    op->bias_stride = bias->strides[0];
    op->bias_operand = request.first_operand(kBias);
  }
  const int64_t activation = request.attribute_int(0, 0);
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

constexpr OpEntry kOps[] = {{XHAL_OP_gemm, prepare_gemm}};

}  // namespace

std::span<const OpEntry> gemm_ops() { return kOps; }

}  // namespace xhal::cpu
