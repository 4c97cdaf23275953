/* SPDX-License-Identifier: Apache-2.0 */
/* plugin.c: a complete small plugin in plain C, on xhal/plugin.h alone:
 *
 *   cc -std=c11 -O2 -shared -fPIC -fvisibility=hidden -o libxhal_example_c.so plugin.c -lpthread
 *   xhal-cts --plugin ./example_c.json
 *
 * The device is a piece of host memory that works inside of the submission. It shows what
 * plugin.hpp does for a vendor in C++: the tables, the negotiation, the error record, the copy of
 * libxhal's services, and the refusal of what a newer caller says and this file does not know.
 * libxhal has checked the rest before: no pointer is NULL that may not be, handles are live and of
 * this plugin, structures have a legal size.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "operators.h"
#include "xhal/plugin.h"

static const uint64_t kMemoryBytes = 1ull << 32, kAlignment = 512;

static xhal_host_services host; /* libxhal's, as far as it goes */

/* ---- errors */

xhal_status refuse(xhal_status status, uint32_t operand, const char* text) {
  xhal_error error;
  memset(&error, 0, sizeof error);
  error.struct_size = sizeof error;
  error.status = status;
  error.operand = operand;
  error.text.data = text;
  error.text.size = strlen(text);
  return host.error_set(&error);
}

/* A structure of a newer library: what this file does not know must be zero, and so must what is
 * chained to it, unless that may be ignored. */
static xhal_status check(const void* info, size_t known, const xhal_chain* next) {
  const unsigned char* bytes = info;
  uint32_t size;
  memcpy(&size, info, sizeof size);
  for (size_t i = known; i < size; ++i) {
    if (bytes[i] != 0) return refuse(XHAL_ERR_UNKNOWN_FIELD, 0, "a field is newer than the plugin");
  }
  for (; next != NULL; next = next->next) {
    if ((next->type & XHAL_STRUCT_IGNORABLE) == 0)
      return refuse(XHAL_ERR_UNKNOWN_STRUCT, 0, "this plugin knows no chained structures");
  }
  return XHAL_OK;
}

/* ---- objects: each begins with libxhal's head and is on the list of its device */

struct device;

struct object {
  xhal_object_head head;
  struct device* device;
  struct object *next, **link;
};

struct block {
  uint64_t address, size;
  xhal_context* context;
  struct block* next;
};

struct device {
  xhal_object_head head;
  const xhal_dispatch* table;
  pthread_mutex_t lock; /* of what follows */
  struct object* objects;
  struct block* blocks;
  uint64_t used_bytes;
};

struct stream {
  struct object object;
  xhal_timeline* timeline;
};

struct op {
  struct object object;
  struct program program;
};

static struct device* device_of(void* handle) { return ((struct object*)handle)->device; }

static xhal_status add(struct device* device, uint32_t kind, size_t size, void** handle) {
  struct object* object;
  const xhal_status status = host.object_alloc(device->table, kind, size, (void**)&object);
  if (status != XHAL_OK) return status;
  pthread_mutex_lock(&device->lock);
  object->device = device;
  object->next = device->objects;
  object->link = &device->objects;
  if (object->next != NULL) object->next->link = &object->next;
  device->objects = object;
  pthread_mutex_unlock(&device->lock);
  *handle = object;
  return XHAL_OK;
}

static xhal_status end(void* handle) {
  struct object* object = handle;
  struct device* device = object->device;
  pthread_mutex_lock(&device->lock);
  *object->link = object->next;
  if (object->next != NULL) object->next->link = object->link;
  pthread_mutex_unlock(&device->lock);
  host.object_free(object);
  return XHAL_OK;
}

/* ---- memory */

/* Frees the blocks of a context, or one of them, or all; how many there were. The lock is held. */
static int free_blocks(struct device* device, xhal_context* context, uint64_t address) {
  int count = 0;
  for (struct block** at = &device->blocks; *at != NULL;) {
    struct block* block = *at;
    const int chosen = (context == NULL || block->context == context) &&
                       (address == 0 || block->address == address);
    if (!chosen) {
      at = &block->next;
      continue;
    }
    *at = block->next;
    device->used_bytes -= block->size;
    free((void*)(uintptr_t)block->address);
    free(block);
    ++count;
  }
  return count;
}

