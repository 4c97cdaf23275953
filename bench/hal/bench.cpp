#include "bench.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "pocl.hpp"

namespace xhal::bench {

void Bench::measure(Row row, const Effort& effort, const Sample& ours, const Sample& peer) {
  if (!wants(row.metric)) return;
  fmt::print(stderr, "  {}\n", row.metric);
  try {
    auto samples =
        interleave(peer ? std::vector<Sample>{ours, peer} : std::vector<Sample>{ours}, effort);
    row.samples = std::move(samples[0]);
    if (peer) row.peer_samples = std::move(samples[1]);
  } catch (const std::exception& error) {
    row.failed = error.what();
  }
  report_.add(std::move(row));
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
