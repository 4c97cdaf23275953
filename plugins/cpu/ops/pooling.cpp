// SPDX-License-Identifier: Apache-2.0
// pooling.cpp: max, average and adaptive average pooling, and their gradients.
#include "pooling.hpp"

#include <atomic>
#include <cmath>
#include <vector>

#include "convert.hpp"
#include "scratch.hpp"
#include "xhal/shape.hpp"

namespace xhal::cpu {

Planes::Planes(const xhal_tensor_desc& t, uint32_t position)
    : operand(position), type(dtype_of(t)) {
  const uint32_t lead = t.ndim - 2;
  starts = make_plan(lead, t.sizes, {t.strides}, true);
  count = starts.count;
  height = t.sizes[lead], width = t.sizes[lead + 1];
  row_stride = t.strides[lead], column_stride = t.strides[lead + 1];
}

void Planes::load(void* const* pointers, int64_t plane, float* into) const {
  const auto item = static_cast<int64_t>(size_of(type));
  const auto f = loader<float>(type, column_stride == 1);
  const char* base = at(pointers, plane);
  for (int64_t r = 0; r < height; ++r)
    f(base + r * row_stride * item, column_stride, static_cast<size_t>(width), into + r * width);
}

void Planes::store(void* const* pointers, int64_t plane, const float* values) const {
  const auto item = static_cast<int64_t>(size_of(type));
  const auto f = storer<float>(type, column_stride == 1);
  char* base = at(pointers, plane);
  for (int64_t r = 0; r < height; ++r)
    f(values + r * width, static_cast<size_t>(width), base + r * row_stride * item, column_stride);
}

uint64_t PlaneOp::area_bytes() const {
  return align64(static_cast<uint64_t>(from.size()) * sizeof(float)) +
         align64(static_cast<uint64_t>(to.size() + to.width) * sizeof(float));
}

int64_t PlaneOp::grain() const {
  return std::max<int64_t>(1, 8192 / std::max<int64_t>(1, from.size() + to.size()));
}

xhal_status PlaneOp::run(const Launch& launch) const {
  const int areas = ScratchAreas::count_for((to.count + grain() - 1) / grain());
  ScratchAreas scratch(launch.workspace, area_bytes(), areas);
  std::atomic<int64_t> first_bad{to.count};
  launch.pool.parallel_for(to.count, grain(), [&](int64_t begin, int64_t end) {
    const ScratchAreas::Loan area(scratch);
    auto* const in = reinterpret_cast<float*>(area.data());
    auto* const out = reinterpret_cast<float*>(
        area.data() + align64(static_cast<uint64_t>(from.size()) * sizeof(float)));
    for (int64_t plane = begin; plane < end; ++plane) {
      from.load(launch.pointers, plane, in);
      if (!make_plane(launch, plane, in, out)) {
        int64_t seen = first_bad.load();
        while (plane < seen && !first_bad.compare_exchange_weak(seen, plane)) {
        }
        continue;
      }
      to.store(launch.pointers, plane, out);
    }
  });
  if (first_bad.load() == to.count) return XHAL_OK;
  *launch.error = explain(launch, first_bad.load());
  return XHAL_ERR_DEVICE;
}

bool PlaneOp::set(const OpRequest& request, uint32_t from_group, uint32_t to_group,
                  std::string_view name, Refusal& refusal) {
  const auto& a = *request.operand(from_group);
  const auto& b = *request.operand(to_group);
  // The catalogue takes any `din` of max_pool_grad, and anything with attributes out of range.
  bool fits = a.ndim >= 3 && b.ndim == a.ndim && dtype_of(a) == dtype_of(b);
  for (uint32_t d = 0; fits && d + 2 < a.ndim; ++d) fits = a.sizes[d] == b.sizes[d];
  if (!fits) {
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(to_group),
           text(name,
                ": input and output must be [n, c, height, width] of one dtype and differ only in "
                "the plane"));
    return false;
  }
  from = Planes(a, request.first_operand(from_group));
  to = Planes(b, request.first_operand(to_group));
  // Sides beyond INT32_MAX it does not compare either.
  if (std::max({from.size(), from.height, from.width, to.height, to.width}) > INT32_MAX) {
    refuse(refusal, XHAL_ERR_UNSUPPORTED, 1 + request.first_operand(from_group),
           text(name, ": a plane of more than 2^31 elements"));
    return false;
  }
  if (to.size() > 0 && from.size() == 0 && to.count > 0) {
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(from_group),
           text(name, ": the input has an empty plane"));
    return false;
  }
  workspace_bytes =
      static_cast<uint64_t>(ScratchAreas::count_for((to.count + grain() - 1) / grain())) *
      area_bytes();
  return true;
}

