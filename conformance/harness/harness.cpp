// SPDX-License-Identifier: Apache-2.0
#include "harness/harness.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <deque>
#include <memory>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Group;
using ref::Problem;
using ref::Sizes;
using ref::Tensor;

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kGuard = 256;      // between tensors
constexpr uint8_t kUntouched = 0xff;  // NaN, -1: whoever reads a gap computes nonsense

// Where the elements of one tensor lie in the image of the arena.
struct Placed {
  DType dtype = DType::f32;
  Sizes sizes;
  std::vector<int64_t> strides;  // in elements
  int64_t offset = 0;            // elements from `begin` to the element [0, ..., 0]
  uint64_t begin = 0;            // bytes into the arena
  uint64_t extent = 0;           // bytes
  uint64_t place_of(const Sizes& at) const {
    int64_t index = offset;
    for (size_t d = 0; d < at.size(); ++d) index += at[d] * strides[d];
    return begin + static_cast<uint64_t>(index) * ref::size_of(dtype);
  }
};

// Strides over `order` (fastest first) where each dim takes `gap` more than its size.
std::vector<int64_t> strides_over(const Sizes& sizes, const std::vector<size_t>& order,
                                  int64_t first, int64_t gap) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = first;
  for (const size_t d : order) {
    strides[d] = stride;
    stride *= std::max<int64_t>(sizes[d], 1) + gap;
  }
  return strides;
}

void lay_out(Placed& t, int64_t broadcast_dim, const Run& run, size_t operand, bool is_input) {
  const size_t n = t.sizes.size();
  std::vector<size_t> rows, columns;  // fastest dim first: the last, or the first
  for (size_t d = n; d-- > 0;) rows.push_back(d);
  for (size_t d = 0; d < n; ++d) columns.push_back(d);
  t.strides = strides_over(t.sizes, rows, 1, 0);
  switch (run.layout) {
    case Case::odd:
      t.offset = 3;
      break;
    case Case::aliased:
      t.offset = 1;
      break;
    case Case::strided:
      t.strides = operand % 2 == 0 ? strides_over(t.sizes, columns, 1, 1)
                                   : strides_over(t.sizes, rows, 2, 0);
      t.offset = 2;
      if (is_input && run.negative_strides && n > 0 && t.sizes[0] > 0) {
        t.offset += (t.sizes[0] - 1) * t.strides[0];
        t.strides[0] = -t.strides[0];
      }
      break;
    case Case::broadcast:
      if (is_input && broadcast_dim >= 0) {
        Sizes dense = t.sizes;
        dense[static_cast<size_t>(broadcast_dim)] = 1;
        t.strides = strides_over(dense, rows, 1, 0);
        t.strides[static_cast<size_t>(broadcast_dim)] = 0;
      }
      break;
    default:
      break;
  }
  int64_t furthest = t.offset;
  for (size_t d = 0; d < n; ++d) {
    if (t.strides[d] > 0) furthest += std::max<int64_t>(t.sizes[d] - 1, 0) * t.strides[d];
  }
  t.extent = static_cast<uint64_t>(furthest + 1) * ref::size_of(t.dtype);
}

xhal_tensor_desc describe(const Placed& t, bool bounded) {
  xhal_tensor_desc desc{};
  desc.offset_elements = t.offset;
  desc.code = ref::code_of(t.dtype);
  desc.bits = static_cast<uint8_t>(ref::size_of(t.dtype) * 8);
  desc.lanes = 1;
  desc.ndim = static_cast<uint32_t>(t.sizes.size());
  desc.flags = bounded ? XHAL_TENSOR_BOUNDED : 0;
  std::copy(t.sizes.begin(), t.sizes.end(), desc.sizes);
  std::copy(t.strides.begin(), t.strides.end(), desc.strides);
  return desc;
}

// The device memory of all runs, and the host's image of the part in use.
class Arena {
 public:
  uint64_t reserve(uint64_t size) {
    const uint64_t begin = (image_.size() + kGuard + kAlignment - 1) / kAlignment * kAlignment;
    image_.resize(begin + size + kGuard, kUntouched);
    return begin;
  }
  std::vector<uint8_t>& image() { return image_; }
  uint64_t address() {
    auto& buffer = memory();
    if (buffer == nullptr || buffer->size() < image_.size()) {
      buffer.reset();
      buffer = std::make_unique<Buffer>(std::max<uint64_t>(image_.size() * 2, 4 << 20));
    }
    return buffer->address();
  }
  static std::unique_ptr<Buffer>& memory() {
    static std::unique_ptr<Buffer> buffer;
    return buffer;
  }

