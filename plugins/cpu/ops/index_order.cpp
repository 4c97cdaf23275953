// SPDX-License-Identifier: Apache-2.0
// index_order.cpp: topk, sort, nonzero.
//
// A value becomes an unsigned key that orders as the value does (NaN largest, both zeros equal,
// inverted for descending order); key and position together have no equals, so any sort of them is
// the stable sort.
#include <algorithm>
#include <cstring>
#include <utility>

#include "index.hpp"
#include "scratch.hpp"
#include "xhal/half.hpp"

namespace xhal::cpu {
namespace {

uint32_t float_key(float f) {
  if (f != f) return UINT32_MAX;
  const uint32_t u = std::bit_cast<uint32_t>(f + 0.0f);  // -0 becomes 0
  return (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
}

// The key of an element, in 32 bits but for 64-bit integers.
struct FloatKey {
  using Item = float;
  using Key = uint32_t;
  static Key of(Item x) { return float_key(x); }
};
struct Bf16Key {
  using Item = Bf16;
  using Key = uint32_t;
  static Key of(Item x) { return float_key(to_float(x)); }
};
struct F16Key {
  using Item = F16;
  using Key = uint32_t;
  static Key of(Item x) { return float_key(to_float(x)); }
};
template <class T>
struct IntKey {
  using Item = T;
  using Key = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  static Key of(Item x) {
    using Wide = std::make_signed_t<Key>;
    return static_cast<Key>(static_cast<Wide>(x)) ^ (Key{1} << (sizeof(Key) * 8 - 1));
  }
};

template <class Key>
struct Entry {
  Key key;
  uint32_t position;
  bool operator<(const Entry& o) const {
    return key != o.key ? key < o.key : position < o.position;
  }
};
template <>
struct Entry<uint32_t> {
  uint64_t both;
  Entry() : both(0) {}
  Entry(uint32_t key, uint32_t position) : both(static_cast<uint64_t>(key) << 32 | position) {}
  bool operator<(const Entry& o) const { return both < o.both; }
};
inline uint32_t position_of(const Entry<uint32_t>& e) { return static_cast<uint32_t>(e.both); }
inline uint32_t position_of(const Entry<uint64_t>& e) { return e.position; }

template <class F>
void with_key(DType type, F&& f) {
  switch (type) {
    case DType::f32:
      return f(FloatKey{});
    case DType::bf16:
      return f(Bf16Key{});
    case DType::f16:
      return f(F16Key{});
    case DType::i8:
      return f(IntKey<int8_t>{});
    case DType::i16:
      return f(IntKey<int16_t>{});
    case DType::i32:
      return f(IntKey<int32_t>{});
    case DType::i64:
      return f(IntKey<int64_t>{});
    default:
      return f(IntKey<uint8_t>{});
  }
}

class OrderOp final : public Op {
 public:
  DType type = DType::f32;
  int64_t length = 0, kept = 0;  // of a line
  bool descending = false;
  int64_t in_step = 1, value_step = 1, index_step = 1;
  IterPlan lines;  // value, index, in

  int64_t grain() const { return std::max<int64_t>(1, 2048 / std::max<int64_t>(1, length)); }
  uint64_t area_bytes() const {
    return align64(static_cast<uint64_t>(length) * sizeof(Entry<uint64_t>));
  }
  int areas() const { return ScratchAreas::count_for((lines.count + grain() - 1) / grain()); }

  xhal_status run(const Launch& launch) const override {
    if (lines.count == 0 || length == 0 || kept == 0) return XHAL_OK;
    with_key(type, [&](auto kind) { order<decltype(kind)>(launch); });
    return XHAL_OK;
  }

 private:
  // The first `kept` entries of a line, in order. Candidates are collected and cut down to `kept`
  // now and then; what is not below the last of those need not be looked at.
  template <class Kind>
  void select(const typename Kind::Item* from, typename Kind::Key flip,
              Entry<typename Kind::Key>* entries) const {
    using Key = typename Kind::Key;
    const int64_t room = kept < length ? std::min(length, 4 * kept + 1024) : length;
    int64_t count = 0;
    bool bounded = false;
    Entry<Key> bound{};
    const auto cut = [&] {
      std::nth_element(entries, entries + kept - 1, entries + count);
      count = kept;
      bound = entries[kept - 1];
      bounded = true;
    };
    for (int64_t i = 0; i < length; ++i) {
      const Entry<Key> entry{static_cast<Key>(Kind::of(from[i * in_step]) ^ flip),
                             static_cast<uint32_t>(i)};
      if (bounded && !(entry < bound)) continue;
      entries[count++] = entry;
      if (count == room && room < length) cut();
    }
    if (count > kept) cut();
    std::sort(entries, entries + kept);
  }

  template <class Kind>
  void order(const Launch& launch) const {
    using Item = typename Kind::Item;
    using Key = typename Kind::Key;
    const auto* in = static_cast<const Item*>(launch.pointers[0]);
    auto* value = static_cast<Item*>(launch.pointers[1]);
    auto* index = static_cast<int64_t*>(launch.pointers[2]);
    const Key flip = descending ? static_cast<Key>(~Key{0}) : Key{0};
    ScratchAreas scratch(launch.workspace, area_bytes(), areas());
    launch.pool.parallel_for(lines.count, grain(), [&](int64_t begin, int64_t end) {
      const ScratchAreas::Loan area(scratch);
      auto* const entries = reinterpret_cast<Entry<Key>*>(area.data());
      for_each_run<3>(lines, begin, end, [&](const auto& at, int64_t n) {
        for (int64_t line = 0; line < n; ++line) {
          const Item* from = in + at[2] + line * lines.inner_stride(2);
          select<Kind>(from, flip, entries);
          Item* to = value + at[0] + line * lines.inner_stride(0);
          int64_t* to_index = index + at[1] + line * lines.inner_stride(1);
          for (int64_t i = 0; i < kept; ++i) {
            const int64_t position = position_of(entries[i]);
            to[i * value_step] = from[position * in_step];
            to_index[i * index_step] = position;
          }
        }
      });
    });
  }
};

Prepared make_order(const OpRequest& request, Refusal& refusal, std::string_view name,
                    int64_t dim_given, int64_t kept, bool descending) {
  const auto& in = *request.operand(0);
  const auto& value = *request.operand(1);
  const auto& index = *request.operand(2);
  const auto invalid = [&](uint32_t operand, std::string reason) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, operand, text(name, ": ", reason));
  };
  const bool scalar = in.ndim == 0;
  const int dim = scalar ? 0 : normal_dim(dim_given, in.ndim);
  if (dim < 0) return invalid(1, "in has no such dimension");
  auto op = std::make_unique<OrderOp>();
  op->length = scalar ? 1 : in.sizes[dim];
  op->kept = kept < 0 ? op->length : kept;
  if (op->kept > op->length)
    return invalid(
        0, text("k = ", op->kept, " is more than the ", op->length, " elements of the dimension"));
  if (op->length > UINT32_MAX) return invalid(1, "a line of more than 2^32 elements");
  if (dtype_of(value) != dtype_of(in)) return invalid(2, "value must have in's dtype");
  op->type = dtype_of(in);
  op->descending = descending;
  int64_t sizes[XHAL_MAX_DIMENSIONS];
  std::copy_n(in.sizes, in.ndim, sizes);
  if (!scalar) {
    op->in_step = in.strides[dim];
    op->value_step = value.strides[dim];
    op->index_step = index.strides[dim];
    sizes[dim] = 1;
  }
  op->lines = make_plan(in.ndim, sizes, {value.strides, index.strides, in.strides});
  op->workspace_bytes = static_cast<uint64_t>(op->areas()) * op->area_bytes();
  op->flops = static_cast<double>(element_count(in));
  op->bytes = static_cast<double>(element_count(in) * 8);
  return op;
}

class NonzeroOp final : public Op {
 public:
  uint32_t ndim = 0;
  std::array<int64_t, XHAL_MAX_DIMENSIONS> sizes{};
  size_t item_bytes = 1;
  bool float_type = false;
  IterPlan plan;
  int64_t parts = 0, bound = 0, row_stride = 0, column_stride = 0;