void PlaneOp::set_costs(double flops_per_output) {
  const auto planes = static_cast<double>(to.count);
  flops = flops_per_output * planes * static_cast<double>(to.size());
  bytes =
      planes * static_cast<double>(from.size() + to.size()) * static_cast<double>(size_of(to.type));
}

namespace {

// Input rows (or columns) that one output row sees, and by how many it is divided.
struct Range {
  int64_t begin, end, divisor;
};

// Reads kernel, stride, padding and, if the operator has it, dilation for the two dimensions.
bool read_windows(const OpRequest& request, std::string_view name, bool dilated, Window (&w)[2],
                  Refusal& refusal) {
  const auto read = [&](std::string_view attribute, int64_t least, auto&& put) {
    const auto given = request.attribute_ints(attribute);
    if (given.empty()) return true;
    if (given.size() > 2) return false;
    for (size_t i = 0; i < 2; ++i) {
      const int64_t value = given[given.size() == 1 ? 0 : i];
      if (value < least || value > INT32_MAX) return false;
      put(w[i], value);
    }
    return true;
  };
  bool fits = !request.attribute_ints("kernel").empty();
  fits = fits && read("kernel", 1, [](Window& x, int64_t v) { x.kernel = x.stride = v; });
  fits = fits && read("stride", 1, [](Window& x, int64_t v) { x.stride = v; });
  fits = fits && read("padding", 0, [](Window& x, int64_t v) { x.padding = v; });
  fits = fits && (!dilated || read("dilation", 1, [](Window& x, int64_t v) { x.dilation = v; }));
  for (const Window& x : w) fits = fits && 2 * x.padding <= x.kernel;
  if (!fits)
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
           text(name,
                ": kernel, stride, padding and dilation must have one or two values in range, and "
                "padding be at "
                "most half of the kernel"));
  return fits;
}

class MaxPoolOp final : public PlaneOp {
 public:
  Window windows[2];
  bool has_index = false;
  Planes index;

  bool prepare(const OpRequest& request, Refusal& refusal) {
    constexpr std::string_view kName = "max_pool";
    if (!set(request, 0, 1, kName, refusal) ||
        !read_windows(request, kName, true, windows, refusal))
      return false;
    if (const auto* t = request.operand(2); t != nullptr) {
      has_index = true;
      index = Planes(*t, request.first_operand(2));
    }
    set_costs(static_cast<double>(windows[0].kernel * windows[1].kernel));
    return true;
  }

 private:
  // A row of the output at a time, one element of the windows after the other.
  bool make_plane(const Launch& launch, int64_t plane, const float* in, float* out) const override {
    const auto& [rows, columns] = windows;
    auto* const places = reinterpret_cast<int32_t*>(out + to.size());
    for (int64_t r = 0; r < to.height; ++r) {
      float* const best = out + r * to.width;
      std::fill_n(best, to.width, -INFINITY);
      const int64_t top = r * rows.stride - rows.padding;
      const int64_t first = top >= 0 ? 0 : (-top + rows.dilation - 1) / rows.dilation;
      for (int64_t c = 0; c < to.width; ++c) {
        const int64_t left = c * columns.stride - columns.padding;
        const int64_t skipped = left >= 0 ? 0 : (-left + columns.dilation - 1) / columns.dilation;
        places[c] = static_cast<int32_t>((top + first * rows.dilation) * from.width + left +
                                         skipped * columns.dilation);
      }
      for (int64_t i = first; i < rows.kernel; ++i) {
        const int64_t y = top + i * rows.dilation;
        if (y >= from.height) break;
        for (int64_t j = 0; j < columns.kernel; ++j) {
          // Output columns whose window element lies inside: 0 <= c * stride + shift < width.
          const int64_t shift = j * columns.dilation - columns.padding;
          const int64_t begin = shift >= 0 ? 0 : (-shift + columns.stride - 1) / columns.stride;
          const int64_t end =
              shift >= from.width
                  ? 0
                  : std::min(to.width, (from.width - 1 - shift) / columns.stride + 1);
          const auto place = static_cast<int32_t>(y * from.width + shift);
          if (columns.stride == 1) {
            larger(in, place, 1, begin, end, best, places);
          } else if (columns.stride == 2) {
            larger(in, place, 2, begin, end, best, places);
          } else {
            larger(in, place, static_cast<int32_t>(columns.stride), begin, end, best, places);
          }
        }
      }
      if (!has_index) continue;
      auto* const to_index =
          reinterpret_cast<int64_t*>(index.at(launch.pointers, plane)) + r * index.row_stride;
      for (int64_t c = 0; c < to.width; ++c) to_index[c * index.column_stride] = places[c];
    }
    return true;
  }