 private:
  std::vector<uint8_t> image_;
};

// One problem placed in memory.
class Placement {
 public:
  Placement(const Problem& p, const Run& run) : op_(operator_of(p.op)) {
    size_t operand = 0;
    for (const auto& group : p.inputs) {
      auto& placed = inputs_.emplace_back();
      for (const auto& tensor : group) {
        placed.push_back(place(tensor.dtype, tensor.sizes, broadcast_dim_of(tensor, operand), run,
                               operand, true));
        ++operand;
      }
    }
    for (size_t g = 0; g < p.outputs.size(); ++g) {
      auto& placed = outputs_.emplace_back();
      for (size_t t = 0; t < p.outputs[g].size(); ++t) {
        const auto& out = p.outputs[g][t];
        const Placed* shared = alias_of(g, t, run);
        placed.push_back(shared != nullptr ? *shared
                                           : place(out.dtype, out.sizes, -1, run, operand, false));
        ++operand;
      }
    }
    for (size_t g = 0; g < inputs_.size(); ++g) {
      for (size_t t = 0; t < inputs_[g].size(); ++t) write(inputs_[g][t], p.inputs[g][t]);
    }
    for (size_t i = 0; run.scalars_by_address && i < p.scalars.size(); ++i) {
      const bool whole = std::holds_alternative<int64_t>(p.scalars[i]);
      const uint64_t at = arena_.reserve(8);
      ref::encode(whole ? DType::i64 : DType::f32, p.scalar(i, 0), arena_.image().data() + at);
      scalar_places_.push_back(at);
    }
  }

  // Which dim the broadcast case repeats: each operand another one.
  static int64_t broadcast_dim_of(const Tensor& t, size_t operand) {
    if (t.broadcast_dim == Tensor::kNoDim || t.sizes.empty()) return -1;
    return t.broadcast_dim >= 0 ? t.broadcast_dim : static_cast<int64_t>(operand % t.sizes.size());
  }

  Arena& arena() { return arena_; }
  const std::vector<std::vector<Placed>>& inputs() const { return inputs_; }
  const std::vector<std::vector<Placed>>& outputs() const { return outputs_; }
  const std::vector<uint64_t>& scalar_places() const { return scalar_places_; }

  void write(const Placed& to, const Tensor& tensor) {
    auto* image = arena_.image().data();
    size_t i = 0;
    for (ref::Position at(to.sizes); !at.done(); at.next()) {
      ref::encode(to.dtype, tensor.values[i++], image + to.place_of(at.at()));
    }
  }
  static Tensor read(const Placed& from, const std::vector<uint8_t>& image) {
    Tensor tensor(from.dtype, from.sizes);
    size_t i = 0;
    for (ref::Position at(from.sizes); !at.done(); at.next()) {
      tensor.values[i++] = ref::decode(from.dtype, image.data() + from.place_of(at.at()));
    }
    return tensor;
  }

 private:
  Placed place(DType dtype, const Sizes& sizes, int64_t broadcast_dim, const Run& run,
               size_t operand, bool is_input) {
    Placed t;
    t.dtype = dtype;
    t.sizes = sizes;
    lay_out(t, broadcast_dim, run, operand, is_input);
    t.begin = arena_.reserve(t.extent);
    return t;
  }
  const Placed* alias_of(size_t group, size_t position, const Run& run) const {
    if (run.layout != Case::aliased) return nullptr;
    for (size_t i = 0; i < op_.aliases.size(); ++i) {
      const auto [out, in] = op_.aliases[i];
      if (out != group || (!op_.in_place_together && i != run.alias)) continue;
      if (position >= inputs_[in].size()) continue;
      return &inputs_[in][position];
    }
    return nullptr;
  }

  const Operator& op_;
  Arena arena_;
  std::vector<std::vector<Placed>> inputs_, outputs_;
  std::vector<uint64_t> scalar_places_;
};

