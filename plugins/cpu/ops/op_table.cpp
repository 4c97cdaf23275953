// SPDX-License-Identifier: Apache-2.0
// op_table.cpp: the catalogue as data, the check of a request against it, and the table from
// ids to kernels.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <vector>

#include "half.hpp"
#include "op.hpp"

namespace xhal::cpu {
namespace {

using TypeMask = uint32_t;
constexpr TypeMask bit(DType t) { return 1u << static_cast<unsigned>(t); }
constexpr TypeMask kFloats = bit(DType::f32) | bit(DType::bf16) | bit(DType::f16);
constexpr TypeMask kNumbers =
    kFloats | bit(DType::i8) | bit(DType::u8) | bit(DType::i16) | bit(DType::i32) | bit(DType::i64);
constexpr TypeMask kAny = kNumbers | bit(DType::boolean);

enum class Arity : uint8_t { one, optional, any };

struct Group {
  std::string_view name;
  TypeMask types;
  Arity arity;
  bool output;
};

struct Attribute {
  std::string_view name;
  uint32_t kind;
};

struct Entry {
  std::string_view name;
  uint32_t id = 0, version = 0;
  std::vector<Group> groups;
  std::vector<Attribute> attributes;
  std::string_view flops;
  uint32_t scalar_count = 0;
  std::array<Scalar, kMaxScalars> scalars{};
  PrepareFn prepare = nullptr;
};

struct Raw {
  std::string_view name;
  uint32_t id, version;
  std::string_view inputs, outputs, attributes, scalars, flops;
};

constexpr Raw kRaw[] = {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
  {#name, id, version, inputs, outputs, attributes, scalars, flops},
#include "xhal/ops.inc"
#undef XHAL_OP
};

TypeMask types_of(std::string_view letters) {
  if (letters == "F") return kFloats;
  if (letters == "N") return kNumbers;
  if (letters == "A") return kAny;
  if (letters == "X") return bit(DType::i32) | bit(DType::i64);
  if (letters == "L") return bit(DType::i64);
  if (letters == "B") return bit(DType::boolean);
  if (letters == "S") return bit(DType::f32);
  return 0;
}

// What the prose of these operators allows beyond the letters of their groups.
TypeMask extra_types(uint32_t id) {
  switch (id) {
    case XHAL_OP_fill:
    case XHAL_OP_strided_copy:
    case XHAL_OP_multi_copy:
    case XHAL_OP_cat:
    case XHAL_OP_flip:
      return bit(DType::f64) | bit(DType::u32);
    case XHAL_OP_bitwise_not:
    case XHAL_OP_bitwise_and:
    case XHAL_OP_bitwise_or:
    case XHAL_OP_bitwise_xor:
    case XHAL_OP_shift_left:
    case XHAL_OP_shift_right:
      return bit(DType::u32);
    default:
      return 0;
  }
}

template <class F>
void for_each_word(std::string_view text, F&& f) {
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    if (end > 0) f(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::pair<std::string_view, std::string_view> split(std::string_view word, char at) {
  const size_t pos = word.find(at);
  if (pos == std::string_view::npos) return {word, {}};
  return {word.substr(0, pos), word.substr(pos + 1)};
}

Group parse_group(std::string_view word, TypeMask extra, bool output) {
  Arity arity = Arity::one;
  if (word.back() == '?') arity = Arity::optional;
  if (word.back() == '*') arity = Arity::any;
  if (arity != Arity::one) word.remove_suffix(1);
  const auto [name, letters] = split(word, ':');
  return {name, types_of(letters) | extra, arity, output};
}

Scalar parse_scalar(std::string_view text) {
  Scalar s{};
  s.is_int = text.find_first_of(".e") == std::string_view::npos;
  std::from_chars(text.data(), text.data() + text.size(), s.f);
  s.i = static_cast<int64_t>(s.f);
  return s;
}

Entry parse(const Raw& raw) {
  Entry entry;
  entry.name = raw.name;
  entry.id = raw.id;
  entry.version = raw.version;
  entry.flops = raw.flops;
  const TypeMask extra = extra_types(raw.id);
  for_each_word(raw.inputs,
                [&](std::string_view w) { entry.groups.push_back(parse_group(w, extra, false)); });
  for_each_word(raw.outputs,
                [&](std::string_view w) { entry.groups.push_back(parse_group(w, extra, true)); });
  for_each_word(raw.attributes, [&](std::string_view word) {
    const auto [name, rest] = split(word, ':');
    const auto kind = split(rest, '=').first;
    entry.attributes.push_back({name, kind == "i"    ? XHAL_ATTR_INT
                                      : kind == "f"  ? XHAL_ATTR_FLOAT
                                      : kind == "ii" ? XHAL_ATTR_INTS
                                                     : XHAL_ATTR_FLOATS});
  });
  for_each_word(raw.scalars, [&](std::string_view word) {
    entry.scalars[entry.scalar_count++] = parse_scalar(split(word, '=').second);
  });
  return entry;
}

class Catalogue {
 public:
  // Made on first use and never destroyed: operators are prepared and run until the process exits.
  static const Catalogue& get() {
    static const Catalogue* const catalogue = new Catalogue;
    return *catalogue;
  }

  const Entry* find(uint32_t id) const {
    return id < by_id_.size() && by_id_[id].id != 0 ? &by_id_[id] : nullptr;
  }

 private:
  Catalogue() {
    for (const Raw& raw : kRaw) {
      if (by_id_.size() <= raw.id) by_id_.resize(raw.id + 1);
      by_id_[raw.id] = parse(raw);
    }
    for (auto ops : {pointwise_ops(), copy_ops(), reduce_ops(), softmax_ops(), loss_ops(),
                     norm_ops(), random_ops(), optimizer_ops(), gemm_ops(), attention_ops(),
                     index_ops(), conv_ops(), pool_ops(), recurrent_ops(), rope_ops()})
      for (const OpEntry& op : ops) by_id_[op.id].prepare = op.prepare;
  }

  std::vector<Entry> by_id_;
};

bool check_attributes(const Entry& entry, const xhal_op_info& info, Refusal& refusal) {
  for (uint32_t i = 0; i < info.attribute_count; ++i) {
    const xhal_attribute& a = info.attributes[i];
    if (a.index >= entry.attributes.size()) {
      refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
             text("`", entry.name, "` has ", entry.attributes.size(), " attributes; position ",
                  a.index, " was given"));
      return false;
    }
    const Attribute& known = entry.attributes[a.index];
    const bool fits =
        a.kind == known.kind || (known.kind == XHAL_ATTR_FLOAT && a.kind == XHAL_ATTR_INT);
    if (!fits) {
      refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
             text("attribute `", known.name, "` of `", entry.name, "` has the wrong kind"));
      return false;
    }
    const bool list = a.kind == XHAL_ATTR_INTS || a.kind == XHAL_ATTR_FLOATS;
    if (list && a.count != 0 && a.value.ints == nullptr) {
      refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
             text("attribute `", known.name, "` of `", entry.name, "` is a NULL list"));
      return false;
    }
  }
  return true;
}

bool check_operand(const Entry& entry, const Group& group, uint32_t position,
                   const xhal_tensor_desc& t, Refusal& refusal) {
  if (group.arity == Arity::any && (t.flags & XHAL_TENSOR_ABSENT) != 0) return true;
  const std::string who = text("`", group.name, "` of `", entry.name, "`");
  if (t.ndim > XHAL_MAX_DIMENSIONS) {
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, position,
           text(who, " has ", t.ndim, " dimensions; the most is 8"));
    return false;
  }
  int64_t count = 1;
  for (uint32_t i = 0; i < t.ndim; ++i) {
    if (t.sizes[i] < 0 || __builtin_mul_overflow(count, std::max<int64_t>(t.sizes[i], 1), &count)) {
      refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, position,
             text(who, " has an impossible size in dimension ", i, ": ", t.sizes[i]));
      return false;
    }
  }
  if (t.layout != 0 || t.lanes > 1) {
    refuse(refusal, XHAL_ERR_UNSUPPORTED, position,
           text(who, " must be strided, with one lane an element"));
    return false;
  }
  const DType type = dtype_of(t);
  if (type == DType::other || (group.types & bit(type)) == 0) {
    refuse(refusal, XHAL_ERR_UNSUPPORTED, position,
           text(who, " cannot be ", name_of(type), " (code ", t.code, ", ", t.bits, " bits)"));
    return false;
  }
  return true;
}