  // Inlined for each stride, so that the compiler makes vectors of it.
  [[gnu::always_inline]] static void larger(const float* in, int32_t place, int32_t stride,
                                            int64_t begin, int64_t end, float* __restrict best,
                                            int32_t* __restrict places) {
    for (int64_t c = begin; c < end; ++c) {
      const int32_t at = place + static_cast<int32_t>(c) * stride;
      const float value = in[at];
      const bool wins = (value > best[c]) | (value != value);
      best[c] = wins ? value : best[c];
      places[c] = wins ? at : places[c];
    }
  }
};

class MaxPoolGradOp final : public PlaneOp {
 public:
  Planes index;

  bool prepare(const OpRequest& request, Refusal& refusal) {
    if (!set(request, 0, 2, "max_pool_grad", refusal)) return false;
    index = Planes(*request.operand(1), 1);
    set_costs(1);
    return true;
  }

 private:
  bool make_plane(const Launch& launch, int64_t plane, const float* in, float* out) const override {
    std::fill_n(out, to.size(), 0.0f);
    const auto* places = reinterpret_cast<const int64_t*>(index.at(launch.pointers, plane));
    for (int64_t r = 0; r < from.height; ++r)
      for (int64_t c = 0; c < from.width; ++c) {
        const int64_t at = places[r * index.row_stride + c * index.column_stride];
        if (at < 0 || at >= to.size()) return false;
        out[at] += in[r * from.width + c];
      }
    return true;
  }
  std::string explain(const Launch& launch, int64_t plane) const override {
    const auto* places = reinterpret_cast<const int64_t*>(index.at(launch.pointers, plane));
    for (int64_t r = 0; r < from.height; ++r)
      for (int64_t c = 0; c < from.width; ++c) {
        const int64_t at = places[r * index.row_stride + c * index.column_stride];
        if (at < 0 || at >= to.size())
          return text("max_pool_grad: index ", at, " at row ", r, ", column ", c, " of plane ",
                      plane, " is outside [0, ", to.size(), ")");
      }
    return "max_pool_grad: an index is outside its plane";
  }
};

// Averages over ranges of rows and columns, in either direction.
class AvgPoolOp final : public PlaneOp {
 public:
  bool backward = false;
  double divisor = 0;  // instead of the ranges' own

  bool prepare(const OpRequest& request, Refusal& refusal, bool adaptive, bool grad) {
    const std::string_view name = adaptive ? (grad ? "adaptive_avg_pool_grad" : "adaptive_avg_pool")
                                           : (grad ? "avg_pool_grad" : "avg_pool");
    backward = grad;
    if (!set(request, 0, 1, name, refusal)) return false;
    const Planes& large = grad ? to : from;
    const Planes& small = grad ? from : to;
    if (adaptive) {
      rows_ = even_ranges(large.height, small.height);
      columns_ = even_ranges(large.width, small.width);
    } else {
      Window w[2];
      if (!read_windows(request, name, false, w, refusal)) return false;
      const bool count_padding = request.attribute_int("count_padding") != 0;
      divisor = static_cast<double>(request.attribute_int("divisor"));
      rows_ = window_ranges(large.height, small.height, w[0], count_padding);
      columns_ = window_ranges(large.width, small.width, w[1], count_padding);
    }
    const auto area =
        static_cast<double>(large.size()) / static_cast<double>(std::max<int64_t>(1, small.size()));
    set_costs(grad ? 1 : area);
    return true;
  }