// The attributes in the form of the ABI; keeps what they point to.
class AttributeList {
 public:
  explicit AttributeList(const Problem& p) {
    for (const auto& a : p.attributes) {
      xhal_attribute given{};
      given.index = a.index;
      given.count = 1;
      if (const auto* i = std::get_if<int64_t>(&a.value)) {
        given.kind = XHAL_ATTR_INT;
        given.value.i = *i;
      } else if (const auto* f = std::get_if<double>(&a.value)) {
        given.kind = XHAL_ATTR_FLOAT;
        given.value.f = *f;
      } else {
        const auto& list = std::get<std::vector<int64_t>>(a.value);
        given.kind = XHAL_ATTR_INTS;
        given.value.ints = list.data();
        given.count = list.size();
      }
      list_.push_back(given);
    }
  }
  const std::vector<xhal_attribute>& list() const { return list_; }

 private:
  std::vector<xhal_attribute> list_;
};

std::vector<xhal_scalar> scalars_of(const Problem& p, const std::vector<uint64_t>& places,
                                    uint64_t arena) {
  std::vector<xhal_scalar> scalars;
  for (size_t i = 0; i < p.scalars.size(); ++i) {
    const bool whole = std::holds_alternative<int64_t>(p.scalars[i]);
    xhal_scalar s{};
    if (!places.empty()) {
      s.kind = XHAL_SCALAR_ADDRESS;
      s.code = whole ? XHAL_CODE_INT : XHAL_CODE_FLOAT;
      s.bits = whole ? 64 : 32;
      s.value.address = arena + places[i];
    } else if (whole) {
      s.kind = XHAL_SCALAR_INT;
      s.value.i = std::get<int64_t>(p.scalars[i]);
    } else {
      s.kind = XHAL_SCALAR_FLOAT;
      s.value.f = std::get<double>(p.scalars[i]);
    }
    scalars.push_back(s);
  }
  return scalars;
}

struct OpHolder {
  xhal_op* op = nullptr;
  ~OpHolder() {
    if (op != nullptr) xhal_op_destroy(op);
  }
};

xhal_status prepare(const Problem& p, const Placement& placement, OpHolder& holder) {
  std::vector<uint32_t> group_sizes;
  std::vector<xhal_tensor_desc> operands;
  for (const auto& group : placement.inputs()) {
    group_sizes.push_back(static_cast<uint32_t>(group.size()));
    for (const auto& t : group) operands.push_back(describe(t, false));
  }
  for (size_t g = 0; g < placement.outputs().size(); ++g) {
    const auto& group = placement.outputs()[g];
    group_sizes.push_back(static_cast<uint32_t>(group.size()));
    for (size_t t = 0; t < group.size(); ++t)
      operands.push_back(describe(group[t], p.outputs[g][t].bounded));
  }
  const AttributeList attributes(p);
  auto info = versioned<xhal_op_info>();
  info.id = p.op;
  info.attribute_count = static_cast<uint32_t>(attributes.list().size());
  info.attributes = attributes.list().data();
  info.group_count = static_cast<uint32_t>(group_sizes.size());
  info.operand_count = static_cast<uint32_t>(operands.size());
  info.group_sizes = group_sizes.data();
  info.operands = operands.data();
  return xhal_op_prepare(context(), &info, &holder.op);
}

std::vector<uint64_t> addresses_of(const Placement& placement, uint64_t arena) {
  std::vector<uint64_t> addresses;
  for (const auto* side : {&placement.inputs(), &placement.outputs()}) {
    for (const auto& group : *side) {
      for (const auto& t : group) addresses.push_back(arena + t.begin);
    }
  }
  return addresses;
}

// Uploads the image, runs once, and gives the memory as it is afterwards; empty when that failed.
std::vector<uint8_t> run_once(const Problem& p, Placement& placement, xhal_op* op, uint64_t arena,
                              uint64_t workspace) {
  auto image = placement.arena().image();
  const Stream stream;
  const auto host = reinterpret_cast<uintptr_t>(image.data());
  EXPECT_TRUE(ok(xhal_stream_copy(stream, arena, host, image.size())));
  const auto addresses = addresses_of(placement, arena);
  const auto scalars = scalars_of(p, placement.scalar_places(), arena);
  EXPECT_TRUE(
      ok(xhal_op_launch(stream, op, addresses.data(), static_cast<uint32_t>(addresses.size()),
                        scalars.data(), static_cast<uint32_t>(scalars.size()), workspace)));
  EXPECT_TRUE(stream.finishes());
  std::vector<uint8_t> after(image.size());
  EXPECT_TRUE(
      ok(xhal_stream_copy(stream, reinterpret_cast<uintptr_t>(after.data()), arena, after.size())));
  EXPECT_TRUE(stream.finishes());
  return after;
}

