// SPDX-License-Identifier: Apache-2.0
// xhal/op_sizes.hpp: the `shape` column of the catalogue, whose grammar ops.inc states: whether the
// sizes of a request's operands agree, and the sizes of an output. Header only, C++20.
//
//   catalogue::Dims sizes;
//   if (const auto refusal = catalogue::infer_sizes(*info, position, sizes)) return refusal.text;
#ifndef XHAL_OP_SIZES_HPP
#define XHAL_OP_SIZES_HPP

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "xhal/op_attributes.hpp"
#include "xhal/refusal.hpp"
#include "xhal/shape.hpp"

namespace xhal::catalogue {

// The sizes of a tensor.
struct Dims {
  std::array<int64_t, XHAL_MAX_DIMENSIONS> sizes{};
  uint32_t count = 0;  // beyond XHAL_MAX_DIMENSIONS no tensor has them

  constexpr void push(int64_t size) {
    if (count < XHAL_MAX_DIMENSIONS) sizes[count] = size;
    ++count;
  }
  constexpr bool operator==(const Dims&) const = default;
};

inline Dims dims_of(const xhal_tensor_desc& t) {
  Dims dims;
  for (uint32_t d = 0; d < t.ndim; ++d) dims.push(t.sizes[d]);
  return dims;
}

namespace detail {

using Known = std::optional<Dims>;  // nothing: not to be known from what is bound

inline std::optional<uint32_t> place_of_dim(int64_t dim, uint32_t count) {
  if (dim < 0) dim += count;
  if (dim < 0 || dim >= count) return {};
  return static_cast<uint32_t>(dim);
}

// ---- the functions of the grammar

inline Known reduced(const Dims& s, const Attributes& a, bool keep) {
  uint32_t mask = 0;
  const auto take = [&](int64_t dim) {
    const auto place = place_of_dim(dim, s.count);
    if (place) mask |= 1u << *place;
    return place || s.count == 0;
  };
  if (a.has("dims")) {
    for (const int64_t dim : a.integers("dims"))
      if (!take(dim)) return {};
    if (a.integers("dims").empty()) mask = ~0u;
  } else if (a.integer("all") != 0) {
    mask = ~0u;
  } else if (!take(a.integer("dim"))) {
    return {};
  }
  Dims result;
  for (uint32_t d = 0; d < s.count; ++d) {
    const bool taken = (mask >> d & 1u) != 0;
    if (!taken || keep) result.push(taken ? 1 : s.sizes[d]);
  }
  return result;
}

inline Known along(const Dims& s, const Attributes& a, int64_t size) {
  if (s.count == 0) return s;
  const auto place = place_of_dim(a.integer("dim"), s.count);
  if (!place) return {};
  Dims result = s;
  result.sizes[*place] = size;
  return result;
}

inline Known from_axis(const Dims& s, const Attributes& a) {
  const auto axis = place_of_dim(a.integer("axis"), s.count);
  if (!axis) return {};
  Dims result;
  for (uint32_t d = *axis; d < s.count; ++d) result.push(s.sizes[d]);
  return result;
}

inline Known before_axis(const Dims& s, const Attributes& a, bool keep) {
  const auto axis = place_of_dim(a.integer("axis"), s.count);
  if (!axis) return {};
  Dims result;
  for (uint32_t d = 0; d < (keep ? s.count : *axis); ++d) result.push(d < *axis ? s.sizes[d] : 1);
  return result;
}

inline Known indexed(const Dims& s, const Dims& index, const Attributes& a) {
  const auto dims = a.integers("dims");
  if (dims.empty()) return {};
  const auto first = place_of_dim(dims[0], s.count);
  if (!first || *first + dims.size() > s.count) return {};
  Dims result;
  for (uint32_t d = 0; d < *first; ++d) result.push(s.sizes[d]);
  for (uint32_t d = 0; d < index.count; ++d) result.push(index.sizes[d]);
  for (size_t d = *first + dims.size(); d < s.count; ++d) result.push(s.sizes[d]);
  return result;
}

// One value for all dimensions or one for each; nothing when it is neither or out of range.
inline std::optional<int64_t> value_for(std::span<const int64_t> given, size_t place, size_t places,
                                        int64_t otherwise, int64_t least) {
  if (given.empty()) return otherwise;
  if (given.size() != 1 && given.size() != places) return {};
  const int64_t value = given[given.size() == 1 ? 0 : place];
  if (value < least || value > INT32_MAX) return {};
  return value;
}

inline std::optional<int64_t> product(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) return {};
  return result;
}

// The dim of size "out channels" of a convolution's weight.
inline std::optional<int64_t> filters(const Dims& w, const Attributes& a) {
  if (w.count < 3) return {};
  return a.integer("transposed") != 0 ? product(w.sizes[1], a.integer("groups"))
                                      : std::optional(w.sizes[0]);
}

inline Known convolved(const Dims& x, const Dims& w, const Attributes& a) {
  const auto channels = filters(w, a);
  if (x.count < 3 || w.count != x.count || !channels) return {};
  const size_t places = x.count - 2;
  Dims result;
  result.push(x.sizes[0]);
  result.push(*channels);
  for (size_t i = 0; i < places; ++i) {
    const auto stride = value_for(a.integers("stride"), i, places, 1, 1);
    const auto padding = value_for(a.integers("padding"), i, places, 0, 0);
    const auto dilation = value_for(a.integers("dilation"), i, places, 1, 1);
    const auto more = value_for(a.integers("output_padding"), i, places, 0, 0);
    const int64_t size = x.sizes[i + 2], kernel = w.sizes[i + 2];
    if (!stride || !padding || !dilation || !more || kernel < 1) return {};
    if (size > INT32_MAX || kernel > INT32_MAX) return {};
    const Window window{kernel, *stride, *padding, *dilation};
    result.push(a.integer("transposed") != 0 ? transposed_size(size, window, *more)
                                             : convolved_size(size, window));
  }
  return result;
}

inline Known pooled(const Dims& x, const Attributes& a) {
  if (x.count < 2) return {};
  Dims result = x;
  for (size_t i = 0; i < 2; ++i) {
    const auto kernel = value_for(a.integers("kernel"), i, 2, 0, 1);
    const auto stride = value_for(a.integers("stride"), i, 2, kernel.value_or(0), 1);
    const auto padding = value_for(a.integers("padding"), i, 2, 0, 0);
    const bool dilates = a.has("dilation");
    const auto dilation = dilates ? value_for(a.integers("dilation"), i, 2, 1, 1) : 1;
    int64_t& size = result.sizes[x.count - 2 + i];
    if (!kernel || *kernel < 1 || !stride || !padding || !dilation || size > INT32_MAX) return {};
    size = pooled_size(size, {*kernel, *stride, *padding, *dilation}, a.integer("ceil") != 0);
  }
  return result;
}

// `misfit`: the first tensor that does not fit the others; there is no result then.
inline Known joined(std::span<const xhal_tensor_desc> tensors, const Attributes& a,
                    const xhal_tensor_desc** misfit) {
  const xhal_tensor_desc* model = nullptr;
  for (const auto& t : tensors)
    if (model == nullptr || element_count(*model) == 0) model = &t;
  const auto place = model ? place_of_dim(a.integer("dim"), model->ndim) : std::nullopt;
  if (!place) return {};
  Dims result = dims_of(*model);
  int64_t& joined_size = result.sizes[*place];
  for (const auto& t : tensors) {
    if (&t == model) continue;
    bool fits = t.ndim == model->ndim;
    for (uint32_t d = 0; fits && d < t.ndim; ++d)
      fits = d == *place || t.sizes[d] == model->sizes[d];
    if (!fits && element_count(t) == 0) continue;  // that may have any sizes
    if (!fits || __builtin_add_overflow(joined_size, t.sizes[*place], &joined_size)) {
      *misfit = &t;
      return {};
    }
  }
  return result;
}

// ---- names and what they are bound to

class Shape {
 public:
  Shape(const Operator& op, const xhal_op_info& info) : op_(op), info_(info), attributes_(info) {}

