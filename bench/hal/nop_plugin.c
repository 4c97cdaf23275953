/* SPDX-License-Identifier: Apache-2.0 */
/* nop_plugin.c: a plugin whose slots do nothing, so that what is measured is the way to them.
 *
 * Plain C on plugin.h, without plugin.hpp: no adapter stands between the table and the function.
 * Its memory counts as out of the host's reach, and it takes host memory only when that is pinned:
 * the device of which libxhal must do most. Copies and fills are done, at once, by the calling
 * thread: what is measured beside memcpy has moved the bytes.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "xhal/plugin.h"

static const xhal_host_services* host;
static const xhal_dispatch* table; /* of the one device */
static xhal_device* opened;

static void describe(xhal_device_info* info) {
  info->type = XHAL_DEVICE_EXTENSION;
  info->flags = XHAL_DEVICE_EMULATED;
  info->numa_node = -1;
  info->memory_bytes = 1ull << 40; /* of address space; pages come when they are touched */
  info->capabilities[0] = 1u << XHAL_CAP_HOST_REGISTER;
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

/* Ordinary mappings; neighbours merge in the kernel, so that 100,000 of them are a few. */
static xhal_status nop_memory_alloc(xhal_context* context, const xhal_memory_info* info,
                                    uint64_t* address) {
  void* memory = mmap(NULL, info->size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return XHAL_ERR_OUT_OF_MEMORY;
  const xhal_status status = host->range_add(opened, context, (uint64_t)(uintptr_t)memory,
                                             info->size_bytes, XHAL_MEMORY_DEVICE, 0);
  if (status != XHAL_OK) {
    munmap(memory, info->size_bytes);
    return status;
  }
  *address = (uint64_t)(uintptr_t)memory;
  return XHAL_OK;
}
static xhal_status nop_memory_free(xhal_context* context, uint64_t address) {
  (void)context;
  xhal_pointer_info info;
  if (host->pointer_query(address, &info) != XHAL_OK || info.base != address)
    return XHAL_ERR_INVALID_ARGUMENT;
  host->range_remove(address);
  munmap((void*)(uintptr_t)address, info.size_bytes);
  return XHAL_OK;
}
static xhal_status nop_host_register(xhal_context* context, void* memory, uint64_t size_bytes,
                                     uint64_t* device_address) {
  (void)context, (void)size_bytes;
  *device_address = (uint64_t)(uintptr_t)memory;
  return XHAL_OK;
}
static xhal_status nop_host_unregister(xhal_context* context, void* memory) {
  (void)context, (void)memory;
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
static xhal_status nop_stream_copy(xhal_stream* stream, uint64_t to, uint64_t from, uint64_t size) {
  (void)stream;
  memcpy((void*)(uintptr_t)to, (const void*)(uintptr_t)from, size);
  return XHAL_OK;
}
static xhal_status nop_stream_fill(xhal_stream* stream, uint64_t to, uint64_t size,
                                   uint64_t pattern, uint32_t pattern_bytes) {
  (void)stream;
  for (uint64_t done = 0; done < size; done += pattern_bytes)
    memcpy((char*)(uintptr_t)to + done, &pattern, pattern_bytes);
  return XHAL_OK;
}
static xhal_status nop_stream_host_call(xhal_stream* stream, xhal_host_fn callback, void* user,
                                        uint32_t flags) {
  (void)stream, (void)flags;
  callback(user, XHAL_OK);
  return XHAL_OK;
}
/* What libxhal lets a stream of this device wait for has been submitted, so it is done. */
static xhal_status nop_stream_wait(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) {
  (void)stream, (void)timeline, (void)value;
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
    .memory_alloc = nop_memory_alloc,
    .memory_free = nop_memory_free,
    .host_register = nop_host_register,
    .host_unregister = nop_host_unregister,
    .stream_create = nop_stream_create,
    .stream_destroy = nop_stream_destroy,
    .stream_copy = nop_stream_copy,
    .stream_fill = nop_stream_fill,
    .stream_host_call = nop_stream_host_call,
    .stream_wait = nop_stream_wait,
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
  opened = *device;
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