// Which operand a byte of the arena belongs to, in words.
std::string describe_place(const Placement& placement, const Operator& op, uint64_t place) {
  std::string words = "between the operands";
  const auto look = [&](const auto& groups, const auto& names) {
    for (size_t g = 0; g < groups.size(); ++g) {
      for (const auto& t : groups[g]) {
        if (place < t.begin || place >= t.begin + t.extent + kGuard) continue;
        words =
            fmt::format("byte {} {} operand {}, which has {} bytes", place - t.begin,
                        place < t.begin + t.extent ? "inside" : "behind", names[g].name, t.extent);
      }
    }
  };
  look(placement.inputs(), op.inputs);
  look(placement.outputs(), op.outputs);
  return words;
}

struct Range {
  uint64_t begin, size;
};

// Outside of what the operator may write, memory must be as it was.
std::string first_intrusion(Placement& placement, const Operator& op, const ref::Results& results,
                            std::vector<uint8_t> after, Range workspace) {
  const auto& before = placement.arena().image();
  const auto forgive = [&](uint64_t begin, uint64_t size) {
    std::copy_n(before.begin() + static_cast<int64_t>(begin), size,
                after.begin() + static_cast<int64_t>(begin));
  };
  const auto forgive_elements = [&](const Placed& t) {
    for (ref::Position at(t.sizes); !at.done(); at.next())
      forgive(t.place_of(at.at()), ref::size_of(t.dtype));
  };
  for (const auto& group : placement.outputs())
    std::for_each(group.begin(), group.end(), forgive_elements);
  for (const auto& u : results.updated) forgive_elements(placement.inputs()[u.group][u.position]);
  forgive(workspace.begin, workspace.size);
  const auto [was, is] = std::mismatch(before.begin(), before.end(), after.begin());
  return was == before.end()
             ? ""
             : describe_place(placement, op, static_cast<uint64_t>(was - before.begin()));
}

void report(const Problem& p, const std::string& wrong, const std::string& where) {
  if (!wrong.empty())
    ADD_FAILURE() << (p.note.empty() ? "" : p.note + ": ") << where << ": " << wrong;
}

void round_scalars(Problem& p) {
  for (auto& scalar : p.scalars) {
    if (auto* f = std::get_if<double>(&scalar)) *f = static_cast<float>(*f);
  }
}

}  // namespace

const char* name_of(Case c) {
  static constexpr const char* kNames[] = {"plain",     "odd",   "strided",
                                           "broadcast", "empty", "aliased"};
  return kNames[static_cast<size_t>(c)];
}

void release_arena() { Arena::memory().reset(); }

void apply_broadcast(Problem& problem) {
  size_t operand = 0;
  for (auto& group : problem.inputs) {
    for (auto& tensor : group) {
      const int64_t dim = Placement::broadcast_dim_of(tensor, operand++);
      if (dim < 0 || tensor.count() == 0) continue;
      for (ref::Position at(tensor.sizes); !at.done(); at.next())
        tensor(at.at()) = tensor(ref::with(at.at(), dim, 0));
    }
  }
}

bool can_alias(const Problem& p, size_t alias) {
  const auto& op = operator_of(p.op);
  const auto [out, in] = op.aliases.at(alias);
  if (p.inputs[in].size() != p.outputs[out].size() || p.inputs[in].empty()) return false;
  for (size_t t = 0; t < p.inputs[in].size(); ++t) {
    if (p.inputs[in][t].dtype != p.outputs[out][t].dtype ||
        p.inputs[in][t].sizes != p.outputs[out][t].sizes)
      return false;
  }
  return true;
}