  // Binds the names in `sizes` that `t` shows; whether `t` agrees with what was bound before. Names
  // that are not bound yet agree with everything.
  bool match(std::string_view sizes, const xhal_tensor_desc& t) {
    if (sizes == "*") return true;
    if (sizes == "one") return element_count(t) == 1;
    if (grammar::is_function(sizes)) {
      const Dims dims = dims_of(t);
      const Known plain = call(sizes, false), kept = call(sizes, true);
      return misfit_ == nullptr && (!plain || *plain == dims || *kept == dims);
    }
    return match_list(sizes, t);
  }

  // The sizes, when all names in them are bound. A function may leave out dimensions.
  Known evaluate(std::string_view sizes) const {
    if (sizes == "*") return {};
    if (sizes == "one" || sizes == "[]") return Dims{};
    if (grammar::is_function(sizes)) return call(sizes, false);
    Dims result;
    for (std::string_view rest = sizes; !rest.empty();) {
      const std::string_view term = grammar::next_term(rest);
      if (grammar::is_run(term)) {
        const Dims* run = runs_.find(term);
        if (run == nullptr) return {};
        for (uint32_t d = 0; d < run->count; ++d) result.push(run->sizes[d]);
        continue;
      }
      const auto size = value(term);
      if (!size) return {};
      result.push(*size);
    }
    return result;
  }

