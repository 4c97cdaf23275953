// SPDX-License-Identifier: Apache-2.0
// thread_value.hpp: a value of each thread that is there as long as anything can ask for it.
//
// A C++ thread_local is destroyed before the static destructors and exit handlers of its program,
// which may well call xHAL. This one is freed at the end of its thread, and made again if somebody
// asks after that; the main thread's stays until the process is gone.
#pragma once

#include <pthread.h>

#include <new>

namespace xhal {

template <class T>
class ThreadValue {
 public:
  ThreadValue() {
    usable_ = pthread_key_create(&key_, [](void* v) { delete static_cast<T*>(v); }) == 0;
  }

  // Null when this thread has none yet.
  T* find() const noexcept {
    return usable_ ? static_cast<T*>(pthread_getspecific(key_)) : nullptr;
  }
  // Makes it. Null without memory for one.
  T* get() noexcept {
    if (auto* value = find(); value != nullptr) return value;
    auto* value = usable_ ? new (std::nothrow) T : nullptr;
    if (value != nullptr && pthread_setspecific(key_, value) == 0) return value;
    delete value;
    return nullptr;
  }

 private:
  pthread_key_t key_{};
  bool usable_ = false;
};

}  // namespace xhal