static xhal_status memory_alloc(xhal_context* context, const xhal_memory_info* info,
                                uint64_t* address) {
  const uint32_t given = XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT;
  struct device* device = device_of(context);
  const uint64_t alignment =
      info->alignment_bytes > kAlignment ? info->alignment_bytes : kAlignment;
  const uint64_t size = (info->size_bytes + alignment - 1) / alignment * alignment;
  xhal_status status = check(info, sizeof *info, info->next);
  if (status != XHAL_OK) return status;
  if (info->kind != XHAL_MEMORY_DEVICE || (info->flags & ~given) != 0)
    return refuse(XHAL_ERR_UNSUPPORTED, 0, "there is plain device memory only");
  pthread_mutex_lock(&device->lock);
  struct block* block = malloc(sizeof *block);
  void* memory = block != NULL && size <= kMemoryBytes - device->used_bytes
                     ? aligned_alloc(alignment, size)
                     : NULL;
  if (memory == NULL) {
    status = refuse(XHAL_ERR_OUT_OF_MEMORY, 0, "so many bytes are not free on the device");
  } else {
    status = host.range_add((xhal_device*)device, context, (uintptr_t)memory, info->size_bytes,
                            XHAL_MEMORY_DEVICE, given);
  }
  if (status == XHAL_OK) {
    block->address = *address = (uintptr_t)memory;
    block->size = size;
    block->context = context;
    block->next = device->blocks;
    device->blocks = block;
    device->used_bytes += size;
  } else {
    free(memory);
    free(block);
  }
  pthread_mutex_unlock(&device->lock);
  return status;
}

static xhal_status memory_free(xhal_context* context, uint64_t address) {
  struct device* device = device_of(context);
  pthread_mutex_lock(&device->lock);
  host.range_remove(address);
  const int count = free_blocks(device, context, address);
  pthread_mutex_unlock(&device->lock);
  return count == 1 ? XHAL_OK : refuse(XHAL_ERR_INVALID_ARGUMENT, 0, "no allocation begins there");
}

/* ---- operators */

static xhal_status op_prepare(xhal_context* context, const xhal_op_info* info, xhal_op** result) {
  struct program program;
  struct op* op;
  xhal_status status = check(info, sizeof *info, info->next);
  if (status == XHAL_OK) status = prepare(info, &program);
  if (status == XHAL_OK) status = add(device_of(context), XHAL_KIND_OP, sizeof *op, (void**)&op);
  if (status != XHAL_OK) return status;
  op->program = program;
  *result = (xhal_op*)op;
  return XHAL_OK;
}

static xhal_status op_query(xhal_op* handle, xhal_op_properties* properties,
                            xhal_operand_need* needs, uint32_t capacity) {
  const struct program* op = &((const struct op*)handle)->program;
  const double count = (double)count_of(op);
  properties->flags = XHAL_OP_IS_DETERMINISTIC;
  properties->flops = op->id == XHAL_OP_axpby ? 3 * count : 0;
  for (uint32_t i = 0; i <= op->last; ++i) {
    const xhal_tensor_desc* t = &op->operands[i];
    const xhal_operand_need as_is = {XHAL_NEED_AS_IS, t->code, t->bits, 0, t->bits / 8u, 0};
    properties->bytes += count * t->bits / 8;
    if (i < capacity) needs[i] = as_is;
  }
  return XHAL_OK;
}

static xhal_status op_destroy(xhal_op* op) { return end(op); }

/* ---- streams: everything has run when the submission returns */

static xhal_status stream_create(xhal_context* context, const xhal_stream_info* info,
                                 xhal_timeline* timeline, xhal_stream** result) {
  struct stream* stream;
  xhal_status status = check(info, sizeof *info, info->next);
  if (status == XHAL_OK)
    status = add(device_of(context), XHAL_KIND_STREAM, sizeof *stream, (void**)&stream);
  if (status != XHAL_OK) return status;
  stream->timeline = timeline;
  *result = (xhal_stream*)stream;
  return XHAL_OK;
}

static xhal_status stream_destroy(xhal_stream* stream) { return end(stream); }

static xhal_status stream_copy(xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size) {
  (void)stream;
  memcpy((void*)(uintptr_t)dst, (const void*)(uintptr_t)src, size);
  return XHAL_OK;
}

static xhal_status stream_fill(xhal_stream* stream, uint64_t dst, uint64_t size, uint64_t pattern,
                               uint32_t width) {
  (void)stream;
  for (uint64_t i = 0; i < size; i += width) memcpy((char*)(uintptr_t)dst + i, &pattern, width);
  return XHAL_OK;
}

