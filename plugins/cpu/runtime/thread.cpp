// SPDX-License-Identifier: Apache-2.0
#include "thread.hpp"

#include <omp.h>
#include <pthread.h>
#include <signal.h>

#include <cstring>

namespace xhal::cpu {

void prepare_this_thread(const Site& site, const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  Topology::get().bind_this_thread(site);
  omp_set_num_threads(1);
}

SignalsBlocked::SignalsBlocked() {
  sigset_t all, old;
  static_assert(sizeof old <= sizeof old_);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  std::memcpy(old_, &old, sizeof old);
}

SignalsBlocked::~SignalsBlocked() {
  sigset_t old;
  std::memcpy(&old, old_, sizeof old);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

OneOmpThread::OneOmpThread() : before_(omp_get_max_threads()) {
  if (before_ != 1) omp_set_num_threads(1);
}

OneOmpThread::~OneOmpThread() {
  if (before_ != 1) omp_set_num_threads(before_);
}

}  // namespace xhal::cpu
