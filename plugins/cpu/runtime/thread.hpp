// SPDX-License-Identifier: Apache-2.0
// thread.hpp: a thread of a device: bound to its cores, all signals blocked, single-threaded
// OpenMP.
#pragma once

#include <string>
#include <thread>

#include "topology.hpp"

namespace xhal::cpu {

// Starts `body` on a new thread named `name` (15 characters are seen). Errors: std::system_error.
template <class Body>
std::thread start_thread(const Site& site, std::string name, Body body);

void prepare_this_thread(const Site& site, const std::string& name);

// Blocks every signal while it lives, so that a thread made meanwhile inherits that: the program's
// handlers stay on the program's threads.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  unsigned char old_[128];
};

// oneDNN runs on OpenMP, whose thread count belongs to the calling thread: ours have one, and a
// thread of the framework gets its own count back.
class OneOmpThread {
 public:
  OneOmpThread();
  ~OneOmpThread();
  OneOmpThread(const OneOmpThread&) = delete;
  OneOmpThread& operator=(const OneOmpThread&) = delete;

 private:
  int before_;
};

template <class Body>
std::thread start_thread(const Site& site, std::string name, Body body) {
  const SignalsBlocked blocked;
  return std::thread([&site, name = std::move(name), body = std::move(body)] {
    prepare_this_thread(site, name);
    body();
  });
}

}  // namespace xhal::cpu
