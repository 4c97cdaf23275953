// SPDX-License-Identifier: Apache-2.0
// xhal/plugin.hpp: writing a plugin in C++20.
//
// A vendor writes one class per object (device, context, stream, ...), derived from
// xhal::plugin::Object, with a member function for every slot it supports, named and typed as the
// slot list says without its first parameter:
//
//   struct Stream : xhal::plugin::Object {
//     xhal_status copy(uint64_t dst, uint64_t src, uint64_t size_bytes);
//     ...
//   };
//   struct Acme : xhal::plugin::Vendor {                 // what is left out is unsupported
//     using device = Device;  using context = Context;  using stream = Stream;
//     static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count);
//     static xhal_status device_open(const xhal_plugin_open&, xhal_device_info&, xhal_device**,
//     xhal_context**);
//   };
//   extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
//                                                         xhal_negotiate_reply* reply) {
//     return xhal::plugin::negotiate<Acme>(request, reply, "acme 1.0");
//   }
//
// A class that understands chained structures (xhal_chain) says which:
//   static bool knows_chain(uint32_t type);
//
// Member functions may throw: Error becomes its status and text, std::bad_alloc
// XHAL_ERR_OUT_OF_MEMORY, anything else XHAL_ERR_PLUGIN. Nothing crosses the boundary.
#pragma once

#if __cplusplus <= 201703L
#error "xhal/plugin.hpp needs C++20 (-std=c++20); plugins in C or older C++ use xhal/plugin.h"
#endif

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "xhal/struct_check.hpp"

namespace xhal::plugin {

constexpr uint32_t version(uint32_t major, uint32_t minor) { return major << 16 | minor; }
inline constexpr uint32_t kNewest = version(XHAL_VERSION_MAJOR, XHAL_VERSION_MINOR);
inline constexpr uint32_t kOldest = version(XHAL_VERSION_MAJOR, 1);

// The highest common minor of the highest common major of two ranges; 0 when there is none.
constexpr uint32_t common_version(uint32_t a_min, uint32_t a_max, uint32_t b_min, uint32_t b_max) {
  const uint32_t low = std::max(a_min, b_min), high = std::min(a_max, b_max);
  return low <= high ? high : 0;
}

constexpr xhal_string str(std::string_view text) { return {text.data(), text.size()}; }
constexpr std::string_view view(xhal_string text) {
  return text.size == 0 ? std::string_view{} : std::string_view(text.data, text.size);
}

// libxhal's services, valid after negotiation. None is NULL: what the library is too old to have
// answers XHAL_ERR_UNSUPPORTED, or nothing.
inline xhal_host_services host_table{};
inline const xhal_host_services& host() { return host_table; }

// An error a member function throws or returns through fail().
struct Error : std::exception {
  Error(xhal_status s, std::string t, uint32_t operand_number = 0)
      : status(s), text(std::move(t)), operand(operand_number) {}
  const char* what() const noexcept override { return text.c_str(); }
  xhal_status status;
  std::string text;
  uint32_t operand;
};

// Sets the calling thread's error record and returns `status`.
inline xhal_status fail(xhal_status status, std::string_view text, std::string_view operation = {},
                        uint32_t operand = 0) noexcept {
  xhal_error error{};
  error.struct_size = sizeof error;
  error.status = status;
  error.operation = str(operation);
  error.text = str(text);
  error.operand = operand;
  return host().error_set(&error);
}

// Fails a stream's timeline because something it waited for failed with `cause`; sets the thread's
// record likewise. The cause of both is the origin, however long the chain.
inline xhal_status fail_dependent(xhal_timeline* timeline, std::string_view operation,
                                  const xhal_error& cause) noexcept {
  xhal_error error{};
  error.struct_size = sizeof error;
  error.status = XHAL_ERR_DEPENDENCY;
  error.scope = XHAL_SCOPE_OPERATION;
  error.operation = str(operation);
  const bool chained = cause.cause != XHAL_OK;
  error.cause = chained ? cause.cause : cause.status;
  error.text = error.cause_text = chained ? cause.cause_text : cause.text;
  host().timeline_fail(timeline, &error);
  return host().error_set(&error);
}

// Runs `body`, turning every exception into a status.
template <class Body>
xhal_status guarded(std::string_view operation, Body&& body) noexcept {
  try {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      return XHAL_OK;
    } else {
      return body();
    }
  } catch (const Error& e) {
    return fail(e.status, e.text, operation, e.operand);
  } catch (const std::bad_alloc&) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, "the plugin ran out of host memory", operation);
  } catch (const std::exception& e) {
    return fail(XHAL_ERR_PLUGIN, e.what(), operation);
  } catch (...) {
    return fail(XHAL_ERR_PLUGIN, "the plugin threw an unknown exception", operation);
  }
}

