// SPDX-License-Identifier: Apache-2.0
#include "mutex.hpp"

#include "measure.hpp"

namespace xhal::bench {

SecondThread::SecondThread() : thread_([this] { end_.acquire(); }) {}

SecondThread::~SecondThread() {
  end_.release();
  thread_.join();
}

double MutexPair::sample(uint32_t pairs) {
  return ns_per_call(pairs, [&] {
    pthread_mutex_lock(&mutex_);
    pthread_mutex_unlock(&mutex_);
  });
}

}  // namespace xhal::bench
