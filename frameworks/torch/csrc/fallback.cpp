// SPDX-License-Identifier: Apache-2.0
#include "fallback.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/core/op_registration/op_registration.h>
#include <c10/core/DispatchKeySet.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <unordered_map>

#include "copy.h"
#include "dtype.h"
#include "environment.h"
#include "generator.h"
#include "operands.h"
#include "runtime.h"

namespace xhal_torch {
namespace {

enum class Mode { warn, error, silent };

Mode mode() {
  static const Mode chosen = [] {
    // In the order of Mode.
    const auto wish = xhal::base::environment_choice("XHAL_FALLBACK", {"warn", "error", "silent"});
    if (!wish.problem.empty())
      std::fprintf(stderr, "xhal: %s; taking warn\n", wish.problem.c_str());
    return wish.value ? static_cast<Mode>(*wish.value) : Mode::warn;
  }();
  return chosen;
}

struct Counts {
  std::mutex mutex;
  std::map<std::string, uint64_t> by_name;
};

Counts& counts() {
  static Counts* const made = new Counts;
  return *made;
}

thread_local std::string refusal;

bool on_device(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kXhal;
}

// Host copies of the operands, one for each tensor however often it comes.
class Hosted {
 public:
  at::Tensor operator()(const at::Tensor& tensor) {
    if (!on_device(tensor)) return tensor;
    if (!device_) device_ = tensor.device();
    for (const auto& [original, host] : pairs_) {
      if (original.is_same(tensor)) return host;
    }
    pairs_.emplace_back(tensor, to_host(tensor));
    return pairs_.back().second;
  }

  // What the operator wrote goes back to where it came from.
  void write_back(const at::Tensor& original) {
    for (const auto& [from, host] : pairs_) {
      if (!from.is_same(original)) continue;
      if (!from.sizes().equals(host.sizes())) from.resize_(host.sizes());
      copy_tensor(host, from, false);
    }
  }

  // The device tensor that `host` stands for, if it is one of the copies.
  const at::Tensor* original_of(const at::Tensor& host) const {
    for (const auto& [from, copy] : pairs_) {
      if (copy.is_same(host)) return &from;
    }
    return nullptr;
  }

  std::optional<at::Device>& device() { return device_; }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs_;
  std::optional<at::Device> device_;
};

// A host generator that continues the device's stream of random numbers in its own way.
at::Generator host_generator(const at::Generator& generator) {
  const Philox state = take_random(generator, generator.device().index(), 4);
  return at::make_generator<at::CPUGeneratorImpl>(state.seed ^
                                                  (state.offset + 1) * 0x9E3779B97F4A7C15u);
}

bool is_kind(const c10::Argument& argument, c10::TypeKind kind) {
  const auto& type = argument.real_type();
  if (type->kind() == kind) return true;
  const auto optional = type->cast<c10::OptionalType>();
  return optional && optional->getElementType()->kind() == kind;
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() && argument.alias_info()->isWrite();
}

// Every tensor of an operator's arguments: visit(tensor, argument, whether it is an index).
template <class Visit>
void each_tensor(const c10::FunctionSchema& schema, c10::ArrayRef<c10::IValue> values,
                 const Visit& visit) {
  for (size_t i = 0; i < values.size(); ++i) {
    const c10::IValue& value = values[i];
    const c10::Argument& argument = schema.arguments()[i];
    if (value.isTensor()) {
      if (value.toTensor().defined()) visit(value.toTensor(), argument, false);
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) visit(tensor, argument, false);
    } else if (value.isOptionalTensorList()) {
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        if (tensor && tensor->defined()) visit(*tensor, argument, true);
      }
    }
  }
}

// Why an operator runs on the host, where the kernel that gave up has not told.
std::string reason(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> values) {
  if (!op.hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1)) return "no kernel for it";
  auto foreign = c10::ScalarType::Undefined;
  const auto look = [&foreign](c10::ScalarType type) {
    if (foreign == c10::ScalarType::Undefined && !is_native(type)) foreign = type;
  };
  const auto& arguments = op.schema().arguments();
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].isInt() && is_kind(arguments[i], c10::TypeKind::ScalarTypeType))
      look(values[i].toScalarType());
  }
  each_tensor(op.schema(), values, [&](const at::Tensor& tensor, const c10::Argument&, bool) {
    if (on_device(tensor)) look(tensor.scalar_type());
  });
  return host_reason(foreign);
}