bool check_groups(const Entry& entry, const xhal_op_info& info, Refusal& refusal) {
  if (info.group_count != entry.groups.size()) {
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
           text("`", entry.name, "` has ", entry.groups.size(), " operand groups; ",
                info.group_count, " were given"));
    return false;
  }
  uint32_t position = 0;
  for (uint32_t g = 0; g < info.group_count; ++g) {
    const Group& group = entry.groups[g];
    const uint32_t size = info.group_sizes[g];
    const bool fits =
        group.arity == Arity::any || size == 1 || (size == 0 && group.arity == Arity::optional);
    if (!fits) {
      refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, position + 1,
             text("group `", group.name, "` of `", entry.name, "` has ", size,
                  " operands; it takes ", group.arity == Arity::optional ? "none or one" : "one"));
      return false;
    }
    if (size > info.operand_count - position) {
      refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
             "operand_count is less than the sum of group_sizes");
      return false;
    }
    for (uint32_t i = 0; i < size; ++i, ++position)
      if (!check_operand(entry, group, position + 1, info.operands[position], refusal))
        return false;
  }
  if (position != info.operand_count) {
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
           "operand_count is more than the sum of group_sizes");
    return false;
  }
  return true;
}

// The catalogue's cost of one run: a number, `in` or `out` (elements of the first list), or
// products of them. A kernel that has already stated its cost (k, the length contracted, is only
// known to it) keeps it.
void state_cost(const Entry& entry, const OpRequest& request, Op& op) {
  for (const xhal_tensor_desc& t : std::span(request.info().operands, request.info().operand_count))
    if ((t.flags & XHAL_TENSOR_ABSENT) == 0)
      op.bytes += static_cast<double>(element_count(t)) * static_cast<double>(t.bits / 8);
  if (op.flops != 0) return;
  const auto elements = [&](bool output) {
    for (uint32_t g = 0; g < entry.groups.size(); ++g) {
      const auto tensors = request.group(g);
      if (entry.groups[g].output != output || tensors.empty()) continue;
      double count = 0;
      for (const xhal_tensor_desc& t : tensors) count += static_cast<double>(element_count(t));
      return count;
    }
    return 0.0;
  };
  double product = 1;
  for (std::string_view rest = entry.flops; !rest.empty();) {
    const auto [factor, next] = split(rest, '*');
    rest = next;
    double number = 1;
    if (factor == "in" || factor == "out") {
      number = elements(factor == "out");
    } else if (factor != "k") {
      std::from_chars(factor.data(), factor.data() + factor.size(), number);
    }
    product *= number;
  }
  op.flops = product;
}

