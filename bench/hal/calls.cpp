// SPDX-License-Identifier: Apache-2.0
// calls.cpp: the way from a framework's call to the plugin's function, and what layers add to it,
// beside a direct call and beside Level Zero's loader and layers.
#include <fmt/core.h>

#include <memory>

#include "bench.hpp"
#include "level_zero.hpp"
#include "measure/child.hpp"
#include "xhal/plugin.h"

namespace xhal::bench {
namespace {

// A child process wakes up for each sample: long enough that its caches are warm again, and that
// what a layer does only now and then is in it. The sides of this process do the same.
constexpr uint32_t kCalls = 20'000;

// Hidden from the compiler, so that it is called and not inlined.
[[gnu::noinline]] xhal_status direct_limit(xhal_device* device, uint32_t key, uint64_t* value) {
  asm volatile("" : : "r"(device));
  *value = key;
  return XHAL_OK;
}

// The empty plugin, ready for calls with one handle (limit) and with two (launch).
struct Nop {
  Nop()
      : device(open_device("nop")),
        stream(device.stream()),
        op(prepare(device.context(), XHAL_OP_fill, {{tensor(XHAL_CODE_FLOAT, 32, {1})}})) {}
  double limit() const {
    uint64_t value = 0;
    return ns_per_call(kCalls, [&] { (void)xhal_device_limit(device.get(), 1, &value); });
  }
  double launch() const {
    return ns_per_call(
        kCalls, [&] { (void)xhal_op_launch(stream.get(), op.get(), nullptr, 0, nullptr, 0, 0); });
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

struct Call {
  const char* metric;
  Sample sample;
};

const char* const kLevelZeroCall = "call through Level Zero's loader, one driver";

// Our calls, a direct one, and Level Zero's, all from the same turns: a goal of ours is what its
// loader takes beside the same direct call.
void beside_level_zero(Bench& bench, const std::vector<Call>& calls, bool with_level_zero_rows) {
  bool wanted = with_level_zero_rows && bench.wants(kLevelZeroCall);
  for (const auto& call : calls) wanted |= bench.wants(call.metric);
  if (!wanted) return;
  Peer loader = level_zero(LevelZero::loader), slot = level_zero(LevelZero::slot);
  std::vector<Sample> sides = {[] { return direct_call_ns(kCalls); }};
  for (const auto& call : calls) {
    fmt::print(stderr, "  {}\n", call.metric);
    sides.push_back(call.sample);
  }
  const bool there = loader.sample && slot.sample;
  if (there) {
    sides.push_back(loader.sample);
    sides.push_back(slot.sample);
  }
  std::vector<std::vector<double>> samples(sides.size());
  std::string failed;
  try {
    samples = interleave(sides, bench.effort(200));
  } catch (const std::exception& error) {
    failed = error.what();
  }
  const auto& direct = samples[0];

  Goals goal = Goal::ratio_at_most(2.5);
  if (there && failed.empty()) {
    goal.add(Goal::ratio_at_most(median(samples[1 + calls.size()]) / median(direct),
                                 "Level Zero's loader"));
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    bench.add({.metric = calls[i].metric,
               .unit = "ns",
               .peer = "direct call",
               .goal = goal,
               .samples = samples[1 + i],
               .peer_samples = direct,
               .failed = failed,
               .note = there ? "" : "the goal's part beside Level Zero's loader is missing"});
  }
  if (!with_level_zero_rows) return;
  Row row{.metric = kLevelZeroCall, .unit = "ns", .peer = "direct call"};
  if (!there || !failed.empty()) {
    return bench.fail(row, !failed.empty() ? failed
                           : loader.sample ? slot.why_not
                                           : loader.why_not);
  }
  row.samples = samples[1 + calls.size()];
  row.peer_samples = direct;
  bench.add(row);
  row.peer = slot.name;
  row.peer_samples = samples[2 + calls.size()];
  bench.add(row);
}

Sample in_child(const std::string& call, const std::string& layers) {
  return Child::side(own_path(), {"--serve", "calls:" + call},
                     {"XHAL_LAYERS=" + layers, "XHAL_TRACE_FILE=/dev/null"});
}

// One call with layers around it. `peer` is Level Zero's layer, or nothing.
void layer_row(Bench& bench, const char* metric, const std::string& call, const std::string& layers,
               std::optional<LevelZero> peer, const char* note = "") {
  if (!bench.wants(metric)) return;
  Row row{.metric = metric, .unit = "ns", .peer = "layers off", .note = note};
  try {
    std::vector<Peer> peers;
    if (peer) peers.push_back(level_zero(*peer, Goal::ratio_at_most(1)));
    peers.push_back({.name = "layers off", .sample = in_child(call, "")});
    bench.measure(row, bench.effort(200), in_child(call, layers), std::move(peers));
  } catch (const std::exception& error) {
    bench.fail(std::move(row), error.what());
  }
}

}  // namespace

double direct_call_ns(uint32_t calls) {
  uint64_t value = 0;
  return ns_per_call(calls, [&] { (void)direct_limit(nullptr, 1, &value); });
}

int serve_calls(const std::string& what) {
  const Session session;
  const Nop nop;
  return serve([&] { return what == "launch" ? nop.launch() : nop.limit(); });
}

void bench_calls(Bench& bench) {
  {
    const Session session;
    const Nop nop;
    beside_level_zero(bench,
                      {{"framework call -> plugin slot", [&] { return nop.limit(); }},
                       {"the same with a second handle (launch)", [&] { return nop.launch(); }}},
                      true);
    const auto cpu = open_device("cpu"), other = open_device("template");
    beside_level_zero(bench, {{"the same with 3 plugins open", [&] { return nop.limit(); }}},
                      false);
    bench.measure({.metric = "slots that pass through a layer, layers off",
                   .unit = "slots",
                   .goal = Goal::value_at_most(0)},
                  {.rounds = 1}, wrapped_slots);
  }
  layer_row(bench, "call with validate on", "limit", "validate", LevelZero::validation);
  layer_row(bench, "launch with validate on", "launch", "validate", std::nullopt,
            "it also looks up what the operator was prepared with");
  layer_row(bench, "call with trace on", "limit", "trace", LevelZero::tracing,
            "ours writes every call to a file; nobody listens to Level Zero's");
}

}  // namespace xhal::bench
