// SPDX-License-Identifier: Apache-2.0
// float_mode.hpp: the floating-point control word (MXCSR, FPCR) while a reduction runs.
//
// Rounding and flush-to-zero belong to the thread. A reduction may run in the thread that called or
// in the progress thread, so without one fixed mode the same all-reduce has other bits on each
// rank.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace xcoll {

// Round to nearest even, keep subnormal numbers, mask every exception, for as long as it lives.
class DefaultFloatMode {
 public:
  DefaultFloatMode() : before_(read()) {
    if (is_other()) write_default();
  }
  ~DefaultFloatMode() {
    if (is_other()) write(before_);
  }
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

 private:
#if defined(__x86_64__)
  using Word = uint32_t;
  static constexpr Word kDefault = 0x1f80;
  static constexpr Word kControlBits = 0xffc0;  // below: sticky exception flags
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
  static void write_default() { write(kDefault); }
  bool is_other() const { return (before_ & kControlBits) != kDefault; }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static Word read() {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { asm volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
  static void write_default() { write(0); }
  bool is_other() const { return before_ != 0; }
#else
  using Word = std::fenv_t;
  static Word read() {
    Word word;
    std::fegetenv(&word);
    return word;
  }
  static void write(const Word& word) { std::fesetenv(&word); }
  static void write_default() { std::fesetenv(FE_DFL_ENV); }
  static bool is_other() { return true; }
#endif

  Word before_;
};

}  // namespace xcoll
