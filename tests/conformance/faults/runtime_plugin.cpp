// SPDX-License-Identifier: Apache-2.0
// runtime_plugin.cpp: the cpu plugin with one fault of its runtime planted. It proves the core
// profile. Its devices claim neither to wait before a signal nor for foreign timelines, as those of
// most vendors: libxhal then holds most failures back, and the suite must find the faults all the
// same.
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cfenv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>
#ifdef __SSE__
#include <xmmintrin.h>
#endif
#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

#include "runtime_faults.hpp"
#include "xhal/catalog.h"

namespace xhal::faults {
namespace {

void leak_descriptor() { (void)eventfd(0, EFD_CLOEXEC); }

// ---- streams

xhal_status stream_create(xhal_context* context, const xhal_stream_info* info,
                          xhal_timeline* timeline, xhal_stream** stream) {
  auto& p = plugin();
  const bool leaks = planted(Fault::streams_leak) ||
                     (planted(Fault::context_keeps_streams) && context != p.context);
  if (leaks) leak_descriptor();
  const auto status = p.behind->stream_create(context, info, timeline, stream);
  if (status != XHAL_OK) return status;
  const std::lock_guard lock(p.mutex);
  p.first_timeline[*stream] = timeline;
  p.own.insert(timeline);
  return XHAL_OK;
}

xhal_status stream_destroy(xhal_stream* stream) {
  if (planted(Fault::destroy_drops_work)) plugin().behind->stream_abort(stream);
  return plugin().behind->stream_destroy(stream);
}

constexpr uint64_t kLarge = 1 << 20;  // bytes

bool is_device_memory(uint64_t address) {
  xhal_pointer_info info{};
  return plugin().host->pointer_query(address, &info) == XHAL_OK && info.kind == XHAL_MEMORY_DEVICE;
}

xhal_status stream_copy(xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size) {
  if (planted(Fault::exit_in_copy)) std::exit(0);
  if (planted(Fault::prints_in_a_copy)) std::printf("acme: a copy\n");
  if (planted(Fault::large_copies_halved) && size > kLarge) size /= 2;
  if (planted(Fault::copies_late) && is_device_memory(dst) && is_device_memory(src)) {
    std::thread([=] {
      std::this_thread::sleep_for(std::chrono::seconds(2));
      std::memcpy(reinterpret_cast<void*>(dst), reinterpret_cast<const void*>(src), size);
    }).detach();
    return XHAL_OK;
  }
  return plugin().behind->stream_copy(stream, dst, src, size);
}

xhal_status stream_fill(xhal_stream* stream, uint64_t dst, uint64_t size, uint64_t pattern,
                        uint32_t width) {
  if (planted(Fault::large_fills_halved) && size > kLarge) size = size / 2 / width * width;
  return plugin().behind->stream_fill(stream, dst, size, pattern,
                                      planted(Fault::fill_width) ? 1 : width);
}

struct HostCall {
  xhal_host_fn callback;
  void* user;
  static void call(void* self, xhal_status status) {
    const std::unique_ptr<HostCall> own(static_cast<HostCall*>(self));
    if (planted(Fault::host_call_dropped) && status != XHAL_OK) return;
    own->callback(own->user, status);
    if (planted(Fault::host_call_twice)) own->callback(own->user, status);
  }
};

xhal_status stream_host_call(xhal_stream* stream, xhal_host_fn callback, void* user,
                             uint32_t flags) {
  if (planted(Fault::host_call_lost)) return XHAL_OK;
  auto call = std::make_unique<HostCall>(HostCall{callback, user});
  const auto status = plugin().behind->stream_host_call(stream, HostCall::call, call.get(), flags);
  if (status == XHAL_OK) (void)call.release();
  return status;
}

xhal_status stream_wait(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) {
  auto& p = plugin();
  if (planted(Fault::wait_ignored)) return XHAL_OK;
  while (planted(Fault::submission_blocks) &&
         p.host->timeline_poll(timeline, value, nullptr) == XHAL_NOT_READY)
    sched_yield();
  return p.behind->stream_wait(stream, timeline, value);
}

xhal_status stream_signal(xhal_stream* stream, xhal_timeline* timeline, uint64_t value,
                          xhal_timestamp* timestamp) {
  auto& p = plugin();
  if (planted(Fault::signalled_early)) p.host->timeline_advance(timeline, value);
  if (planted(Fault::constant_timestamps) && timestamp != nullptr) {
    timestamp->device_ns = 1;
    __atomic_store_n(&timestamp->slot, timestamp->pending, __ATOMIC_RELEASE);
    timestamp = nullptr;
  }
  return p.behind->stream_signal(stream, timeline, value, timestamp);
}

xhal_status stream_recover(xhal_stream* stream, xhal_timeline* fresh) {
  auto& p = plugin();
  if (planted(Fault::recover_keeps_failure)) return XHAL_OK;
  const auto status = p.behind->stream_recover(stream, fresh);
  const std::lock_guard lock(p.mutex);
  p.own.insert(fresh);
  if (planted(Fault::recover_keeps_timeline)) p.instead[fresh] = p.first_timeline[stream];
  return status;
}

// ---- operators

// A list of the operators that nobody locks: of two threads that add at once, one is forgotten.
class UnlockedList {
 public:
  void add(xhal_op* op) {
    const size_t at = count_;
    sched_yield();
    list_[at] = op;
    count_ = at + 1;
  }
  bool remove(xhal_op* op) {
    const size_t count = count_;
    for (size_t i = count; i-- > 0;) {
      if (list_[i] != op) continue;
      const size_t last = count - 1;
      sched_yield();
      list_[i] = list_[last];
      count_ = last;
      return true;
    }
    return false;
  }

