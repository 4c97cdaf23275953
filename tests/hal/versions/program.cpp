// SPDX-License-Identifier: Apache-2.0
// program.cpp: a small program on xhal.hpp, for the tests of versions.
//
// The same source is built today and lies frozen as it was built at each earlier minor
// (hal/abi/frozen). It prints one line per thing it tries, `what: answer`, and ends with status 0
// when nothing went wrong that may not go wrong at any pair of versions. Its argument names the
// plugin whose first device it takes.
#include <cstdio>
#include <cstring>
#include <xhal/xhal.hpp>

namespace {

const char* answer(xhal_status status) { return xhal_status_name(status); }

constexpr uint64_t kCount = 1000;
constexpr uint64_t kBytes = kCount * sizeof(float);
constexpr uint64_t kSecond = 1'000'000'000;

// Fills, computes and copies back through pool, stream, operator and event.
const char* compute(const xhal::Device& device, xhal_stream* stream) {
  const auto pool = device.pool();
  uint64_t x = 0;
  xhal::check(xhal_pool_alloc(pool.get(), stream, kBytes, xhal::str("x"), &x));
  uint32_t pattern = 0;
  const float three = 3.0f;
  std::memcpy(&pattern, &three, sizeof pattern);
  xhal::check(xhal_stream_fill(stream, x, kBytes, pattern, sizeof pattern));
  const auto vector = xhal::tensor(XHAL_CODE_FLOAT, 32, {kCount});
  const auto op = xhal::prepare(device.context(), 3 /* axpby */, {{vector}, {}, {vector}});
  const uint64_t addresses[] = {x, x};
  const xhal_scalar scalars[] = {xhal::scalar(2.0), xhal::scalar(1.0)};
  xhal::check(xhal_op_launch(stream, op.get(), addresses, 2, scalars, 2, 0));
  std::vector<float> host(kCount);
  xhal::check(xhal_stream_copy(stream, reinterpret_cast<uint64_t>(host.data()), x, kBytes));
  xhal_event done{};
  xhal::check(xhal_event_record(stream, 0, &done));
  xhal::check(xhal_event_wait(&done, 60 * kSecond));
  xhal::check(xhal_pool_free(pool.get(), x, &done, 1));
  for (const float value : host) {
    if (value != 7.0f) return "WRONG RESULT";
  }
  return "OK";
}

// One stream waits for the host's timeline, another sees it pass.
const char* wait_for_host(xhal_stream* stream) {
  xhal_timeline* made = nullptr;
  xhal::check(xhal_timeline_create(0, &made));
  const xhal::Timeline timeline(made);
  xhal::check(xhal_stream_wait(stream, made, 5));
  if (xhal_stream_synchronize(stream, 0) != XHAL_ERR_TIMEOUT) return "DID NOT WAIT";
  xhal::check(xhal_timeline_signal(made, 5));
  return answer(xhal_stream_synchronize(stream, 60 * kSecond));
}

#if XHAL_VERSION_MINOR >= 2
// A field newer than the library, without asking for the version first.
const char* name_blindly(const xhal::Device& device) {
  xhal_stream_info info{};
  info.struct_size = sizeof info;
  info.name = xhal::str("named");
  xhal_stream* stream = nullptr;
  const xhal_status status = xhal_stream_create(device.context(), &info, &stream);
  if (status == XHAL_OK) xhal_stream_destroy(stream);
  return answer(status);
}

const char* query(xhal_stream* stream) {
  try {
    return xhal::query(stream).pending == 0 ? "OK" : "NOT IDLE";
  } catch (const xhal::Error& error) {
    return answer(error.info.status);
  }
}
#endif

#if XHAL_VERSION_MINOR >= 3
const char* open_with_a_longer_ring(uint32_t index) {
  xhal_device_open_info info{};
  info.struct_size = sizeof info;
  info.index = index;
  info.timestamp_ring = 8192;
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;
  const xhal_status status = xhal_device_open(&info, &device, &context);
  if (status == XHAL_OK) xhal_device_close(device);
  return answer(status);
}

const char* scrubbed_context(const xhal::Device& device) {
  xhal_context_info info{};
  info.struct_size = sizeof info;
  info.flags = XHAL_CONTEXT_SCRUB;
  xhal_context* context = nullptr;
  const xhal_status status = xhal_context_create(device.get(), &info, &context);
  if (status == XHAL_OK) xhal_context_destroy(context);
  return answer(status);
}

const char* stream_with(const xhal::Device& device, uint32_t flags, const xhal_chain* next) {
  xhal_stream_info info{};
  info.struct_size = 24;  // as 0.1 had it: only what is asked about is new
  info.flags = flags;
  info.next = next;
  xhal_stream* stream = nullptr;
  const xhal_status status = xhal_stream_create(device.context(), &info, &stream);
  if (status == XHAL_OK) xhal_stream_destroy(stream);
  return answer(status);
}

const char* allocation_id(const xhal::Device& device) {
  const auto pool = device.pool();
  uint64_t address = 0;
  xhal::check(xhal_pool_alloc(pool.get(), nullptr, 4096, xhal::str("id"), &address));
  xhal_pointer_info info{};
  xhal::check(xhal_pointer_query(address, &info));
  xhal::check(xhal_pool_free(pool.get(), address, nullptr, 0));
  return info.allocation_id != 0 ? "there" : "none";
}

const char* abort_stream(xhal_stream* stream) {
  auto* const stream_abort = xhal::proc<decltype(xhal_stream_abort)>("xhal_stream_abort");
  return answer(stream_abort == nullptr ? XHAL_ERR_UNSUPPORTED : stream_abort(stream));
}
#endif

uint32_t first_device_of(const char* plugin) {
  for (const auto& device : xhal::devices()) {
    if (std::strcmp(device.plugin, plugin) == 0) return device.index;
  }
  throw xhal::Error({XHAL_ERR_NOT_FOUND, 0, 0, plugin, "", "", "no device of that plugin"});
}

void show_plugin(const char* name) {
  uint32_t count = 0;
  xhal::check(xhal_plugin_report(nullptr, 0, &count));
  std::vector<xhal_plugin_info> plugins(count);
  xhal::check(xhal_plugin_report(plugins.data(), count, &count));
  for (const auto& plugin : plugins) {
    if (std::string_view(plugin.name.data, plugin.name.size) != name) continue;
    std::printf("plugin: speaks up to %u.%u, negotiated %u.%u\n", plugin.abi_max >> 16,
                plugin.abi_max & 0xffff, plugin.abi_used >> 16, plugin.abi_used & 0xffff);
  }
}

void run(const char* plugin) {
  std::printf("headers: %u.%u\n", XHAL_VERSION_MAJOR, XHAL_VERSION_MINOR);
  std::printf("library: %u.%u\n", xhal_version() >> 16, xhal_version() & 0xffff);
  const xhal::Session session;
  const xhal::Device device(first_device_of(plugin));
  show_plugin(plugin);
#if XHAL_VERSION_MINOR >= 2
  const auto stream = device.stream(0, "named");
  std::printf("query: %s\n", query(stream.get()));
  std::printf("name: %s\n", name_blindly(device));
#else
  const auto stream = device.stream();
#endif
#if XHAL_VERSION_MINOR >= 3
  const xhal_chain vendor{sizeof vendor, XHAL_STRUCT_VENDOR(0x1d94, 1), nullptr};
  std::printf("ring: %s\n", open_with_a_longer_ring(first_device_of(plugin)));
  std::printf("scrub: %s\n", scrubbed_context(device));
  std::printf("flags: %s\n", stream_with(device, 1u << 7, nullptr));
  std::printf("chain: %s\n", stream_with(device, 0, &vendor));
  std::printf("id: %s\n", allocation_id(device));
  std::printf("abort: %s\n", abort_stream(stream.get()));
#endif
  std::printf("compute: %s\n", compute(device, stream.get()));
  std::printf("wait: %s\n", wait_for_host(stream.get()));
  const xhal_status activity = xhal_activity_flush(device.get());
  std::printf("activity: %s\n", answer(activity));  // the template has none
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s PLUGIN\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1]);
    return 0;
  } catch (const std::exception& e) {
    std::printf("failed: %s\n", e.what());
    return 1;
  }
}