static xhal_status stream_host_call(xhal_stream* stream, xhal_host_fn callback, void* user,
                                    uint32_t flags) {
  (void)stream, (void)flags;
  callback(user, XHAL_OK);
  return XHAL_OK;
}

/* Without XHAL_CAP_WAIT_BEFORE_SIGNAL a value that comes here has been submitted, which means
 * reached on this device, or it has failed. */
static xhal_status stream_wait(xhal_stream* handle, xhal_timeline* timeline, uint64_t value) {
  struct stream* stream = (struct stream*)handle;
  xhal_error cause, error;
  memset(&cause, 0, sizeof cause);
  if (host.timeline_poll(timeline, value, &cause) == XHAL_OK) return XHAL_OK;
  memset(&error, 0, sizeof error);
  error.struct_size = sizeof error;
  error.status = XHAL_ERR_DEPENDENCY;
  error.scope = XHAL_SCOPE_OPERATION;
  error.cause = cause.cause != XHAL_OK ? cause.cause : cause.status; /* the origin */
  error.text = error.cause_text = cause.cause != XHAL_OK ? cause.cause_text : cause.text;
  host.timeline_fail(stream->timeline, &error);
  return host.error_set(&error);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static xhal_status stream_signal(xhal_stream* stream, xhal_timeline* timeline, uint64_t value,
                                 xhal_timestamp* timestamp) {
  (void)stream;
  if (timestamp != NULL) {
    timestamp->device_ns = now_ns();
    __atomic_store_n(&timestamp->slot, timestamp->pending, __ATOMIC_RELEASE);
  }
  host.timeline_advance(timeline, value);
  return XHAL_OK;
}

static xhal_status stream_recover(xhal_stream* handle, xhal_timeline* fresh) {
  ((struct stream*)handle)->timeline = fresh;
  return XHAL_OK;
}

static xhal_status op_launch(xhal_stream* stream, xhal_op* handle, const uint64_t* addresses,
                             uint32_t address_count, const xhal_scalar* scalars,
                             uint32_t scalar_count, uint64_t workspace) {
  const struct program* op = &((const struct op*)handle)->program;
  const uint32_t most = op->id == XHAL_OP_fill ? 1 : op->id == XHAL_OP_axpby ? 2 : 0;
  struct number values[2] = {whole(op->id == XHAL_OP_fill ? 0 : 1), whole(1)};
  (void)stream, (void)workspace;
  if (address_count != op->last + 1 || scalar_count > most)
    return refuse(XHAL_ERR_INVALID_ARGUMENT, 0, "not as many addresses or scalars as it has");
  for (uint32_t i = 0; i < scalar_count; ++i) {
    const xhal_scalar* s = &scalars[i];
    if (s->kind == XHAL_SCALAR_ADDRESS && !is_known(s->code, s->bits))
      return refuse(XHAL_ERR_UNSUPPORTED, 0, "a scalar of a dtype that is not known here");
    values[i] = s->kind == XHAL_SCALAR_INT ? whole(s->value.i)
                : s->kind == XHAL_SCALAR_FLOAT
                    ? real(s->value.f)
                    : load((const char*)(uintptr_t)s->value.address, s->code, s->bits);
  }
  run(op, addresses, values);
  return XHAL_OK;
}

/* ---- the device */

static xhal_status context_create(xhal_device* device, const xhal_context_info* info,
                                  xhal_context** context) {
  const xhal_status status = check(info, sizeof *info, info->next);
  if (status != XHAL_OK) return status;
  return add((struct device*)device, XHAL_KIND_CONTEXT, sizeof(struct object), (void**)context);
}

static xhal_status context_destroy(xhal_context* context) {
  struct device* device = device_of(context);
  pthread_mutex_lock(&device->lock);
  free_blocks(device, context, 0);
  pthread_mutex_unlock(&device->lock);
  return end(context);
}

static xhal_status device_close(xhal_device* handle) {
  struct device* device = (struct device*)handle;
  while (device->objects != NULL) end(device->objects);
  free_blocks(device, NULL, 0);
  pthread_mutex_destroy(&device->lock);
  host.object_free(device);
  return XHAL_OK;
}

static xhal_status device_clock(xhal_device* device, uint64_t* device_ns, uint64_t* host_ns) {
  (void)device;
  *device_ns = *host_ns = now_ns();
  return XHAL_OK;
}

static xhal_status device_limit(xhal_device* device, uint32_t key, uint64_t* value) {
  (void)device;
  if (key == XHAL_LIMIT_MEMORY_TOTAL_BYTES) return *value = kMemoryBytes, XHAL_OK;
  if (key == XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES) return *value = kAlignment, XHAL_OK;
  if (key == XHAL_LIMIT_COMPUTE_UNITS) return *value = 1, XHAL_OK;
  if (key == XHAL_LIMIT_STREAM_PRIORITIES) return *value = 1, XHAL_OK;
  return refuse(XHAL_ERR_UNSUPPORTED, 0, "this device does not know that limit");
}

/* ---- the plugin */

static void describe(xhal_device_info* info) {
  info->type = XHAL_DEVICE_EXTENSION;
  info->flags = XHAL_DEVICE_EMULATED;
  info->numa_node = -1;
  info->memory_bytes = kMemoryBytes;
  info->capabilities[0] =
      1u << XHAL_CAP_HOST_VISIBLE | 1u << XHAL_CAP_PAGEABLE_COPY | 1u << XHAL_CAP_TIMESTAMP;
  snprintf(info->name, sizeof info->name, "Example device in C");
  snprintf(info->vendor, sizeof info->vendor, "xHAL");
  memcpy(info->uuid, "xhal-example-c-0", sizeof info->uuid);
}

/* The records come zeroed. */
static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
  *count = 1;
  if (capacity > 0) describe(devices);
  return XHAL_OK;
}