template <class T>
T read(uint64_t address) {
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

bool read_scalar(const xhal_scalar& s, Scalar& out) {
  const auto integer = [&](int64_t v) { out = {true, v, static_cast<double>(v)}; };
  const auto real = [&](double v) { out = {false, 0, v}; };
  switch (dtype_of(s.code, s.bits)) {
    case DType::f32:
      real(read<float>(s.value.address));
      return true;
    case DType::f64:
      real(read<double>(s.value.address));
      return true;
    case DType::bf16:
      real(to_float(read<Bf16>(s.value.address)));
      return true;
    case DType::f16:
      real(to_float(read<F16>(s.value.address)));
      return true;
    case DType::i8:
      integer(read<int8_t>(s.value.address));
      return true;
    case DType::u8:
      integer(read<uint8_t>(s.value.address));
      return true;
    case DType::i16:
      integer(read<int16_t>(s.value.address));
      return true;
    case DType::i32:
      integer(read<int32_t>(s.value.address));
      return true;
    case DType::u32:
      integer(read<uint32_t>(s.value.address));
      return true;
    case DType::i64:
      integer(read<int64_t>(s.value.address));
      return true;
    case DType::boolean:
      integer(read<uint8_t>(s.value.address) != 0);
      return true;
    case DType::other:
      break;
  }
  return false;
}

}  // namespace