 private:
  static std::vector<Range> even_ranges(int64_t in, int64_t out) {
    std::vector<Range> ranges;
    for (int64_t o = 0; o < out; ++o) {
      const int64_t begin = o * in / out, end = ((o + 1) * in + out - 1) / out;
      ranges.push_back({begin, end, end - begin});
    }
    return ranges;
  }
  static std::vector<Range> window_ranges(int64_t in, int64_t out, const Window& w,
                                          bool count_padding) {
    std::vector<Range> ranges;
    for (int64_t o = 0; o < out; ++o) {
      const int64_t begin = o * w.stride - w.padding,
                    end = std::min(begin + w.kernel, in + w.padding);
      const int64_t inside_begin = std::max<int64_t>(begin, 0),
                    inside_end = std::max(inside_begin, std::min(end, in));
      ranges.push_back(
          {inside_begin, inside_end, count_padding ? end - begin : inside_end - inside_begin});
    }
    return ranges;
  }
  float factor(const Range& r, const Range& c) const {
    const double by = divisor != 0 ? divisor : static_cast<double>(r.divisor * c.divisor);
    return by == 0 ? 0.0f : static_cast<float>(1.0 / by);
  }

  bool make_plane(const Launch&, int64_t, const float* in, float* out) const override {
    if (backward) std::fill_n(out, to.size(), 0.0f);
    for (size_t r = 0; r < rows_.size(); ++r)
      for (size_t c = 0; c < columns_.size(); ++c) {
        const Range &y = rows_[r], &x = columns_[c];
        const size_t at = r * columns_.size() + c;
        if (backward) {
          const float share = in[at] * factor(y, x);
          for (int64_t i = y.begin; i < y.end; ++i)
            for (int64_t j = x.begin; j < x.end; ++j) out[i * to.width + j] += share;
          continue;
        }
        float sum = 0;
        for (int64_t i = y.begin; i < y.end; ++i) {
          float row = 0;
          for (int64_t j = x.begin; j < x.end; ++j) row += in[i * from.width + j];
          sum += row;
        }
        out[at] = sum * factor(y, x);
      }
    return true;
  }

  std::vector<Range> rows_, columns_;
};

template <class T, class... Args>
Prepared make(const OpRequest& request, Refusal& refusal, Args... args) {
  auto op = std::make_unique<T>();
  if (!op->prepare(request, refusal, args...)) return nullptr;
  return op;
}

Prepared prepare_max_pool(const OpRequest& r, Refusal& refusal) {
  return make<MaxPoolOp>(r, refusal);
}
Prepared prepare_max_pool_grad(const OpRequest& r, Refusal& refusal) {
  return make<MaxPoolGradOp>(r, refusal);
}
Prepared prepare_avg_pool(const OpRequest& r, Refusal& refusal) {
  return make<AvgPoolOp>(r, refusal, false, false);
}
Prepared prepare_avg_pool_grad(const OpRequest& r, Refusal& refusal) {
  return make<AvgPoolOp>(r, refusal, false, true);
}
Prepared prepare_adaptive(const OpRequest& r, Refusal& refusal) {
  return make<AvgPoolOp>(r, refusal, true, false);
}
Prepared prepare_adaptive_grad(const OpRequest& r, Refusal& refusal) {
  return make<AvgPoolOp>(r, refusal, true, true);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_max_pool, prepare_max_pool},
    {XHAL_OP_max_pool_grad, prepare_max_pool_grad},
    {XHAL_OP_avg_pool, prepare_avg_pool},
    {XHAL_OP_avg_pool_grad, prepare_avg_pool_grad},
    {XHAL_OP_adaptive_avg_pool, prepare_adaptive},
    {XHAL_OP_adaptive_avg_pool_grad, prepare_adaptive_grad},
    {XHAL_OP_upsample_nearest, prepare_upsample_nearest},
    {XHAL_OP_upsample_nearest_grad, prepare_upsample_nearest_grad},
    {XHAL_OP_upsample_bilinear, prepare_upsample_bilinear},
    {XHAL_OP_upsample_bilinear_grad, prepare_upsample_bilinear_grad},
};

}  // namespace

std::span<const KernelEntry> pool_ops() { return kOps; }

}  // namespace xhal::cpu