  // The operand of a list that does not fit the others of it, when match() found one.
  const xhal_tensor_desc* misfit() const { return misfit_; }

  // What `sizes` come to, as far as it is known: "[6, n]".
  std::string expected(std::string_view sizes) const {
    if (sizes == "one") return "one element";
    if (const Known dims = evaluate(sizes)) return text_of(*dims);
    if (grammar::is_function(sizes)) return std::string(sizes);
    std::string all;
    const auto put = [&](const auto& part) { all += text(all.empty() ? "" : ", ", part); };
    for (std::string_view rest = sizes; !rest.empty();) {
      const std::string_view term = grammar::next_term(rest);
      const auto size = grammar::is_run(term) ? std::nullopt : value(term);
      const Dims* run = runs_.find(term);
      if (size) {
        put(*size);
      } else if (run == nullptr) {
        put(term);
      } else {
        for (uint32_t d = 0; d < run->count; ++d) put(run->sizes[d]);
      }
    }
    return text("[", all, "]");
  }

  // "k = 3, S = [2, 4]"
  std::string bound() const {
    std::string all;
    for (size_t i = 0; i < sizes_.count; ++i)
      all += text(all.empty() ? "" : ", ", sizes_.names[i], " = ", sizes_.values[i]);
    for (size_t i = 0; i < runs_.count; ++i)
      all += text(all.empty() ? "" : ", ", runs_.names[i], " = ", text_of(runs_.values[i]));
    return all;
  }

  static std::string text_of(const Dims& dims) {
    std::string all;
    for (uint32_t d = 0; d < dims.count; ++d) all += text(d == 0 ? "" : ", ", dims.sizes[d]);
    return text("[", all, "]");
  }

 private:
  template <class T>
  struct Bound {
    std::array<std::string_view, grammar::kMostNames> names;
    std::array<T, grammar::kMostNames> values;
    size_t count = 0;

    const T* find(std::string_view name) const {
      for (size_t i = 0; i < count; ++i)
        if (names[i] == name) return &values[i];
      return nullptr;
    }
    void add(std::string_view name, const T& value) {
      names[count] = name;
      values[count++] = value;
    }
  };