  xhal_status run(const Launch& launch) const override {
    with_bits(item_bytes, [&](auto bits) { find<decltype(bits)>(launch); });
    return XHAL_OK;
  }

  static constexpr int64_t kPart = 16384;

 private:
  // Twice over the input: the first pass counts each part, the second knows where its rows go.
  template <class T>
  void find(const Launch& launch) const {
    const auto* in = static_cast<const T*>(launch.pointers[0]);
    auto* rows = static_cast<int64_t*>(launch.pointers[1]);
    auto* first = static_cast<int64_t*>(launch.workspace);
    const T significant =
        float_type ? static_cast<T>(static_cast<T>(~T{0}) >> 1) : static_cast<T>(~T{0});
    const int64_t step = plan.inner_stride(0);
    const auto for_each_hit = [&](int64_t part, auto&& hit) {
      int64_t position = part * kPart;
      for_each_run<1>(plan, position, std::min(plan.count, position + kPart),
                      [&](const auto& at, int64_t n) {
                        for (int64_t i = 0; i < n; ++i, ++position)
                          if ((in[at[0] + i * step] & significant) != 0) hit(position);
                      });
    };
    launch.pool.parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        int64_t hits = 0;
        for_each_hit(part, [&](int64_t) { ++hits; });
        first[part] = hits;
      }
    });
    int64_t total = 0;
    for (int64_t part = 0; part < parts; ++part) total += std::exchange(first[part], total);
    *static_cast<int64_t*>(launch.pointers[2]) = total;
    launch.pool.parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        int64_t row = first[part];
        for_each_hit(part, [&](int64_t position) {
          if (row < bound)
            for (uint32_t d = ndim; d-- > 0; position /= sizes[d])
              rows[row * row_stride + static_cast<int64_t>(d) * column_stride] =
                  position % sizes[d];
          ++row;
        });
      }
    });
  }
};

}  // namespace

