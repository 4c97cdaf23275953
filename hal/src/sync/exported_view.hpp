// SPDX-License-Identifier: Apache-2.0
// exported_view.hpp: what other processes see of a timeline: a page of its own that its owner
// writes and everybody else can only read, reopened or not.
//
// The owner holds a lock on the page's file: it is the proof that the owner lives, whatever
// process ids mean to who looks.
#pragma once

#include <cstdint>

#include "xhal/host.h"

namespace xhal {

// The owner's side.
class ExportedView {
 public:
  // nullptr, with the thread's error set, when the system cannot.
  static ExportedView* make(const char* operation) noexcept;
  ~ExportedView();
  ExportedView(const ExportedView&) = delete;
  ExportedView& operator=(const ExportedView&) = delete;

  // A descriptor that can only be read through; -1 without one.
  int open_for_reading() const noexcept;
  // Values only grow; `failed` stays. Wakes who waits in other processes.
  void publish(uint64_t value, bool failed) noexcept;
  // In the child of a fork: it is the parent's.
  void forget() noexcept;

 private:
  ExportedView() = default;
  xhal_timeline_cell* page_ = nullptr;
  int fd_ = -1;
};

// The importer's side.
struct ImportedView {
  xhal_timeline_cell* page = nullptr;  // read-only
  int fd = -1;

  // False when `fd` with `offset` is no exported timeline. Takes no part of the caller's `fd`.
  static bool map(int32_t fd, uint64_t offset, ImportedView* view) noexcept;
  void unmap() noexcept;
  bool owner_gone() const noexcept;
};

}  // namespace xhal