  std::optional<int64_t> value(std::string_view term) const {
    if (term[0] == '@') return attributes_.integer(term.substr(1));
    if (term[0] == '#') {
      const Dims* run = runs_.find(term.substr(1));
      return run == nullptr ? std::nullopt : std::optional<int64_t>(run->count);
    }
    if (const auto quotient = grammar::quotient_in(term)) {
      const int64_t* dividend = sizes_.find(quotient->dividend);
      const int64_t divisor = attributes_.integer(quotient->attribute);
      if (dividend == nullptr || divisor < 1) return {};
      return *dividend / divisor + (*dividend % divisor != 0 ? 1 : 0);
    }
    const grammar::Multiple multiple = grammar::multiple_in(term);
    if (multiple.name.empty()) return multiple.factor;
    const int64_t* size = sizes_.find(multiple.name);
    return size == nullptr ? std::nullopt : product(multiple.factor, *size);
  }

  bool match_one(std::string_view term, int64_t size) {
    if (const auto known = value(term)) return *known == size;
    if (term[0] == '@' || term[0] == '#' || grammar::quotient_in(term)) return true;
    const grammar::Multiple multiple = grammar::multiple_in(term);
    if (size % multiple.factor != 0) return false;
    sizes_.add(multiple.name, size / multiple.factor);
    return true;
  }

  bool match_list(std::string_view sizes, const xhal_tensor_desc& t) {
    if (sizes == "[]") return t.ndim == 0;
    const size_t terms = grammar::count_terms(sizes);
    const bool has_run = grammar::has_run(sizes);
    const size_t single = terms - (has_run ? 1 : 0);
    if (has_run ? t.ndim < single : t.ndim != single) return false;
    uint32_t d = 0;
    for (std::string_view rest = sizes; !rest.empty();) {
      const std::string_view term = grammar::next_term(rest);
      if (!grammar::is_run(term)) {
        if (!match_one(term, t.sizes[d++])) return false;
        continue;
      }
      Dims run;
      for (size_t i = single; i < t.ndim; ++i) run.push(t.sizes[d++]);
      if (const Dims* known = runs_.find(term)) {
        if (*known != run) return false;
      } else {
        runs_.add(term, run);
      }
    }
    return true;
  }

  // `keep`: with size 1 where the function leaves out a dimension.
  Known call(std::string_view sizes, bool keep) const {
    const grammar::Function f = grammar::function_in(sizes);
    if (f.name == "joined") return joined(operands_of(f.first), attributes_, &misfit_);
    const Dims* s = runs_.find(f.first);
    if (s == nullptr) return {};
    if (f.name == "reduced") return reduced(*s, attributes_, keep);
    if (f.name == "loss") return attributes_.integer("reduction") == 0 ? *s : Dims{};
    if (f.name == "from") return from_axis(*s, attributes_);
    if (f.name == "before") return before_axis(*s, attributes_, keep);
    if (f.name == "pooled") return pooled(*s, attributes_);
    if (f.name == "filters") {
      const auto channels = filters(*s, attributes_);
      if (!channels) return {};
      Dims one;
      one.push(*channels);
      return one;
    }
    if (f.name == "along") {
      const auto size = value(f.second);
      return size ? along(*s, attributes_, *size) : Known{};
    }
    const Dims* other = runs_.find(f.second);
    if (other == nullptr) return {};
    return f.name == "indexed" ? indexed(*s, *other, attributes_)
                               : convolved(*s, *other, attributes_);
  }

  std::span<const xhal_tensor_desc> operands_of(std::string_view group) const {
    uint32_t first = 0;
    for (uint32_t g = 0; g < info_.group_count; first += info_.group_sizes[g++])
      if (op_.groups()[g].name == group) return {info_.operands + first, info_.group_sizes[g]};
    return {};
  }

