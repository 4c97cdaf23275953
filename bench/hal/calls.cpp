// calls.cpp: the way from a framework's call to the plugin's function, and what layers add to it.
#include <fmt/core.h>

#include <memory>

#include "bench.hpp"
#include "measure/child.hpp"
#include "xhal/plugin.h"

namespace xhal::bench {
namespace {

constexpr uint32_t kCalls = 2000;  // of one sample
// In a child process, which wakes up for each sample: long enough that its caches are warm again,
// and that what a layer does only now and then is in it.
constexpr uint32_t kChildCalls = 20'000;

// What a framework would call if there were one vendor and no ABI. Hidden from the compiler, so
// that it is called and not inlined.
[[gnu::noinline]] xhal_status direct_limit(xhal_device* device, uint32_t key, uint64_t* value) {
  asm volatile("" : : "r"(device));
  *value = key;
  return XHAL_OK;
}

double sample_direct() {
  uint64_t value = 0;
  return ns_per_call(kCalls, [&] { (void)direct_limit(nullptr, 1, &value); });
}

// The empty plugin, ready for calls with one handle (limit) and with two (launch).
struct Nop {
  Nop()
      : device(open_device("nop")),
        stream(device.stream()),
        op(prepare(device.context(), XHAL_OP_fill, {{tensor(XHAL_CODE_FLOAT, 32, {1})}})) {}
  double limit(uint32_t calls) const {
    uint64_t value = 0;
    return ns_per_call(calls, [&] { (void)xhal_device_limit(device.get(), 1, &value); });
  }
  double launch(uint32_t calls) const {
    return ns_per_call(
        calls, [&] { (void)xhal_op_launch(stream.get(), op.get(), nullptr, 0, nullptr, 0, 0); });
  }
  Device device;
  Stream stream;
  Op op;
};

// With layers off, the table a call goes through holds the plugin's own functions.
double wrapped_slots() {
  const Nop nop;
  const auto* dispatch = reinterpret_cast<const xhal_object_head*>(nop.device.get())->dispatch;
  const auto* module = reinterpret_cast<const uint8_t*>(dispatch->op_destroy);
  // Functions of one small library lie within a few pages of each other.
  const auto near = [&](auto slot) {
    const auto distance = reinterpret_cast<const uint8_t*>(slot) - module;
    return distance > -65536 && distance < 65536;
  };
  return !near(dispatch->device_limit) + !near(dispatch->op_launch) + !near(dispatch->op_query);
}

Sample in_child(const std::string& what, const std::string& layers) {
  auto child = std::make_shared<Child>(
      std::vector<std::string>{"--serve", what},
      std::vector<std::string>{"XHAL_LAYERS=" + layers, "XHAL_TRACE_FILE=/dev/null"});
  return [child] { return child->sample(); };
}

}  // namespace

int serve_calls(const std::string& what) {
  const Session session;
  const Nop nop;
  return serve([&] { return what == "launch" ? nop.launch(kChildCalls) : nop.limit(kChildCalls); });
}

void bench_calls(Bench& bench) {
  const Effort effort = bench.effort(200);
  const auto row = [](const char* metric, const char* peer, Goal goal, const char* note = "") {
    return Row{.metric = metric, .unit = "ns", .peer = peer, .goal = goal, .note = note};
  };
  {
    const Session session;
    const Nop nop;
    bench.measure(
        row("framework call -> plugin slot", "direct call", Goal::value_at_most(3.5)), effort,
        [&] { return nop.limit(kCalls); }, sample_direct);
    bench.measure(
        row("the same with a second handle (launch)", "direct call", Goal::value_at_most(3.5)),
        effort, [&] { return nop.launch(kCalls); }, sample_direct);
    const auto cpu = open_device("cpu"), other = open_device("template");
    bench.measure(
        row("the same with 3 plugins open", "direct call", Goal::value_at_most(3.5)), effort,
        [&] { return nop.limit(kCalls); }, sample_direct);
    bench.measure({.metric = "slots that pass through a layer, layers off",
                   .unit = "slots",
                   .goal = Goal::value_at_most(0)},
                  {.rounds = 1}, wrapped_slots);
  }
  const auto layered = [&](const char* metric, const std::string& what, const std::string& layers,
                           Goal goal, const char* note = "") {
    Row r = row(metric, "layers off", goal, note);
    try {
      bench.measure(std::move(r), effort, in_child(what, layers), in_child(what, ""));
    } catch (const std::exception& error) {
      bench.fail(std::move(r), error.what());
    }
  };
  layered("call with validate on", "limit", "validate", Goal::value_at_most(15));
  layered("launch with validate on", "launch", "validate", {},
          "it also looks up what the operator was prepared with");
  layered("call with trace on", "limit", "trace", Goal::value_at_most(25));
}

}  // namespace xhal::bench