// Every object begins with the head that libxhal reads; object_alloc has written it.
struct Object {
  xhal_object_head head;
};

// Makes an object under the device whose table is given, and its C handle.
template <class T, class Handle, class... Args>
T* make(const xhal_dispatch* table, uint32_t kind, Handle** handle, Args&&... args) {
  static_assert(std::is_base_of_v<Object, T> && !std::is_polymorphic_v<T>,
                "the head must come first");
  static_assert(alignof(T) <= 64);
  void* memory = nullptr;
  if (host().object_alloc(table, kind, sizeof(T), &memory) != XHAL_OK) throw std::bad_alloc();
  const xhal_object_head head = *static_cast<const xhal_object_head*>(memory);
  T* object;
  try {
    object = new (memory) T(std::forward<Args>(args)...);
  } catch (...) {
    host().object_free(memory);
    throw;
  }
  object->head = head;
  *handle = reinterpret_cast<Handle*>(object);
  return object;
}

// Ends an object: its destructor, then libxhal marks the memory dead.
template <class T>
xhal_status destroy(T* object) {
  object->~T();
  host().object_free(object);
  return XHAL_OK;
}

template <class T, class Handle>
T& from_handle(Handle* handle) {
  return *reinterpret_cast<T*>(handle);
}
template <class Handle>
Handle* to_handle(Object* object) {
  return reinterpret_cast<Handle*>(object);
}

struct None {};

// Base of a vendor's description: everything unsupported.
struct Vendor {
  using device = None;
  using context = None;
  using stream = None;
  using op = None;
  using module = None;
  using kernel = None;
  using graph = None;
  static constexpr uint32_t abi_min = kOldest, abi_max = kNewest;
  static void shutdown() {}
};

namespace detail {

template <class T, class Call, class Handle, class... Rest>
constexpr auto bind(xhal_status (*)(Handle*, Rest...), Call) {
  using Slot = xhal_status (*)(Handle*, Rest...);
  if constexpr (std::is_invocable_v<Call, T&, Rest...>) {
    return Slot([](Handle* handle, Rest... rest) noexcept -> xhal_status {
      return guarded("", [&] {
        structs::KnowsChain knows = structs::knows_none;
        if constexpr (requires { T::knows_chain(uint32_t{}); }) knows = &T::knows_chain;
        return structs::call(
            structs::Chains::refuse, knows,
            [](T* self, Rest... adapted) -> xhal_status {
              if constexpr (std::is_void_v<std::invoke_result_t<Call, T&, Rest...>>) {
                Call{}(*self, adapted...);
                return XHAL_OK;
              } else {
                return Call{}(*self, adapted...);
              }
            },
            reinterpret_cast<T*>(handle), rest...);
      });
    });
  } else {
    return Slot(nullptr);
  }
}

template <class V>
const xhal_dispatch* slots() {
  static const xhal_dispatch table = [] {
    xhal_dispatch t{};
    t.struct_size = sizeof t;
    t.minor = XHAL_VERSION_MINOR;
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)              \
  t.name = bind<typename V::object>(                                             \
      static_cast<xhal_status(*) params>(nullptr),                               \
      [](auto& self, auto... rest) requires requires { self.method(rest...); } { \
        return self.method(rest...);                                             \
      });
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
    return t;
  }();
  return &table;
}

