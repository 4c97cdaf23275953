// SPDX-License-Identifier: Apache-2.0
#include "core/locks.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>

namespace xhal {
namespace {

// Few, and never given back: an array needs no memory of the heap, which a forked child may not
// be able to get.
constexpr size_t kMost = 63;  // GCC's thread sanitizer follows no more at once

struct Locks {
  std::mutex forking;  // one fork at a time; no other lock is taken before it
  std::atomic<Mutex*> all[kMost];
  std::atomic<size_t> count{0};
  Mutex* held[kMost];
  size_t held_count = 0;
  std::atomic<void (*)()> in_child[16];
  std::atomic<size_t> in_child_count{0};
};

Locks& locks() {
  static auto* l = new Locks;
  return *l;
}

void before_fork() {
  auto& l = locks();
  l.forking.lock();
  l.held_count = 0;
  for (size_t i = 0; i < std::min(l.count.load(), kMost); ++i) {
    if (auto* mutex = l.all[i].load(); mutex != nullptr) l.held[l.held_count++] = mutex;
  }
  std::stable_sort(l.held, l.held + l.held_count,
                   [](const auto* x, const auto* y) { return x->rank < y->rank; });
  for (size_t i = 0; i < l.held_count; ++i) l.held[i]->lock();
}

void after_fork() {
  auto& l = locks();
  for (size_t i = l.held_count; i > 0; --i) l.held[i - 1]->unlock();
  l.forking.unlock();
}

void after_fork_in_child() {
  auto& l = locks();
  for (size_t i = 0; i < l.in_child_count; ++i) {
    if (auto* function = l.in_child[i].load(); function != nullptr) function();
  }
  after_fork();
}

void handle_forks() {
  static const int registered = pthread_atfork(before_fork, after_fork, after_fork_in_child);
  static_cast<void>(registered);
}

}  // namespace

Mutex::Mutex(Rank r) noexcept : rank(r) {
  handle_forks();
  auto& l = locks();
  const size_t i = l.count.fetch_add(1);
  if (i >= kMost) __builtin_trap();  // a lock too many is seen by the first test
  l.all[i] = this;
}

void run_in_forked_child(void (*function)()) noexcept {
  handle_forks();
  auto& l = locks();
  const size_t i = l.in_child_count.fetch_add(1);
  if (i >= std::size(l.in_child)) __builtin_trap();
  l.in_child[i] = function;
}

}  // namespace xhal
