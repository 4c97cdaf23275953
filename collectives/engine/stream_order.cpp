// SPDX-License-Identifier: Apache-2.0
#include "engine/stream_order.hpp"

#include <xhal/xhal.h>

#include <algorithm>

#include "base/failure.hpp"

namespace xcoll::engine {
namespace {

// Up to here an operation may run in the thread that submits it, which is busy
// for microseconds then.
constexpr uint64_t kInlineBytes = 64 * 1024;
// How long the submitting thread stands still for other ranks before it leaves them to the progress
// thread; about what waking that thread costs.
constexpr uint64_t kInlineBackoffNs = 20'000;

std::string xhal_text() {
  xhal_error error{};
  error.struct_size = sizeof(error);
  if (xhal_last_error(&error) != XHAL_OK) return "unknown xHAL error";
  return std::string(error.text.data, error.text.size);
}

void check(xhal_status status, const char* what) {
  if (status >= 0) return;
  const xcoll_status mapped =
      status == XHAL_ERR_OUT_OF_MEMORY ? XCOLL_ERR_OUT_OF_MEMORY : XCOLL_ERR_DEVICE;
  throw Failure(mapped, "{} failed ({}): {}", what, xhal_status_name(status), xhal_text());
}

uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// Ordinary host memory, or memory of a device that says that the host sees it.
bool host_sees(const void* pointer) {
  xhal_pointer_info info{};
  check(xhal_pointer_query(address_of(pointer), &info), "xhal_pointer_query");
  return info.kind == 0 || info.kind == XHAL_MEMORY_HOST ||
         (info.flags & XHAL_MEMORY_HOST_VISIBLE) != 0;
}

uint64_t bytes_of(const Operation& operation) {
  return (operation.send ? operation.send_bytes() : 0) +
         (operation.recv ? operation.recv_bytes() : 0);
}

}  // namespace

// Timelines of the host, one for each batch under way: batches may complete in any order.
class Timelines {
 public:
  struct Awaited {
    xhal_timeline* timeline;
    uint64_t value;
  };

  ~Timelines() {
    for (const Awaited& idle : idle_) (void)xhal_timeline_destroy(idle.timeline);
  }

  // A timeline that stands below the value that is to be awaited.
  Awaited take() {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      Awaited awaited = idle_.back();
      idle_.pop_back();
      ++awaited.value;
      return awaited;
    }
    Awaited fresh{nullptr, 1};
    check(xhal_timeline_create(0, &fresh.timeline), "xhal_timeline_create");
    return fresh;
  }

  void reach(const Awaited& awaited) noexcept {
    (void)xhal_timeline_signal(awaited.timeline, awaited.value);
    try {
      const std::lock_guard lock(mutex_);
      idle_.push_back(awaited);
    } catch (const std::bad_alloc&) {
      (void)xhal_timeline_destroy(awaited.timeline);  // reached: nobody waits for it any more
    }
  }
  // Fails the streams that wait for it with our text. Status values that xcoll and xhal share mean
  // the same.
  static void fail(const Awaited& awaited, xcoll_status status, const std::string& text) {
    xhal_error error{};
    error.struct_size = sizeof(error);
    error.status = status > XCOLL_ERR_MISMATCH ? status : XHAL_ERR_DEVICE;
    error.vendor_code = status;
    error.operation = {"xcoll", 5};
    error.text = {text.data(), text.size()};
    (void)xhal_timeline_fail(awaited.timeline, &error);
    (void)xhal_timeline_destroy(awaited.timeline);
  }

 private:
  std::mutex mutex_;
  std::vector<Awaited> idle_;
};

// Pinned host buffers. One is free again when its batch is done and the stream has passed the event
// behind its last use.
class Staging {
 public:
  ~Staging() {
    for (const Buffer& buffer : buffers_) {
      // A stream that may still copy must not lose the memory under it: free it when it has passed.
      const xhal_event& last = buffer.last_use;
      const bool passed = xhal_event_query(&last) != XHAL_NOT_READY;
      if (passed ||
          xhal_timeline_notify(last.timeline, last.value, free_memory, buffer.memory) < 0) {
        free_memory(buffer.memory, XHAL_OK);
      }
    }
  }

