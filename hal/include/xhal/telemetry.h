/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/telemetry.h: what a device tells about itself while it runs, and the control table.
 *
 * Readings are asked for by id and come as samples. A reading a device does not have is absent
 * (valid bit clear), never zero; a reading that is computed instead of measured says `modelled`.
 */
#ifndef XHAL_TELEMETRY_H
#define XHAL_TELEMETRY_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

/* X(name, id, unit). Append only. Counters only grow. */
#define XHAL_TELEMETRY_LIST(X)      \
  X(MEMORY_TOTAL_BYTES, 1, BYTES)   \
  X(MEMORY_USED_BYTES, 2, BYTES)    \
  X(UTILIZATION, 3, RATIO)          \
  X(TEMPERATURE, 4, CELSIUS)        \
  X(POWER, 5, WATTS)                \
  X(POWER_CAP, 6, WATTS)            \
  X(ENERGY, 7, JOULES)              \
  X(CLOCK, 8, HERTZ)                \
  X(HEALTH, 9, STATE)               \
  X(OPERATIONS, 10, COUNT)          \
  X(COPY_BYTES, 11, BYTES)          \
  X(BUSY_NS, 12, NANOSECONDS)       \
  X(STREAMS, 13, COUNT)             \
  X(ERRORS_CORRECTED, 14, COUNT)    \
  X(ERRORS_UNCORRECTED, 15, COUNT)  \
  X(RESETS, 16, COUNT)              \
  X(LINK_TRANSMIT_BYTES, 17, BYTES) \
  X(LINK_RECEIVE_BYTES, 18, BYTES)

enum {
#define XHAL_TELEMETRY_ENUM(name, id, unit) XHAL_TELEMETRY_##name = id,
  XHAL_TELEMETRY_LIST(XHAL_TELEMETRY_ENUM)
#undef XHAL_TELEMETRY_ENUM
};

enum {
  XHAL_UNIT_BYTES = 1,
  XHAL_UNIT_RATIO = 2,
  XHAL_UNIT_CELSIUS = 3,
  XHAL_UNIT_WATTS = 4,
  XHAL_UNIT_JOULES = 5,
  XHAL_UNIT_HERTZ = 6,
  XHAL_UNIT_STATE = 7, /* 0 ok, 1 degraded, 2 lost, 3 removed */
  XHAL_UNIT_COUNT = 8,
  XHAL_UNIT_NANOSECONDS = 9
};

enum { XHAL_SAMPLE_VALID = 1u << 0, XHAL_SAMPLE_MODELLED = 1u << 1 };

/* One reading. The caller sets `id` and `instance`. An instance the device does not have
 * is absent. Frozen. */
typedef struct xhal_sample {
  uint32_t id;
  uint32_t unit;
  uint32_t flags;
  uint32_t instance; /* since 0.3: which sensor, link or engine of the device; 0 = the first or only
                        one */
  double value;
} xhal_sample;

/* Fills `count` samples by their ids. An unknown or unavailable id leaves its valid bit clear.
 * Works on observed devices.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_device_telemetry(xhal_device* device, xhal_sample* samples,
                                           uint32_t count);

enum {
  XHAL_DEVICE_EVENT_HEALTH = 1,
  XHAL_DEVICE_EVENT_LINK = 2,
  XHAL_DEVICE_EVENT_RESET = 3,
  XHAL_DEVICE_EVENT_LOST = 4
};
/* One message on the events descriptor: read() gives whole records of this size. Frozen. */
typedef struct xhal_device_event {
  uint32_t kind;
  uint32_t severity; /* XHAL_LOG_* */
  uint64_t time_ns;  /* CLOCK_MONOTONIC */
  char text[112];
} xhal_device_event;

/* Gives a descriptor that delivers health, link and reset events without polling; the caller closes
 * it. Events nobody has asked for are dropped. Served by libxhal. Thread: any.   Blocks:
 * no.   Since: 0.1 */
XHAL_API xhal_status xhal_device_events_fd(xhal_device* device, int32_t* fd);

/* Control, only for devices opened with XHAL_OPEN_CONTROL (else PERMISSION). A plugin leaves NULL
 * what it does not support; the table a program gets is libxhal's copy, whose members are never
 * NULL (they answer UNSUPPORTED) and answer FORKED, SHUTDOWN and DEVICE_LOST as every other call
 * does. All members: thread any; errors UNSUPPORTED, INVALID_ARGUMENT, the device's own.
 *   reset          stops all work, loses the device (its handles answer DEVICE_LOST) and makes it
 *                  ready for a new open. Blocks until the device has stopped.
 *   set_power_cap  watts > 0, within the device's range. Blocks in the driver.
 *   inject         a fault by name, for tests; the plugin's documentation lists its names ("lost"
 *                  loses the device, "operation" fails the next operation; else NOT_FOUND with the
 *                  names in the text, so that "" asks for them). Does not block.
 * A plugin whose resets and faults reach this process only answers UNSUPPORTED with that reason
 * through an open with XHAL_OPEN_OBSERVE, which never has work to stop: a tool that said "done"
 * there would have done nothing. */
typedef struct xhal_control_table {
  uint32_t struct_size;
  uint32_t reserved0;
  xhal_status (*reset)(xhal_device* device);
  xhal_status (*set_power_cap)(xhal_device* device, double watts);
  xhal_status (*inject)(xhal_device* device, xhal_string fault);
} xhal_control_table;
XHAL_API xhal_status xhal_device_control_table(xhal_device* device,
                                               const xhal_control_table** table);

XHAL_EXTERN_C_END
#endif
