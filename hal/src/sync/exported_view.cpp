// SPDX-License-Identifier: Apache-2.0
#include "sync/exported_view.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>

#include "core/error.hpp"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010  // Linux 5.1
#endif

namespace xhal {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kMagic = 0x33306c745f6c6178;  // "xal_tl03"
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;

// Locks the first byte for the open file, not for the process: closing another descriptor of the
// same file does not release it, and it ends with its holder, however that ends.
bool lock_file(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

xhal_status refuse(const char* operation, const char* what) {
  const int error = errno;
  return fail(error == ENOENT || error == EINVAL || error == ENOSYS ? XHAL_ERR_UNSUPPORTED
                                                                    : XHAL_ERR_OUT_OF_MEMORY,
              operation,
              "{}: {}: {}.\n  Exporting needs /proc, Linux 5.1 or newer, and two descriptors.",
              operation, what, std::strerror(error));
}

}  // namespace

ExportedView* ExportedView::make(const char* operation) noexcept {
  std::unique_ptr<ExportedView> view(new (std::nothrow) ExportedView);
  if (view == nullptr) {
    fail(XHAL_ERR_OUT_OF_MEMORY, operation, "{}: no host memory", operation);
    return nullptr;
  }
  view->fd_ = memfd_create("xhal-timeline", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  void* page = MAP_FAILED;
  if (view->fd_ >= 0 && ftruncate(view->fd_, kPageBytes) == 0) {
    page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, view->fd_, 0);
  }
  if (page == MAP_FAILED) {
    refuse(operation, "no page for the exported timeline");
    return nullptr;
  }
  view->page_ = static_cast<xhal_timeline_cell*>(page);
  view->page_->owner_pid = static_cast<uint32_t>(getpid());
  view->page_->generation = kMagic;
  // From here on nobody can map it writable or write to it again, not even by opening it anew.
  if (fcntl(view->fd_, F_ADD_SEALS, kSeals) != 0 || !lock_file(view->fd_)) {
    refuse(operation, "the exported timeline cannot be protected");
    return nullptr;
  }
  return view.release();
}

ExportedView::~ExportedView() {
  if (page_ != nullptr) munmap(page_, kPageBytes);
  if (fd_ >= 0) close(fd_);
}

int ExportedView::open_for_reading() const noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd_);
  return open(path, O_RDONLY | O_CLOEXEC);
}

void ExportedView::publish(uint64_t value, bool failed) noexcept {
  std::atomic_ref word(page_->value);
  uint64_t old = word.load(std::memory_order_relaxed);
  while (old < value && !word.compare_exchange_weak(old, value, std::memory_order_seq_cst)) {
  }
  if (failed) std::atomic_ref(page_->failed).store(1, std::memory_order_seq_cst);
  // Importers cannot say that they wait: they cannot write.
  std::atomic_ref(page_->wake).fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &page_->wake, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void ExportedView::forget() noexcept {
  munmap(page_, kPageBytes);
  close(fd_);
  page_ = nullptr;
  fd_ = -1;
}

bool ImportedView::map(int32_t fd, uint64_t offset, ImportedView* view) noexcept {
  struct stat info {};
  if (offset != 0 || fstat(fd, &info) != 0 || info.st_size != kPageBytes) return false;
  // Without the seals the exporter could shrink the file, and every read here would be a SIGBUS.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) return false;
  void* page = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) return false;
  auto* cell = static_cast<xhal_timeline_cell*>(page);
  const int ours = cell->generation == kMagic ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (ours < 0) {
    munmap(page, kPageBytes);
    return false;
  }
  *view = {cell, ours};
  return true;
}

void ImportedView::unmap() noexcept {
  if (page != nullptr) munmap(page, kPageBytes);
  if (fd >= 0) close(fd);
  page = nullptr;
  fd = -1;
}

bool ImportedView::owner_gone() const noexcept {
  struct flock lock {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

}  // namespace xhal