  std::byte* take(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    Buffer* found = nullptr;
    for (Buffer& buffer : buffers_) {
      if (buffer.bytes >= bytes && buffer.bytes / 4 <= bytes && is_free(buffer)) found = &buffer;
    }
    if (!found) {
      Buffer fresh;
      fresh.bytes = std::max(bytes, kSmallest);
      check(xhal_host_alloc(fresh.bytes, &fresh.memory), "xhal_host_alloc");
      found = &buffers_.emplace_back(std::move(fresh));
    }
    found->taken = true;
    return static_cast<std::byte*>(found->memory);
  }

  void give_back(const std::byte* memory, const xhal_event& last_use, std::shared_ptr<Batch> user) {
    const std::lock_guard lock(mutex_);
    for (Buffer& buffer : buffers_) {
      if (buffer.memory != memory) continue;
      buffer.last_use = last_use;
      buffer.user = std::move(user);
      buffer.taken = false;
      return;
    }
  }

 private:
  static constexpr uint64_t kSmallest = 64 * 1024;
  struct Buffer {
    void* memory = nullptr;
    uint64_t bytes = 0;
    bool taken = false;
    xhal_event last_use{};
    std::shared_ptr<Batch> user;
  };

  static void free_memory(void* memory, xhal_status) { (void)xhal_host_free(memory); }

  static bool is_free(const Buffer& buffer) {
    if (buffer.taken || (buffer.user && !buffer.user->done())) return false;
    return xhal_event_query(&buffer.last_use) != XHAL_NOT_READY;
  }

  std::mutex mutex_;
  std::vector<Buffer> buffers_;
};

namespace {

// The memory of one submission that the host does not see, replaced by buffers that it does.
class Stage {
 public:
  Stage(Staging& staging, xhal_stream* stream) : staging_(staging), stream_(stream) {}
  ~Stage() {
    if (taken_.empty()) return;
    xhal_event event{};
    // Nothing can be recorded on a failed stream, and nothing of it runs any more: no event
    // to wait for.
    if (xhal_event_record(stream_, 0, &event) != XHAL_OK) event = xhal_event{};
    for (const std::byte* buffer : taken_) staging_.give_back(buffer, event, user_);
  }

  // Queues the copies of what is sent, and points the operation to the copies.
  void replace(Operation& operation) {
    if (operation.send && operation.send_bytes() > 0 && !host_sees(operation.send)) {
      std::byte* buffer = take(operation.send_bytes());
      check(xhal_stream_copy(stream_, address_of(buffer), address_of(operation.send),
                             operation.send_bytes()),
            "copying to the host");
      operation.send = buffer;
    }
    if (operation.recv && operation.recv_bytes() > 0 && !host_sees(operation.recv)) {
      std::byte* buffer = take(operation.recv_bytes());
      results_.push_back({buffer, operation.recv, operation.recv_bytes()});
      operation.recv = buffer;
    }
  }
  bool empty() const { return taken_.empty(); }

  // Queues the copies of what is received.
  void copy_results() const {
    for (const Result& result : results_) {
      check(xhal_stream_copy(stream_, address_of(result.device), address_of(result.host),
                             result.bytes),
            "copying to the device");
    }
  }
  void belongs_to(std::shared_ptr<Batch> batch) { user_ = std::move(batch); }

 private:
  struct Result {
    const std::byte* host;
    std::byte* device;
    uint64_t bytes;
  };

  std::byte* take(uint64_t bytes) {
    taken_.push_back(staging_.take(bytes));
    return taken_.back();
  }

  Staging& staging_;
  xhal_stream* stream_;
  std::vector<std::byte*> taken_;
  std::vector<Result> results_;
  std::shared_ptr<Batch> user_;
};

xhal_event record(xhal_stream* stream) {
  xhal_event event{};
  check(xhal_event_record(stream, 0, &event), "recording an event on the stream");
  if ((event.flags & XHAL_EVENT_CAPTURED) != 0) {
    throw Failure(XCOLL_ERR_UNSUPPORTED,
                  "collectives cannot be captured into a graph: end the capture before the call");
  }
  return event;
}

}  // namespace

