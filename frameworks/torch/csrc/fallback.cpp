// SPDX-License-Identifier: Apache-2.0
#include "fallback.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/op_registration/op_registration.h>
#include <c10/core/DispatchKeySet.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <unordered_map>

#include "copy.h"
#include "environment.h"
#include "generator.h"
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

bool is_generator(const c10::Argument& argument) {
  const auto& type = argument.real_type();
  if (type->kind() == c10::TypeKind::GeneratorType) return true;
  const auto optional = type->cast<c10::OptionalType>();
  return optional && optional->getElementType()->kind() == c10::TypeKind::GeneratorType;
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() && argument.alias_info()->isWrite();
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
  note_fallback(name.c_str(), take_refusal());

  const auto& arguments = schema.arguments();
  const size_t begin = stack->size() - arguments.size();
  const std::vector<c10::IValue> originals(stack->begin() + static_cast<std::ptrdiff_t>(begin),
                                           stack->end());
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
    if (value.isNone() && is_generator(arguments[i]))
      value = host_generator(default_generator(device.index()));
  }

  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

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

  const auto& returns = schema.returns();
  const size_t first = stack->size() - returns.size();
  for (size_t i = 0; i < returns.size(); ++i) {
    c10::IValue& value = (*stack)[first + i];
    TORCH_CHECK_NOT_IMPLEMENTED(!returns[i].alias_info() || returns[i].alias_info()->isWrite(),
                                name, " returns a view; a view cannot be made on the host");
    value = returned_value(value, hosted, device);
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&host_fallback>());
}

}  // namespace xhal_torch
