/* nop_plugin.c: a plugin whose slots do nothing, so that what is measured is the way to them.
 *
 * Plain C on plugin.h, without plugin.hpp: no adapter stands between the table and the function.
 */
#include <string.h>

#include "xhal/plugin.h"

static const xhal_host_services* host;
static const xhal_dispatch* table; /* of the one device */

static void describe(xhal_device_info* info) {
  info->type = XHAL_DEVICE_EXTENSION;
  info->flags = XHAL_DEVICE_EMULATED;
  info->numa_node = -1;
  info->memory_bytes = 1u << 20;
  strcpy(info->name, "Does nothing");
  strcpy(info->vendor, "xHAL");
}

static xhal_status make(uint32_t kind, void* handle) {
  void* object = NULL;
  const xhal_status status = host->object_alloc(table, kind, sizeof(xhal_object_head), &object);
  if (status == XHAL_OK) memcpy(handle, &object, sizeof object);
  return status;
}

static xhal_status nop_limit(xhal_device* device, uint32_t key, uint64_t* value) {
  (void)device;
  *value = key;
  return XHAL_OK;
}
static xhal_status nop_stream_create(xhal_context* context, const xhal_stream_info* info,
                                     xhal_timeline* timeline, xhal_stream** stream) {
  (void)context, (void)info, (void)timeline;
  return make(XHAL_KIND_STREAM, stream);
}
static xhal_status nop_stream_destroy(xhal_stream* stream) {
  host->object_free(stream);
  return XHAL_OK;
}
static xhal_status nop_stream_signal(xhal_stream* stream, xhal_timeline* timeline, uint64_t value,
                                     xhal_timestamp* timestamp) {
  (void)stream, (void)timestamp;
  host->timeline_advance(timeline, value);
  return XHAL_OK;
}
static xhal_status nop_op_prepare(xhal_context* context, const xhal_op_info* info, xhal_op** op) {
  (void)context, (void)info;
  return make(XHAL_KIND_OP, op);
}
static xhal_status nop_op_query(xhal_op* op, xhal_op_properties* properties,
                                xhal_operand_need* needs, uint32_t need_capacity) {
  (void)op, (void)properties, (void)needs, (void)need_capacity;
  return XHAL_OK;
}
static xhal_status nop_op_destroy(xhal_op* op) {
  host->object_free(op);
  return XHAL_OK;
}
static xhal_status nop_op_launch(xhal_stream* stream, xhal_op* op, const uint64_t* addresses,
                                 uint32_t address_count, const xhal_scalar* scalars,
                                 uint32_t scalar_count, uint64_t workspace) {
  (void)stream, (void)op, (void)addresses, (void)address_count;
  (void)scalars, (void)scalar_count, (void)workspace;
  return XHAL_OK;
}
static xhal_status nop_device_close(xhal_device* device) {
  host->object_free(device);
  return XHAL_OK;
}

static const xhal_dispatch slots = {
    .struct_size = sizeof slots,
    .minor = XHAL_VERSION_MINOR,
    .device_close = nop_device_close,
    .device_limit = nop_limit,
    .stream_create = nop_stream_create,
    .stream_destroy = nop_stream_destroy,
    .stream_signal = nop_stream_signal,
    .op_prepare = nop_op_prepare,
    .op_query = nop_op_query,
    .op_destroy = nop_op_destroy,
    .op_launch = nop_op_launch,
};

static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
  *count = 1;
  if (capacity > 0) describe(devices);
  return XHAL_OK;
}

static xhal_status device_open(const xhal_plugin_open* open, xhal_device_info* info,
                               xhal_device** device, xhal_context** context) {
  table = open->table;
  describe(info);
  const xhal_status status = make(XHAL_KIND_DEVICE, device);
  if (status != XHAL_OK || (open->flags & XHAL_OPEN_OBSERVE) != 0) return status;
  return make(XHAL_KIND_CONTEXT, context);
}

static const xhal_plugin_table plugin = {.struct_size = sizeof plugin,
                                         .slots = &slots,
                                         .enumerate = enumerate,
                                         .device_open = device_open};

xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                  xhal_negotiate_reply* reply) {
  const uint32_t version = XHAL_VERSION_MAJOR << 16 | XHAL_VERSION_MINOR;
  reply->abi_min = reply->abi_max = version;
  reply->sanitizer = XHAL_SANITIZER_NONE;
  strcpy(reply->build, "nop 0.1.0");
  if (version < request->abi_min || version > request->abi_max) return XHAL_ERR_VERSION;
  host = request->host;
  reply->table = &plugin;
  return XHAL_OK;
}
