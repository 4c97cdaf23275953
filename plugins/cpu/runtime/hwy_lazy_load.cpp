// SPDX-License-Identifier: Apache-2.0
// hwy_lazy_load.cpp: the two functions of libhwy that choosing a kernel needs, from the library
// when the first kernel is chosen. Loading libhwy 1.0 measures the resolution of the timer for 2.5
// ms, half of what a process that only lists devices takes.
//
// Without the library the kernels of the instruction set that everything was compiled for are used.
#include <boost/dll/shared_library.hpp>
#include <type_traits>

#include "hwy/targets.h"

namespace {

struct Functions {
  using Chosen = hwy::ChosenTarget&();
  using Supported = int64_t();

  Chosen* chosen = nullptr;
  Supported* supported = nullptr;
  boost::dll::shared_library library;

  Functions() {
    namespace dll = boost::dll;
    std::error_code failed;
    library.load(XHAL_CPU_HWY, failed,
                 dll::load_mode::rtld_now | dll::load_mode::rtld_local |
                     dll::load_mode::search_system_folders);
    constexpr const char* kChosen = "_ZN3hwy15GetChosenTargetEv";
    constexpr const char* kSupported = "_ZN3hwy16SupportedTargetsEv";
    if (failed || !library.has(kChosen) || !library.has(kSupported)) return;
    chosen = &library.get<Chosen>(kChosen);
    supported = &library.get<Supported>(kSupported);
  }
};

const Functions& functions() {
  static const auto* const found = new Functions;  // stays loaded until the process exits
  return *found;
}

}  // namespace

namespace hwy {

int64_t SupportedTargets() {
  const auto& f = functions();
  return f.supported != nullptr ? f.supported() : HWY_STATIC_TARGET;
}

ChosenTarget& GetChosenTarget() {
  static auto& chosen = *[] {
    const auto& f = functions();
    return f.chosen != nullptr ? &f.chosen() : new ChosenTarget;
  }();
  return chosen;
}

}  // namespace hwy