Defaults compare_defaults(const Problem& given) {
  const auto& op = operator_of(given.op);
  Problem without = given;
  // What picks elements may be out of range along the default dimension: 0 never is.
  for (size_t g = 0; g < op.inputs.size(); ++g) {
    if (op.inputs[g].types != 'X') continue;
    for (auto& tensor : without.inputs[g]) std::fill(tensor.values.begin(), tensor.values.end(), 0);
  }
  std::erase_if(without.attributes,
                [&](const ref::Attribute& a) { return !op.attributes.at(a.index).is_list(); });
  Problem with = without;
  for (uint32_t i = 0; i < op.attributes.size(); ++i) {
    const auto& rule = op.attributes[i];
    if (rule.is_list()) continue;
    if (rule.kind == "i") {
      with.attributes.push_back({i, static_cast<int64_t>(rule.default_value)});
    } else {
      with.attributes.push_back({i, rule.default_value});
    }
  }
  xhal_status statuses[2];
  std::vector<uint8_t> images[2];
  for (int k = 0; k < 2; ++k) {
    const Problem& p = k == 0 ? without : with;
    Placement placement(p, {});
    OpHolder holder;
    statuses[k] = prepare(p, placement, holder);
    if (statuses[k] != XHAL_OK) continue;
    auto properties = versioned<xhal_op_properties>();
    EXPECT_TRUE(ok(xhal_op_query(holder.op, &properties, nullptr, 0)));
    const uint64_t workspace = placement.arena().reserve(properties.workspace_bytes);
    const uint64_t arena = placement.arena().address();
    images[k] = run_once(p, placement, holder.op, arena, arena + workspace);
    images[k].resize(std::min<size_t>(images[k].size(), workspace));  // its content is nobody's
  }
  if (statuses[0] != statuses[1]) {
    return {false,
            fmt::format("{}: without attributes prepare gives {}, with the defaults {}", given.note,
                        xhal_status_name(statuses[0]), xhal_status_name(statuses[1]))};
  }
  if (statuses[0] != XHAL_OK) return {};
  if (images[0] == images[1]) return {true, {}};
  return {true, given.note +
                    ": without attributes the result differs from that with the catalogue's"
                    " defaults (op.h: an attribute left out has the default)"};
}

Outcome run_problem(Problem& problem, ref::Reference expected, const Run& run) {
  const auto& op = operator_of(problem.op);
  if (run.layout == Case::broadcast) apply_broadcast(problem);
  if (run.scalars_by_address) round_scalars(problem);
  Placement placement(problem, run);
  OpHolder holder;
  Outcome outcome;
  if (const auto status = prepare(problem, placement, holder); status != XHAL_OK) {
    outcome.reason = last_error_text();
    outcome.refused = status == XHAL_ERR_UNSUPPORTED;
    if (!outcome.refused)
      ADD_FAILURE() << problem.note << ": prepare: " << xhal_status_name(status) << ": "
                    << outcome.reason;
    return outcome;
  }
  auto properties = versioned<xhal_op_properties>();
  EXPECT_TRUE(ok(xhal_op_query(holder.op, &properties, nullptr, 0)));
  const Range workspace{placement.arena().reserve(properties.workspace_bytes),
                        properties.workspace_bytes};
  const uint64_t arena = placement.arena().address();
  const auto results = expected != nullptr ? expected(problem) : ref::empty_results(problem);
  const auto after = run_once(problem, placement, holder.op, arena, arena + workspace.begin);
  if (after.empty()) return outcome;

  for (size_t g = 0; g < placement.outputs().size(); ++g) {
    auto& read = outcome.outputs.emplace_back();
    for (size_t t = 0; t < placement.outputs()[g].size(); ++t) {
      read.push_back(Placement::read(placement.outputs()[g][t], after));
      if (expected == nullptr) continue;
      const auto wrong = first_difference(results.outputs[g][t], read.back(), op.tolerance);
      report(problem, wrong, fmt::format("output {} #{}", op.outputs[g].name, t));
    }
  }
  for (const auto& u : results.updated) {
    const auto wrong = first_difference(
        u.values, Placement::read(placement.inputs()[u.group][u.position], after), op.tolerance);
    report(problem, wrong, "updated in place: " + op.inputs[u.group].name);
  }
  const auto intrusion = first_intrusion(placement, op, results, after, workspace);
  report(problem, intrusion, "it wrote where it must not");
  if (run.layout == Case::plain && op.deterministic) {
    auto again = run_once(problem, placement, holder.op, arena, arena + workspace.begin);
    auto first = after;  // what a workspace holds afterwards is nobody's business
    for (auto* image : {&again, &first})
      std::fill_n(image->begin() + static_cast<int64_t>(workspace.begin), workspace.size,
                  uint8_t{0});
    EXPECT_TRUE(again == first) << problem.note
                                << ": the same inputs gave other bits the second time";
  }
  return outcome;
}

}  // namespace xhal::cts
