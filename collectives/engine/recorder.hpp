// SPDX-License-Identifier: Apache-2.0
// recorder.hpp: the flight recorder: the last operations of one rank, always on. Written by the
// thread that runs the engine, read by anybody at any time; a line that is being overwritten may
// read as a mixture.
#pragma once

#include <atomic>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "base/clock.hpp"
#include "engine/operation.hpp"

namespace xcoll::engine {

class Recorder {
 public:
  explicit Recorder(uint32_t entries) : lines_(new Line[entries]), size_(entries) {}

  // A new line; returns its number for finish().
  uint64_t begin(const Operation& operation, uint64_t sequence);
  void finish(uint64_t number, xcoll_status status);

  // The lines, oldest first, as a JSON array. Times are nanoseconds of CLOCK_MONOTONIC.
  nlohmann::json json() const;

 private:
  struct Line {
    std::atomic<uint64_t> number{0};  // from 1; 0: never used
    std::atomic<uint64_t> sequence{0};
    std::atomic<uint64_t> count{0};
    std::atomic<uint32_t> words{0};
    std::atomic<int32_t> peer{0};
    std::atomic<uint64_t> started{0};  // ticks
    std::atomic<uint64_t> ended{0};    // 0: not yet
    std::atomic<int32_t> status{0};
  };

  Line& line(uint64_t number) const { return lines_[(number - 1) % size_]; }

  std::unique_ptr<Line[]> lines_;
  uint32_t size_;
  std::atomic<uint64_t> last_{0};
  Calibration calibration_;
};

}  // namespace xcoll::engine
