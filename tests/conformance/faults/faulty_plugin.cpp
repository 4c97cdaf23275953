// SPDX-License-Identifier: Apache-2.0
// faulty_plugin.cpp: the cpu plugin with one fault planted in front of its operators. It proves
// the conformance suite.
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

#include "faults.hpp"

namespace xhal::faults {
namespace {

struct Prepared {
  uint32_t id = 0;
  std::vector<xhal_tensor_desc> asked;
  uint64_t launches = 0;
};

struct Wrapper {
  const xhal_dispatch* behind = nullptr;
  xhal_dispatch slots{};
  xhal_plugin_table table{};
  std::mutex mutex;
  std::map<xhal_op*, Prepared> prepared;
};

Wrapper& wrapper() {
  static auto* w = new Wrapper;
  return *w;
}

xhal_status op_prepare(xhal_context* context, const xhal_op_info* info, xhal_op** op) {
  Request request{info->id,
                  {info->attributes, info->attributes + info->attribute_count},
                  {info->group_sizes, info->group_sizes + info->group_count},
                  {info->operands, info->operands + info->operand_count}};
  Prepared prepared{info->id, request.operands, 0};
  if (const auto* fault = chosen(); fault != nullptr && fault->prepare != nullptr)
    fault->prepare(request);
  xhal_op_info changed = *info;
  changed.attributes = request.attributes.data();
  changed.attribute_count = static_cast<uint32_t>(request.attributes.size());
  changed.group_sizes = request.groups.data();
  changed.operands = request.operands.data();
  const auto status = wrapper().behind->op_prepare(context, &changed, op);
  if (status != XHAL_OK) return status;
  const std::lock_guard lock(wrapper().mutex);
  wrapper().prepared[*op] = std::move(prepared);
  return XHAL_OK;
}

xhal_status op_destroy(xhal_op* op) {
  {
    const std::lock_guard lock(wrapper().mutex);
    wrapper().prepared.erase(op);
  }
  return wrapper().behind->op_destroy(op);
}

// Runs `action` on a host thread, in stream order.
void in_stream_order(xhal_stream* stream, std::function<void()> action) {
  if (!action) return;
  auto* heap = new std::function<void()>(std::move(action));
  wrapper().behind->stream_host_call(
      stream,
      [](void* user, xhal_status status) {
        const std::unique_ptr<std::function<void()>> owned(
            static_cast<std::function<void()>*>(user));
        if (status == XHAL_OK) (*owned)();
      },
      heap, 0);
}

xhal_status op_launch(xhal_stream* stream, xhal_op* op, const uint64_t* addresses,
                      uint32_t address_count, const xhal_scalar* scalars, uint32_t scalar_count,
                      uint64_t workspace) {
  Prepared prepared;
  {
    const std::lock_guard lock(wrapper().mutex);
    auto& found = wrapper().prepared[op];
    ++found.launches;
    prepared = found;
  }
  Launch launch{prepared.id,
                prepared.asked,
                {addresses, addresses + address_count},
                {scalars, scalars + scalar_count},
                prepared.launches,
                {},
                {}};
  if (const auto* fault = chosen(); fault != nullptr && fault->launch != nullptr)
    fault->launch(launch);
  in_stream_order(stream, std::move(launch.before));
  const auto status =
      wrapper().behind->op_launch(stream, op, launch.addresses.data(), address_count,
                                  launch.scalars.data(), scalar_count, workspace);
  in_stream_order(stream, std::move(launch.after));
  return status;
}

}  // namespace
}  // namespace xhal::faults

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  using namespace xhal::faults;
  static auto* library = new boost::dll::shared_library;
  try {
    const char* named = std::getenv("XHAL_TEST_FAULT_PLUGIN");
    library->load(named != nullptr ? named : XHAL_CPU_PLUGIN,
                  boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    const auto status =
        library->get<xhal_status(const xhal_negotiate_request*, xhal_negotiate_reply*)>(
            "xhal_plugin_negotiate")(request, reply);
    if (status != XHAL_OK) return status;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "the plugin behind the faults does not load: %s\n", e.what());
    return XHAL_ERR_NOT_FOUND;
  }
  auto& w = wrapper();
  w.table = *reply->table;
  w.behind = reply->table->slots;
  w.slots = *w.behind;
  w.slots.op_prepare = op_prepare;
  w.slots.op_destroy = op_destroy;
  w.slots.op_launch = op_launch;
  w.table.slots = &w.slots;
  reply->table = &w.table;
  return XHAL_OK;
}
