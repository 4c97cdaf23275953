// SPDX-License-Identifier: Apache-2.0
// guard_page.hpp: memory behind which nothing can be read or written.
#pragma once

#include <sys/mman.h>

#include <cstddef>

namespace xhal::test {

// One readable page before one that faults at every touch.
class GuardPage {
 public:
  GuardPage() {
    page_ = static_cast<unsigned char*>(
        mmap(nullptr, 2 * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(page_ + kBytes, kBytes, PROT_NONE);
  }
  ~GuardPage() { munmap(page_, 2 * kBytes); }
  GuardPage(const GuardPage&) = delete;
  GuardPage& operator=(const GuardPage&) = delete;

  // The last place for that many bytes at which a structure may lie.
  unsigned char* end(size_t bytes) { return page_ + kBytes - (bytes + 7) / 8 * 8; }

 private:
  static constexpr size_t kBytes = 4096;
  unsigned char* page_;
};

}  // namespace xhal::test
