// SPDX-License-Identifier: Apache-2.0
// bench.hpp: what the parts of the HAL benchmark share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "measure/cores.hpp"
#include "measure/measure.hpp"
#include "measure/report.hpp"
#include "xhal/xhal.hpp"

namespace xhal::bench {

class Pocl;

// Somebody to compare with, and what is to be reached beside them. No sample: `why_not` tells.
struct Peer {
  std::string name;
  Sample sample{};
  Goals goal{};
  std::string note{};
  std::string why_not{};
};

// The run: how much effort it makes, and where its rows go.
class Bench {
 public:
  // `row`: only rows whose metric contains it are measured.
  Bench(Report& report, bool quick, std::string row = "")
      : report_(report), quick_(quick), row_(std::move(row)) {}

  bool quick() const { return quick_; }
  Effort effort(uint32_t rounds, uint64_t time_ns = 2'000'000'000) const {
    return {.rounds = quick_ ? 5 : rounds,
            .least_rounds = quick_ ? 2u : 7u,
            .time_ns = quick_ ? 0 : time_ns};
  }
  // Bytes or elements: what a quick run may make smaller.
  uint64_t size(uint64_t full, uint64_t small) const { return quick_ ? small : full; }

  // Measures `ours` beside `peer` (empty: alone) and adds the row. What throws becomes the row's
  // reason for having no value.
  void measure(Row row, const Effort& effort, const Sample& ours, const Sample& peer = nullptr);
  // The same beside several: a row each, all from the same turns.
  void measure(const Row& row, const Effort& effort, const Sample& ours, std::vector<Peer> peers);
  // A row without a value, or without its peer's, because of `why`.
  void fail(Row row, std::string why);
  bool wants(std::string_view metric) const { return metric.find(row_) != metric.npos; }
  // Measured already, or together with others: added when it is asked for.
  void add(Row row) {
    if (wants(row.metric)) report_.add(std::move(row));
  }
  Report& report() { return report_; }

  // The peer of the OpenCL rows; nullptr when it is not there (then why_no_pocl tells).
  Pocl* pocl();
  const std::string& why_no_pocl() const { return why_no_pocl_; }
  // As a peer: `sample` is called only when it is there.
  Peer pocl_peer(Sample sample, std::string note = "");

 private:
  Report& report_;
  const bool quick_;
  const std::string row_;
  bool asked_for_pocl_ = false;
  Pocl* pocl_ = nullptr;
  std::string why_no_pocl_;
};

// The device of `plugin`, opened. Errors: xhal::Error, std::runtime_error when it is not there.
Device open_device(const std::string& plugin);
unsigned compute_units(const Device& device);

// Memory of a device, freed with its owner.
class Memory {
 public:
  Memory(const Device& device, uint64_t size_bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  uint64_t address() const { return address_; }
  uint64_t size_bytes() const { return size_bytes_; }
  template <class T>
  T* host() const {  // the cpu plugin's memory is the host's, unless XHAL_CPU_GUARD says otherwise
    return reinterpret_cast<T*>(address_);
  }

 private:
  xhal_context* context_;
  uint64_t address_ = 0, size_bytes_;
};

// What `op` wants for itself while it runs (at least a byte, so that there is always an address).
std::unique_ptr<Memory> workspace_of(const Device& device, const Op& op);

// What a framework would call if there were one vendor and no ABI: nanoseconds of a call of a
// function that is not inlined.
double direct_call_ns(uint32_t calls);

// The parts, in the order of the report.
void bench_calls(Bench& bench);
void bench_streams(Bench& bench);
void bench_events(Bench& bench);
void bench_scaling(Bench& bench);
void bench_memory(Bench& bench);
void bench_bounce(Bench& bench);
void bench_gemm(Bench& bench);
void bench_rows(Bench& bench);
void bench_load(Bench& bench);

// In a child process: answers samples of one kind of call ("calls:limit") or of one call among
// many objects ("scaling:record:1000").
int serve_calls(const std::string& what);
int serve_scaling(const std::string& what);

}  // namespace xhal::bench