static xhal_status device_open(const xhal_plugin_open* open, xhal_device_info* info,
                               xhal_device** result, xhal_context** context) {
  struct device* device;
  /* Chains came with 0.3: an older library gives a shorter structure. */
  const int has_chain = open->struct_size >= offsetof(xhal_plugin_open, next) + sizeof open->next;
  xhal_status status = check(open, sizeof *open, has_chain ? open->next : NULL);
  if (status == XHAL_OK)
    status = host.object_alloc(open->table, XHAL_KIND_DEVICE, sizeof *device, (void**)&device);
  if (status != XHAL_OK) return status;
  device->table = open->table;
  pthread_mutex_init(&device->lock, NULL);
  describe(info);
  *result = (xhal_device*)device;
  if ((open->flags & XHAL_OPEN_OBSERVE) != 0) return XHAL_OK;
  return add(device, XHAL_KIND_CONTEXT, sizeof(struct object), (void**)context);
}

static const xhal_dispatch kSlots = {.struct_size = sizeof(xhal_dispatch),
                                     .minor = XHAL_VERSION_MINOR,
                                     .device_close = device_close,
                                     .device_limit = device_limit,
                                     .device_clock = device_clock,
                                     .context_create = context_create,
                                     .context_destroy = context_destroy,
                                     .memory_alloc = memory_alloc,
                                     .memory_free = memory_free,
                                     .stream_create = stream_create,
                                     .stream_destroy = stream_destroy,
                                     .stream_copy = stream_copy,
                                     .stream_fill = stream_fill,
                                     .stream_host_call = stream_host_call,
                                     .stream_wait = stream_wait,
                                     .stream_signal = stream_signal,
                                     .stream_recover = stream_recover,
                                     .op_prepare = op_prepare,
                                     .op_query = op_query,
                                     .op_destroy = op_destroy,
                                     .op_launch = op_launch};

static const xhal_plugin_table kTable = {.struct_size = sizeof(xhal_plugin_table),
                                         .slots = &kSlots,
                                         .enumerate = enumerate,
                                         .device_open = device_open};

XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                           xhal_negotiate_reply* reply) {
  reply->abi_min = XHAL_VERSION_MAJOR << 16 | 1;
  reply->abi_max = XHAL_VERSION_MAJOR << 16 | XHAL_VERSION_MINOR;
#if defined(__SANITIZE_ADDRESS__)
  reply->sanitizer = XHAL_SANITIZER_ADDRESS;
#elif defined(__SANITIZE_THREAD__)
  reply->sanitizer = XHAL_SANITIZER_THREAD;
#endif
  snprintf(reply->build, sizeof reply->build, "example_c 0.1.0");
  if (request->abi_max < reply->abi_min || request->abi_min > reply->abi_max)
    return XHAL_ERR_VERSION;
  /* A library may have more services than this file knows, or fewer: those used here are of 0.1. */
  memcpy(&host, request->host,
         request->host->struct_size < sizeof host ? request->host->struct_size : sizeof host);
  reply->table = &kTable;
  return XHAL_OK;
}