 private:
  xhal_op* volatile list_[4096];
  volatile size_t count_ = 0;
};
UnlockedList unlocked;

// The faults of who does not look at what is asked.
void spoil_operands(uint32_t id, std::vector<xhal_tensor_desc>& operands) {
  const auto last = operands.back();
  const bool copies = id == XHAL_OP_strided_copy;
  for (auto& t : operands) {
    if (planted(Fault::fill_counts_16_bits) && id == XHAL_OP_fill) t.sizes[0] &= 0xffff;
    if (planted(Fault::copy_counts_16_bits) && copies) t.sizes[0] &= 0xffff;
    if (planted(Fault::axpby_stops_at_4096) && id == XHAL_OP_axpby && t.ndim > 0)
      t.sizes[t.ndim - 1] = std::min<int64_t>(t.sizes[t.ndim - 1], 4096);
    if (planted(Fault::axpby_mixes_dtypes) && id == XHAL_OP_axpby) t.code = last.code;
    if (planted(Fault::lanes_ignored)) t.lanes = 1;
    if (planted(Fault::signs_lost) && copies && t.code == XHAL_CODE_INT && t.bits == 32 &&
        last.bits == 64)
      t.code = XHAL_CODE_UINT;
    if (planted(Fault::offset_ignored)) t.offset_elements = 0;
    for (auto& stride : t.strides) {
      if (planted(Fault::negative_strides_ignored) && stride < 0) stride = -stride;
    }
  }
}

xhal_status op_prepare(xhal_context* context, const xhal_op_info* info, xhal_op** op) {
  auto& p = plugin();
  std::vector<xhal_tensor_desc> operands(info->operands, info->operands + info->operand_count);
  if (!operands.empty()) spoil_operands(info->id, operands);
  if (planted(Fault::axpby_refused) && info->id == XHAL_OP_axpby)
    return refuse(XHAL_ERR_UNSUPPORTED, "axpby is not supported");
  xhal_op_info changed = *info;
  changed.operands = operands.data();
  const auto status = p.behind->op_prepare(context, &changed, op);
  if (planted(Fault::wrong_group_unsupported) && status == XHAL_ERR_INVALID_ARGUMENT)
    return refuse(XHAL_ERR_UNSUPPORTED, "no such operator here");
  if (status != XHAL_OK) return status;
  if (planted(Fault::objects_are_not_locked)) unlocked.add(*op);
  const std::lock_guard lock(p.mutex);
  p.prepared[*op] = {info->id, std::move(operands)};
  return XHAL_OK;
}

xhal_status op_query(xhal_op* op, xhal_op_properties* properties, xhal_operand_need* needs,
                     uint32_t capacity) {
  const auto status = plugin().behind->op_query(op, properties, needs, capacity);
  if (planted(Fault::no_cost)) properties->flops = properties->bytes = 0;
  if (planted(Fault::needs_past_capacity) && needs != nullptr) needs[capacity] = {};
  return status;
}

xhal_status op_destroy(xhal_op* op) {
  auto& p = plugin();
  if (planted(Fault::objects_are_not_locked) && !unlocked.remove(op))
    return refuse(XHAL_ERR_DEVICE, "the list of objects has lost one");
  {
    const std::lock_guard lock(p.mutex);
    p.prepared.erase(op);
  }
  return p.behind->op_destroy(op);
}

// Runs `action` on a host thread, in stream order.
void in_stream_order(xhal_stream* stream, std::function<void()> action) {
  auto* heap = new std::function<void()>(std::move(action));
  plugin().behind->stream_host_call(
      stream,
      [](void* user, xhal_status status) {
        const std::unique_ptr<std::function<void()>> own(static_cast<std::function<void()>*>(user));
        if (status == XHAL_OK) (*own)();
      },
      heap, 0);
}

int64_t count_of(const xhal_tensor_desc& t) {
  int64_t count = 1;
  for (uint32_t d = 0; d < t.ndim; ++d) count *= t.sizes[d];
  return count;
}

template <class T>
T* elements(uint64_t address, const xhal_tensor_desc& t) {
  return reinterpret_cast<T*>(address) + t.offset_elements;
}

// As the launch finds it, not as it will be when the operator runs.
xhal_scalar read_now(const xhal_scalar& s) {
  xhal_scalar now{};
  if (s.kind != XHAL_SCALAR_ADDRESS) return s;
  if (s.code == XHAL_CODE_FLOAT) {
    now.kind = XHAL_SCALAR_FLOAT;
    now.value.f = *reinterpret_cast<const float*>(s.value.address);
  } else {
    now.kind = XHAL_SCALAR_INT;
    now.value.i = *reinterpret_cast<const int64_t*>(s.value.address);
  }
  return now;
}

xhal_status op_launch(xhal_stream* stream, xhal_op* op, const uint64_t* addresses,
                      uint32_t address_count, const xhal_scalar* scalars, uint32_t scalar_count,
                      uint64_t workspace) {
  auto& p = plugin();
  Prepared prepared;
  {
    const std::lock_guard lock(p.mutex);
    prepared = p.prepared[op];
  }
  const auto& out = prepared.operands.back();
  const uint64_t out_address = addresses[address_count - 1];
  const bool copy = prepared.id == XHAL_OP_strided_copy;
  if (planted(Fault::op_used_after_free) && copy) {
    in_stream_order(stream, [op, from = addresses[0], out_address] {
      const std::lock_guard lock(plugin().mutex);
      const auto found = plugin().prepared.find(op);
      const int64_t count =
          found == plugin().prepared.end() ? 1 : count_of(found->second.operands.back());
      std::memcpy(reinterpret_cast<void*>(out_address), reinterpret_cast<const void*>(from),
                  static_cast<size_t>(count) * 4);
    });
    return XHAL_OK;
  }
  std::vector<xhal_scalar> list(scalars, scalars + scalar_count);
  if (planted(Fault::scalar_read_early)) {
    for (auto& s : list) s = read_now(s);
  }
  for (auto& s : list) {
    if (s.kind != XHAL_SCALAR_ADDRESS) continue;
    const bool i32 = s.code == XHAL_CODE_INT && s.bits == 32;
    const bool f64 = s.code == XHAL_CODE_FLOAT && s.bits == 64;
    if ((planted(Fault::scalar_of_i32_ignored) && i32) ||
        (planted(Fault::scalar_of_f64_ignored) && f64))
      s = xhal_scalar{};
  }
  if (planted(Fault::rounding_changed_in_a_launch)) std::fesetround(FE_UPWARD);
  while (planted(Fault::scalars_without_defaults) && prepared.id == XHAL_OP_axpby &&
         list.size() < 2)
    list.push_back(xhal_scalar{});
  static uint64_t scratch[16];
  const uint64_t* given = addresses;
  if (planted(Fault::static_scratch)) {
    std::copy_n(addresses, address_count, scratch);
    sched_yield();
    given = scratch;
  }
  const auto status = p.behind->op_launch(stream, op, given, address_count, list.data(),
                                          static_cast<uint32_t>(list.size()), workspace);
  if (planted(Fault::integers_through_double) && copy && out.bits == 64) {
    in_stream_order(stream, [data = elements<int64_t>(out_address, out), count = count_of(out)] {
      for (int64_t i = 0; i < count; ++i) {
        const auto value = static_cast<double>(data[i]);
        data[i] = value >= 0x1p63 ? INT64_MAX : static_cast<int64_t>(value);
      }
    });
  }
  if (planted(Fault::writes_past_the_end) && copy && out.bits == 32) {
    in_stream_order(stream, [data = elements<float>(out_address, out), count = count_of(out)] {
      data[count] = 0;
    });
  }
  return status;
}

// ---- the device

xhal_status device_limit(xhal_device* device, uint32_t key, uint64_t* value) {
  const auto status = plugin().behind->device_limit(device, key, value);
  if (planted(Fault::wrong_status) && status == XHAL_ERR_UNSUPPORTED)
    return refuse(XHAL_ERR_INVALID_ARGUMENT, "no such limit");
  return status;
}

xhal_status device_clock(xhal_device* device, uint64_t* device_ns, uint64_t* host_ns) {
  const auto status = plugin().behind->device_clock(device, device_ns, host_ns);
  if (planted(Fault::slow_clock)) *device_ns /= 1000;
  return status;
}

xhal_status device_close(xhal_device* device) {
  if (planted(Fault::hang_in_close)) pause();
  if (planted(Fault::exit_in_close)) std::exit(0);
  return plugin().behind->device_close(device);
}

void spoil_record(xhal_device_info& info) {
  const pid_t process = getpid();
  if (planted(Fault::uuid_changes)) std::memcpy(info.uuid, &process, sizeof process);
}

// What belongs to the program.
void spoil_process() {
  if (planted(Fault::signal_ignored)) {
    signal(SIGINT, SIG_IGN);  // which it is already where a shell runs this in the background
    signal(SIGUSR1, SIG_IGN);
  }
  if (planted(Fault::folder_changed)) (void)!chdir("/");
  if (planted(Fault::umask_changed)) umask(0);
  if (planted(Fault::environment_changed)) setenv("ACME_MODE", "fast", 1);
#ifdef __SSE__
  if (planted(Fault::subnormals_flushed)) _mm_setcsr(_mm_getcsr() | 0x8040);
#endif
}

void claim_little(xhal_device_info& info) {
  info.capabilities[0] &=
      ~(uint64_t{1} << XHAL_CAP_WAIT_BEFORE_SIGNAL | uint64_t{1} << XHAL_CAP_FOREIGN_TIMELINE);
}

xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
  static bool first = true;
  if (planted(Fault::crash_in_enumerate)) std::abort();
  if (planted(Fault::hang_in_enumerate)) pause();
  if (planted(Fault::exit_in_enumerate)) std::exit(0);
  if (planted(Fault::descriptor_at_each_enumerate)) leak_descriptor();
  if (planted(Fault::descriptor_at_first_enumerate) && first) leak_descriptor();
  if (planted(Fault::thread_at_first_enumerate) && first) std::thread([] { pause(); }).detach();
  first = false;
  const auto status = plugin().behind_table.enumerate(devices, capacity, count);
  for (uint32_t i = 0; i < std::min(capacity, *count); ++i) {
    claim_little(devices[i]);
    spoil_record(devices[i]);
  }
  return status;
}

xhal_status device_open(const xhal_plugin_open* open, xhal_device_info* info, xhal_device** device,
                        xhal_context** context) {
  auto& p = plugin();
  if (planted(Fault::crash_in_open)) std::abort();
  if (planted(Fault::devices_leak)) leak_descriptor();
  const auto status = p.behind_table.device_open(open, info, device, context);
  claim_little(*info);
  spoil_record(*info);
  spoil_process();
  if (status == XHAL_OK && (open->flags & XHAL_OPEN_OBSERVE) == 0) {
    p.device = *device;
    p.context = *context;
  }
  return status;
}

void wrap(const xhal_plugin_table& behind) {
  auto& p = plugin();
  p.behind_table = p.table = behind;
  p.behind = behind.slots;
  p.slots = *p.behind;
#define WRAP(slot) p.slots.slot = slot
  plant_memory(p.slots);
  WRAP(stream_create);
  WRAP(stream_destroy);
  WRAP(stream_copy);
  WRAP(stream_fill);
  WRAP(stream_host_call);
  WRAP(stream_wait);
  WRAP(stream_signal);
  WRAP(stream_recover);
  WRAP(op_prepare);
  WRAP(op_query);
  WRAP(op_destroy);
  WRAP(op_launch);
  WRAP(device_limit);
  WRAP(device_clock);
  WRAP(device_close);
#undef WRAP
  p.table.slots = &p.slots;
  p.table.enumerate = enumerate;
  p.table.device_open = device_open;
}

}  // namespace
}  // namespace xhal::faults

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  using namespace xhal::faults;
  if (planted(Fault::crash_in_negotiate)) std::abort();
  if (planted(Fault::hang_in_negotiate)) pause();
  if (planted(Fault::exit_in_negotiate)) std::exit(0);
  if (planted(Fault::signal_ignored_in_negotiate)) signal(SIGTERM, SIG_IGN);
  if (planted(Fault::prints)) std::printf("acme: 1 device found\n");
  auto& p = plugin();
  p.host = request->host;
  p.told = *request->host;
  plant_services(p.told);
  xhal_negotiate_request changed = *request;
  changed.host = &p.told;
  static auto* library = new boost::dll::shared_library;
  try {
    library->load(XHAL_CPU_PLUGIN,
                  boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    const auto status =
        library->get<xhal_status(const xhal_negotiate_request*, xhal_negotiate_reply*)>(
            "xhal_plugin_negotiate")(&changed, reply);
    if (status != XHAL_OK) return status;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "the plugin behind the faults does not load: %s\n", e.what());
    return XHAL_ERR_NOT_FOUND;
  }
  wrap(*reply->table);
  reply->table = &p.table;
  return XHAL_OK;
}