// All operands on one device, but for numbers (tensors without dimensions on the CPU, which are
// only read) and indices. Host copies would hide the mistake.
void check_devices(const c10::FunctionSchema& schema, c10::ArrayRef<c10::IValue> values) {
  std::optional<at::Device> device;
  each_tensor(schema, values, [&](const at::Tensor& tensor, const c10::Argument&, bool index) {
    if (!device && !index && on_device(tensor)) device = tensor.device();
  });
  each_tensor(schema, values,
              [&](const at::Tensor& tensor, const c10::Argument& argument, bool index) {
                if (index) {
                  const bool indexed = !values.empty() && values[0].isTensor();
                  if (indexed) expect_index_device(tensor, values[0].toTensor().device());
                  return;
                }
                const bool number = tensor.is_cpu() && tensor.dim() == 0 && !writes(argument);
                if (device && !number)
                  expect_device(tensor, *device, argument.name(), schema.name());
              });
}

// A generator is of the device whose tensors it fills; one of xhal brings an operator on CPU
// tensors here.
void check_generators(const c10::FunctionSchema& schema, c10::ArrayRef<c10::IValue> values) {
  std::optional<c10::DeviceType> filled;
  for (const c10::IValue& value : values) {
    if (value.isDevice()) filled = value.toDevice().type();
  }
  each_tensor(schema, values, [&](const at::Tensor& tensor, const c10::Argument&, bool) {
    if (!filled || on_device(tensor)) filled = tensor.device().type();
  });
  for (const c10::IValue& value : values) {
    if (filled && value.isGenerator()) expect_generator(value.toGenerator(), *filled);
  }
}

// Host copies would hide this too: the operator would see memory that is not shared.
void check_overlap(const c10::FunctionSchema& schema, c10::ArrayRef<c10::IValue> values) {
  each_tensor(schema, values, [&](const at::Tensor& out, const c10::Argument& argument, bool) {
    if (!writes(argument) || !on_device(out)) return;
    at::assert_no_internal_overlap(out);
    each_tensor(schema, values, [&](const at::Tensor& in, const c10::Argument&, bool) {
      if (!in.is_same(out) && on_device(in) && in.is_alias_of(out))
        at::assert_no_partial_overlap(out, in);
    });
  });
}

// What makes tensors of a layout that the device does not have.
void check_layout(const std::string& name) {
  for (std::string_view maker : {"aten::_to_sparse", "aten::to_mkldnn", "aten::quantize_per_"}) {
    TORCH_CHECK_NOT_IMPLEMENTED(!name.starts_with(maker), name,
                                ": xhal has only dense strided tensors; use .cpu() first");
  }
}

c10::IValue hosted_value(const c10::IValue& value, Hosted& hosted) {
  if (value.isTensor()) return hosted(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(hosted(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
      list.push_back(tensor ? std::optional<at::Tensor>(hosted(*tensor)) : std::nullopt);
    }
    return list;
  }
  return value;
}

c10::IValue returned_value(const c10::IValue& value, const Hosted& hosted, at::Device device) {
  const auto place = [&](const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cpu()) return tensor;
    if (const at::Tensor* original = hosted.original_of(tensor)) return *original;
    return to_device(tensor, device);
  };
  if (value.isTensor()) return place(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(place(tensor));
    return list;
  }
  return value;
}

}  // namespace

void note_fallback(const char* name, std::string_view why) {
  Counts& all = counts();
  bool first;
  {
    std::lock_guard lock(all.mutex);
    first = ++all.by_name[name] == 1;
  }
  const std::string reason = why.empty() ? "no kernel for it" : std::string(why);
  TORCH_CHECK_NOT_IMPLEMENTED(
      mode() != Mode::error, name, " would run on the host: ", reason,
      "\n  XHAL_FALLBACK=error forbids that; XHAL_FALLBACK=warn allows and names it.");
  if (first && mode() == Mode::warn) {
    std::fprintf(stderr, "xhal: %s runs on the host (%s). torch.xhal.fallbacks() counts these.\n",
                 name, reason.c_str());
  }
}