template <class V>
const xhal_plugin_table* plugin_table() {
  static const xhal_plugin_table table = {
      sizeof(xhal_plugin_table),
      0,
      slots<V>(),
      [](xhal_device_info* devices, uint32_t capacity, uint32_t* count) noexcept -> xhal_status {
        return guarded("enumerate", [&] { return V::enumerate(devices, capacity, count); });
      },
      [](const xhal_plugin_open* open, xhal_device_info* info, xhal_device** device,
         xhal_context** context) noexcept -> xhal_status {
        return guarded("device_open", [&]() -> xhal_status {
          xhal_plugin_open local{};  // an older library gives a shorter one
          std::memcpy(&local, open, std::min<size_t>(open->struct_size, sizeof local));
          structs::KnowsChain knows = structs::knows_none;
          if constexpr (requires { V::device::knows_chain(uint32_t{}); })
            knows = &V::device::knows_chain;
          if (const auto s = structs::check_chain(local.next, structs::Chains::refuse, knows);
              s != XHAL_OK)
            return s;
          return V::device_open(local, *info, device, context);
        });
      },
      []() noexcept { (void)guarded("shutdown", [] { V::shutdown(); }); }};
  return &table;
}

}  // namespace detail

constexpr uint32_t sanitizer() {
#if defined(__SANITIZE_ADDRESS__)
  return XHAL_SANITIZER_ADDRESS;
#elif defined(__SANITIZE_THREAD__)
  return XHAL_SANITIZER_THREAD;
#else
  return XHAL_SANITIZER_NONE;
#endif
}

namespace detail {

template <class Result, class... Args>
void stub_if_missing(Result (*&service)(Args...)) {
  if (service != nullptr) return;
  service = [](Args...) -> Result {
    if constexpr (std::is_same_v<Result, xhal_status>) return XHAL_ERR_UNSUPPORTED;
    if constexpr (!std::is_void_v<Result>) return Result{};
  };
}

// Copies the library's table as far as it reaches and fills the rest with stubs.
inline void take_host(const xhal_host_services& given) {
  host_table = {};
  std::memcpy(&host_table, &given, std::min<size_t>(given.struct_size, sizeof host_table));
  auto& t = host_table;
  [](auto*&... service) {
    static_assert(sizeof(xhal_host_services) == 8 + sizeof...(service) * sizeof(void*),
                  "a service is missing from the list below");
    (stub_if_missing(service), ...);
  }(t.object_alloc, t.object_free, t.error_set, t.log, t.range_add, t.range_remove, t.pointer_query,
    t.timeline_cell, t.shared_memory, t.timeline_advance, t.timeline_fail, t.timeline_poll,
    t.timeline_notify, t.correlation, t.object_number, t.device_lost, t.device_event);
}

}  // namespace detail

// The whole of xhal_plugin_negotiate.
template <class V>
xhal_status negotiate(const xhal_negotiate_request* request, xhal_negotiate_reply* reply,
                      std::string_view build) noexcept {
  reply->abi_min = V::abi_min;
  reply->abi_max = V::abi_max;
  reply->sanitizer = sanitizer();
  const size_t length = std::min(build.size(), sizeof reply->build - 1);
  std::memcpy(reply->build, build.data(), length);
  reply->build[length] = 0;
  if (common_version(V::abi_min, V::abi_max, request->abi_min, request->abi_max) == 0)
    return XHAL_ERR_VERSION;
  detail::take_host(*request->host);
  reply->table = detail::plugin_table<V>();
  return XHAL_OK;
}

}  // namespace xhal::plugin