Prepared prepare_topk(const OpRequest& request, Refusal& refusal) {
  const int64_t k = request.attribute_int("k");
  if (k < 0) return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0, "topk: k must not be negative");
  return make_order(request, refusal, "topk", request.attribute_int("dim"), k,
                    request.attribute_int("largest") != 0);
}

Prepared prepare_sort(const OpRequest& request, Refusal& refusal) {
  return make_order(request, refusal, "sort", request.attribute_int("dim"), -1,
                    request.attribute_int("descending") != 0);
}

Prepared prepare_nonzero(const OpRequest& request, Refusal&) {
  const auto& in = *request.operand(0);
  const auto& rows = *request.operand(1);
  auto op = std::make_unique<NonzeroOp>();
  op->ndim = in.ndim;
  std::copy_n(in.sizes, in.ndim, op->sizes.begin());
  op->item_bytes = size_of(dtype_of(in));
  op->float_type = is_float(dtype_of(in));
  op->plan = make_plan(in.ndim, in.sizes, {in.strides}, true);
  op->parts = (op->plan.count + NonzeroOp::kPart - 1) / NonzeroOp::kPart;
  op->bound = rows.sizes[0];
  op->row_stride = rows.strides[0];
  op->column_stride = rows.strides[1];
  op->workspace_bytes = static_cast<uint64_t>(op->parts) * sizeof(int64_t);
  op->bytes = static_cast<double>(element_count(in)) * static_cast<double>(op->item_bytes);
  return op;
}

}  // namespace xhal::cpu