std::string host_reason(c10::ScalarType foreign) {
  if (foreign == c10::ScalarType::Undefined) return "the kernel for it does not take this call";
  return c10::str(foreign, " is computed on the host");
}

void set_refusal(std::string_view why) { refusal = why; }
std::string take_refusal() { return std::exchange(refusal, {}); }

std::map<std::string, uint64_t> fallback_counts() {
  std::lock_guard lock(counts().mutex);
  return counts().by_name;
}

void reset_fallback_counts() {
  std::lock_guard lock(counts().mutex);
  counts().by_name.clear();
}

void host_fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const std::string name =
      schema.overload_name().empty() ? schema.name() : schema.name() + "." + schema.overload_name();
  const auto& arguments = schema.arguments();
  const size_t begin = stack->size() - arguments.size();
  const std::vector<c10::IValue> originals(stack->begin() + static_cast<std::ptrdiff_t>(begin),
                                           stack->end());
  std::string why = take_refusal();
  check_layout(name);
  check_devices(schema, originals);
  check_generators(schema, originals);
  check_overlap(schema, originals);
  if (why.empty()) why = reason(op, originals);

  Hosted hosted;
  for (size_t i = 0; i < arguments.size(); ++i) {
    c10::IValue& value = (*stack)[begin + i];
    if (value.isDevice()) {
      if (value.toDevice().type() != kXhal) continue;
      if (!hosted.device()) hosted.device() = value.toDevice();
      value = at::Device(at::kCPU);
    } else if (value.isGenerator() && value.toGenerator().device().type() == kXhal) {
      value = host_generator(value.toGenerator());
    } else {
      value = hosted_value(value, hosted);
    }
  }
  at::Device device = hosted.device().value_or(at::Device(kXhal, current_device()));
  if (!device.has_index()) device.set_index(current_device());
  for (size_t i = 0; i < arguments.size(); ++i) {
    c10::IValue& value = (*stack)[begin + i];
    if (value.isNone() && is_kind(arguments[i], c10::TypeKind::GeneratorType))
      value = host_generator(default_generator(device.index()));
  }

  // What this raises is about the call, and would be raised with every device: no fallback.
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  const auto& returns = schema.returns();
  for (const c10::Argument& returned : returns) {
    TORCH_CHECK_NOT_IMPLEMENTED(!returned.alias_info() || returned.alias_info()->isWrite(), name,
                                " returns a view; a view cannot be made on the host");
  }
  note_fallback(name.c_str(), why);

  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!writes(arguments[i])) continue;
    const c10::IValue& original = originals[i];
    if (original.isTensor() && on_device(original.toTensor()))
      hosted.write_back(original.toTensor());
    if (original.isTensorList()) {
      for (const at::Tensor& tensor : original.toTensorVector()) {
        if (on_device(tensor)) hosted.write_back(tensor);
      }
    }
  }

  const size_t first = stack->size() - returns.size();
  for (size_t i = first; i < stack->size(); ++i)
    (*stack)[i] = returned_value((*stack)[i], hosted, device);
}

namespace {

// One sentence, where the dispatcher would list all its backends.
void refuse_layout(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, op.operator_name(),
      ": xhal has only dense strided tensors, no sparse, quantized or nested ones; keep such a "
      "tensor on the CPU, or make it dense before it goes to xhal");
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&host_fallback>());
}
TORCH_LIBRARY_IMPL(_, SparsePrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse_layout>());
}
TORCH_LIBRARY_IMPL(_, SparseCsrPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse_layout>());
}
TORCH_LIBRARY_IMPL(_, QuantizedPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse_layout>());
}
TORCH_LIBRARY_IMPL(_, NestedTensorPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse_layout>());
}

}  // namespace xhal_torch
