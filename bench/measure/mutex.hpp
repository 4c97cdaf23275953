// SPDX-License-Identifier: Apache-2.0
// mutex.hpp: the unit that small costs are measured in: an uncontended mutex, locked and unlocked.
//
// It scales with the processor as the code around it does, and everybody knows what it costs.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <semaphore>
#include <thread>

namespace xhal::bench {

// A second thread that sleeps. The C library leaves out the atomic instructions of its locks
// while a process has only one thread, which no framework's has: both sides would look cheaper
// than they are.
class SecondThread {
 public:
  SecondThread();
  ~SecondThread();
  SecondThread(const SecondThread&) = delete;
  SecondThread& operator=(const SecondThread&) = delete;

 private:
  std::binary_semaphore end_{0};
  std::thread thread_;
};

class MutexPair {
 public:
  // Nanoseconds of one pthread_mutex_lock and pthread_mutex_unlock.
  double sample(uint32_t pairs);

 private:
  SecondThread second_;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
};

inline constexpr const char* kMutexPair = "mutex lock + unlock";

}  // namespace xhal::bench