std::span<const xhal_tensor_desc> OpRequest::group(uint32_t index) const {
  return {info_.operands + first_operand(index), info_.group_sizes[index]};
}

uint32_t OpRequest::first_operand(uint32_t group) const {
  uint32_t first = 0;
  for (uint32_t g = 0; g < group; ++g) first += info_.group_sizes[g];
  return first;
}

const xhal_tensor_desc* OpRequest::operand(uint32_t group) const {
  const auto tensors = this->group(group);
  return tensors.empty() ? nullptr : tensors.data();
}

int64_t OpRequest::attribute_int(uint32_t index, int64_t otherwise) const {
  for (uint32_t i = 0; i < info_.attribute_count; ++i)
    if (info_.attributes[i].index == index) return info_.attributes[i].value.i;
  return otherwise;
}

double OpRequest::attribute_float(uint32_t index, double otherwise) const {
  for (uint32_t i = 0; i < info_.attribute_count; ++i) {
    const xhal_attribute& a = info_.attributes[i];
    if (a.index == index)
      return a.kind == XHAL_ATTR_INT ? static_cast<double>(a.value.i) : a.value.f;
  }
  return otherwise;
}

std::span<const int64_t> OpRequest::attribute_ints(uint32_t index) const {
  for (uint32_t i = 0; i < info_.attribute_count; ++i) {
    const xhal_attribute& a = info_.attributes[i];
    if (a.index == index) return {a.value.ints, static_cast<size_t>(a.count)};
  }
  return {};
}

Prepared refuse(Refusal& refusal, xhal_status status, uint32_t operand, std::string text) {
  refusal = {status, operand, std::move(text)};
  return nullptr;
}

Prepared prepare_op(const xhal_op_info& info, Refusal& refusal) {
  const Entry* entry = Catalogue::get().find(info.id);
  if (entry == nullptr)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 0,
                  text("operator ", info.id, " is not in this plugin's catalogue"));
  if (info.version > entry->version)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 0,
                  text("`", entry->name, "` is known up to version ", entry->version, "; version ",
                       info.version, " was asked for"));
  if (!check_attributes(*entry, info, refusal) || !check_groups(*entry, info, refusal))
    return nullptr;
  if (entry->prepare == nullptr)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 0,
                  text("`", entry->name, "` has no kernel in this plugin"));
  const OpRequest request(info);
  Prepared op = entry->prepare(request, refusal);
  if (op != nullptr && op->bytes == 0) state_cost(*entry, request, *op);
  return op;
}

bool fill_scalars(uint32_t id, std::span<const xhal_scalar> given, Scalar (&out)[kMaxScalars]) {
  const Entry* entry = Catalogue::get().find(id);
  if (entry == nullptr || given.size() > entry->scalar_count) return false;
  for (uint32_t i = 0; i < entry->scalar_count; ++i) {
    if (i >= given.size()) {
      out[i] = entry->scalars[i];
      continue;
    }
    const xhal_scalar& s = given[i];
    if (s.kind == XHAL_SCALAR_INT) {
      out[i] = {true, s.value.i, static_cast<double>(s.value.i)};
    } else if (s.kind == XHAL_SCALAR_FLOAT) {
      out[i] = {false, 0, s.value.f};
    } else if (s.kind != XHAL_SCALAR_ADDRESS || !read_scalar(s, out[i])) {
      return false;
    }
  }
  return true;
}

std::string_view op_name(uint32_t id) {
  const Entry* entry = Catalogue::get().find(id);
  return entry == nullptr ? std::string_view{} : entry->name;
}

}  // namespace xhal::cpu