struct StreamOrder::Link {
  std::mutex mutex;
  Engine* engine;
};

struct StreamOrder::Pending {
  std::shared_ptr<Batch> batch;
  std::shared_ptr<Link> link;
  xhal_event event;
};

StreamOrder::StreamOrder(Engine& engine)
    : engine_(engine),
      link_(std::make_shared<Link>()),
      timelines_(std::make_shared<Timelines>()),
      staging_(std::make_unique<Staging>()) {
  link_->engine = &engine;
}

StreamOrder::~StreamOrder() = default;

void StreamOrder::detach() {
  const std::lock_guard lock(link_->mutex);
  link_->engine = nullptr;
}

std::shared_ptr<Batch> StreamOrder::submit(std::vector<Operation> operations, xhal_stream* stream) {
  engine_.need_progress_thread();
  xhal_event event = record(stream);
  uint64_t bytes = 0;
  for (const Operation& operation : operations) bytes += bytes_of(operation);

  Stage stage(*staging_, stream);
  for (Operation& operation : operations) stage.replace(operation);
  const auto batch = std::make_shared<Batch>(std::move(operations));
  if (stage.empty() && bytes <= kInlineBytes && xhal_event_query(&event) == XHAL_OK) {
    if (!engine_.run_briefly(batch, kInlineBackoffNs)) {
      on_stream(*batch, [&] { hold(*batch, stream); });
    } else if (batch->status != XCOLL_OK) {
      throw Failure(batch->status, batch->text);
    }
    return batch;
  }
  if (!stage.empty()) event = record(stream);
  batch->ready = false;
  auto pending = std::make_unique<Pending>(Pending{batch, link_, event});
  stage.belongs_to(batch);
  engine_.start(batch);  // the last step that may be refused
  on_stream(*batch, [&] {
    hold(*batch, stream);
    stage.copy_results();
  });
  start_when_reached(std::move(pending));
  return batch;
}

// The engine has the batch already: what fails now is the communicator's failure, and the batch no
// longer touches the caller's memory when this throws.
template <typename Step>
void StreamOrder::on_stream(Batch& batch, Step&& step) {
  try {
    step();
  } catch (const std::exception& error) {
    engine_.fail_stream(batch, error.what());
    throw Failure(XCOLL_ERR_DEVICE, error.what());
  }
}

// Makes later work of the stream wait for the batch.
void StreamOrder::hold(Batch& batch, xhal_stream* stream) {
  const Timelines::Awaited awaited = timelines_->take();
  const xhal_status status = xhal_stream_wait(stream, awaited.timeline, awaited.value);
  if (status != XHAL_OK) Timelines::fail(awaited, XCOLL_ERR_DEVICE, xhal_text());
  check(status, "making the stream wait");
  batch.when_complete([timelines = timelines_, awaited, &batch] {
    if (batch.status == XCOLL_OK) {
      timelines->reach(awaited);
    } else {
      Timelines::fail(awaited, batch.status, batch.text);
    }
  });
}

void StreamOrder::start_when_reached(std::unique_ptr<Pending> pending) {
  const xhal_event event = pending->event;
  const xhal_status status =
      xhal_timeline_notify(event.timeline, event.value, on_reached, pending.get());
  if (status == XHAL_OK) {
    (void)pending.release();  // the callback's
  } else {
    on_reached(pending.release(), status);
  }
}

void StreamOrder::on_reached(void* user, int32_t status) {
  const std::unique_ptr<Pending> pending(static_cast<Pending*>(user));
  if (status != XHAL_OK) {
    // Puts the timeline's failure into this thread's record, if it is one.
    (void)xhal_timeline_query(pending->event.timeline, pending->event.value, nullptr);
    try {
      pending->batch->cancelled = fmt::format("{}: {}", xhal_status_name(status), xhal_text());
    } catch (const std::bad_alloc&) {
      pending->batch->cancelled = "out of memory";  // fits into the string itself
    }
  }
  pending->batch->ready = true;
  const std::lock_guard lock(pending->link->mutex);
  if (pending->link->engine) pending->link->engine->ring_doorbell();
}

}  // namespace xcoll::engine
