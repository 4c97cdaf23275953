// SPDX-License-Identifier: Apache-2.0
// process_figures.hpp: what this process holds, as the kernel counts it.
#pragma once

#include <dirent.h>
#include <malloc.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace xhal::test {

inline uint64_t status_line(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stoull(line.substr(key.size() + 1));
  }
  return 0;
}

inline uint64_t resident_bytes() { return status_line("VmRSS") * 1024; }
inline uint64_t thread_count() { return status_line("Threads"); }
inline uint64_t address_space_bytes() { return status_line("VmSize") * 1024; }

inline uint64_t descriptor_count() {
  DIR* const folder = opendir("/proc/self/fd");
  uint64_t count = 0;
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count - 3;  // "." and "..", and the folder itself
}

// What a sanitizer keeps beside each allocation is not the library's.
inline constexpr bool kMemoryIsTheLibrarysOwn =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    false;
#else
    true;
#endif

}  // namespace xhal::test

extern "C" size_t __sanitizer_get_current_allocated_bytes();

namespace xhal::test {

// What the process holds: resident memory, or with a sanitizer, whose shadow and quarantine grow by
// their own rules, what is allocated and not freed.
inline uint64_t held_bytes() {
  if constexpr (kMemoryIsTheLibrarysOwn)
    return resident_bytes();
  else
    return __sanitizer_get_current_allocated_bytes();
}

}  // namespace xhal::test