  const Operator& op_;
  const xhal_op_info& info_;
  const Attributes attributes_;
  Bound<int64_t> sizes_;
  Bound<Dims> runs_;
  mutable const xhal_tensor_desc* misfit_ = nullptr;
};

// Calls f(group, position) for each operand that is there: of a list only the one at `place`.
template <class F>
void for_each_operand(const Operator& op, const xhal_op_info& info, uint32_t place, F&& f) {
  uint32_t first = 0;
  for (uint32_t g = 0; g < info.group_count; first += info.group_sizes[g++]) {
    const uint32_t at = op.groups()[g].arity == Arity::any ? place : 0;
    if (at >= info.group_sizes[g]) continue;
    if ((info.operands[first + at].flags & XHAL_TENSOR_ABSENT) != 0) continue;
    f(g, first + at);
  }
}

inline Refusal check_place(const Operator& op, const xhal_op_info& info, uint32_t place) {
  Shape shape(op, info);
  Refusal refusal;
  // Twice: a function may come before the names in it.
  for (int round = 0; round < 2 && !refusal; ++round) {
    for_each_operand(op, info, place, [&](uint32_t g, uint32_t position) {
      const xhal_tensor_desc& t = info.operands[position];
      const std::string_view sizes = op.groups()[g].sizes;
      if (refusal || shape.match(sizes, t)) return;
      if (const xhal_tensor_desc* misfit = shape.misfit()) {
        const auto index = static_cast<uint32_t>(misfit - info.operands);
        refusal = {
            XHAL_ERR_INVALID_ARGUMENT, index + 1, 0,
            text("operand ", index, " of `", op.name, "` has sizes ",
                 Shape::text_of(dims_of(*misfit)), ", which do not fit the others (", sizes, ")")};
        return;
      }
      const std::string bound = shape.bound();
      refusal = {XHAL_ERR_INVALID_ARGUMENT, position + 1, 0,
                 text("`", op.groups()[g].name, "` of `", op.name, "` has sizes ",
                      Shape::text_of(dims_of(t)), " instead of ", shape.expected(sizes), " (",
                      sizes, bound.empty() ? "" : ", where ", bound, ")")};
    });
  }
  return refusal;
}

}  // namespace detail

// Whether the sizes of a request's operands agree with each other and with its attributes. For a
// request whose groups and attributes are the catalogue's: check() calls this last.
inline Refusal check_sizes(const Operator& op, const xhal_op_info& info) {
  uint32_t places = 1;
  for (uint32_t g = 0; g < info.group_count; ++g)
    if (op.groups()[g].arity == Arity::any) places = std::max(places, info.group_sizes[g]);
  for (uint32_t place = 0; place < places; ++place)
    if (auto refusal = detail::check_place(op, info, place)) return refusal;
  return {};
}

// The sizes of the output at `position`, from the sizes of the inputs and the attributes; what the
// request says of outputs is not read. Refused when they do not follow from those (the rows of
// embedding_grad, say, are the caller's choice) or when the inputs contradict each other.
// Dimensions that a reduction may keep with size 1 are left out.
inline Refusal infer_sizes(const xhal_op_info& info, uint32_t position, Dims& sizes) {
  const auto refuse = [](std::string why) {
    return Refusal{XHAL_ERR_INVALID_ARGUMENT, 0, 0, std::move(why)};
  };
  const Operator* op = find(info.id);
  if (op == nullptr) return refuse(text("operator ", info.id, " is not in the catalogue"));
  uint32_t g = 0, first = 0;
  while (g < info.group_count && position - first >= info.group_sizes[g])
    first += info.group_sizes[g++];
  if (g >= info.group_count || g >= op->group_count || !op->groups()[g].output)
    return refuse(text("operand ", position, " of `", op->name, "` is no output"));
  detail::Shape shape(*op, info);
  bool agree = true;
  for (int round = 0; round < 2; ++round) {
    detail::for_each_operand(*op, info, position - first, [&](uint32_t group, uint32_t operand) {
      if (!op->groups()[group].output)
        agree = shape.match(op->groups()[group].sizes, info.operands[operand]) && agree;
    });
  }
  const auto known = shape.evaluate(op->groups()[g].sizes);
  if (!agree) return refuse(text("the inputs of `", op->name, "` contradict each other"));
  if (!known)
    return refuse(text("the sizes of `", op->groups()[g].name, "` of `", op->name,
                       "` do not follow from its inputs"));
  sizes = *known;
  return {};
}

}  // namespace xhal::catalogue

#endif
