// SPDX-License-Identifier: Apache-2.0
// interrupt.h: Ctrl-C while C++ waits. A wait that may be long is cut into slices and asks between
// them.
#pragma once

#include <cstdint>
#include <memory>

namespace xhal_torch {

inline constexpr uint64_t kInterruptSliceNs = 20'000'000;

// Runs Python's signal handlers and throws what they raise (KeyboardInterrupt). Does nothing in any
// other thread than the main one, where Python has none to run. The GIL may be held or not.
void throw_if_interrupted();

// The same where nothing may be thrown: true when interrupted; Python raises it when it goes on.
bool interrupted_for_later() noexcept;

// The calling thread lets go of the GIL, if it holds it, for as long as this lives: whom it waits
// for may need it.
class GilReleased {
 public:
  GilReleased();
  ~GilReleased();
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  struct Released;
  std::unique_ptr<Released> released_;
};

}  // namespace xhal_torch
