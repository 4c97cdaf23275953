// SPDX-License-Identifier: Apache-2.0
#include "bench.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "pocl.hpp"

namespace xhal::bench {

void Bench::measure(Row row, const Effort& effort, const Sample& ours, const Sample& peer) {
  std::vector<Peer> peers;
  if (peer) peers.push_back({.name = row.peer, .sample = peer, .goal = row.goal});
  measure(row, effort, ours, std::move(peers));
}

void Bench::measure(const Row& row, const Effort& effort, const Sample& ours,
                    std::vector<Peer> peers) {
  if (!wants(row.metric)) return;
  fmt::print(stderr, "  {}\n", row.metric);
  std::vector<Sample> sides = {ours};
  for (const auto& peer : peers) {
    if (peer.sample) sides.push_back(peer.sample);
  }
  std::vector<std::vector<double>> samples(sides.size());
  std::string failed;
  try {
    samples = interleave(sides, effort);
  } catch (const std::exception& error) {
    failed = error.what();
  }
  if (peers.empty()) peers.push_back({.name = row.peer, .goal = row.goal});
  size_t next = 1;
  for (auto& peer : peers) {
    Row with = row;
    with.peer = std::move(peer.name);
    with.goal = std::move(peer.goal);
    with.samples = samples[0];
    if (peer.sample) with.peer_samples = std::move(samples[next++]);
    with.failed = failed.empty() ? std::move(peer.why_not) : failed;
    if (!peer.note.empty()) with.note = std::move(peer.note);
    report_.add(std::move(with));
  }
}

void Bench::fail(Row row, std::string why) {
  if (!wants(row.metric)) return;
  row.failed = std::move(why);
  report_.add(std::move(row));
}

Pocl* Bench::pocl() {
  if (asked_for_pocl_) return pocl_;
  asked_for_pocl_ = true;
  try {
    pocl_ = new Pocl;  // until the end of the process: OpenCL's teardown is not ours to time
  } catch (const std::exception& error) {
    why_no_pocl_ = error.what();
  }
  return pocl_;
}

Peer Bench::pocl_peer(Sample sample, std::string note) {
  if (pocl() == nullptr) return {.name = "PoCL", .why_not = why_no_pocl_};
  return {.name = "PoCL", .sample = std::move(sample), .note = std::move(note)};
}

Device open_device(const std::string& plugin) {
  for (const auto& info : devices()) {
    if (info.plugin == plugin) return Device(info.index);
  }
  throw std::runtime_error("no device of the plugin `" + plugin +
                           "`: `xhal plugins doctor` tells why");
}

unsigned compute_units(const Device& device) {
  uint64_t units = 1;
  check(xhal_device_limit(device.get(), XHAL_LIMIT_COMPUTE_UNITS, &units));
  return static_cast<unsigned>(units);
}

Memory::Memory(const Device& device, uint64_t size_bytes)
    : context_(device.context()), size_bytes_(size_bytes) {
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = size_bytes;
  check(xhal_memory_alloc(context_, &info, &address_));
}

Memory::~Memory() { (void)xhal_memory_free(context_, address_); }

std::unique_ptr<Memory> workspace_of(const Device& device, const Op& op) {
  xhal_op_properties properties{};
  properties.struct_size = sizeof properties;
  check(xhal_op_query(op.get(), &properties, nullptr, 0));
  return std::make_unique<Memory>(device, std::max<uint64_t>(properties.workspace_bytes, 1));
}

}  // namespace xhal::bench
