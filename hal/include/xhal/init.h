/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/init.h: starting and stopping the library, its version, its log.
 *
 * xhal_init reads the plugin manifests and nothing else: no driver is called, no thread is started,
 * no descriptor stays open, so a process may fork afterwards and use the devices in the child.
 * Devices are initialised by xhal_device_open.
 */
#ifndef XHAL_INIT_H
#define XHAL_INIT_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

typedef struct xhal_init_info {
  uint32_t struct_size;
  uint32_t version_major;  /* XHAL_VERSION_MAJOR of the headers the caller was compiled with */
  uint32_t version_minor;  /* XHAL_VERSION_MINOR likewise; only told in texts: what a caller knows,
                              its struct_size fields say */
  uint32_t flags;          /* 0 */
  xhal_string plugin_path; /* searched before XHAL_PLUGIN_PATH: directories separated by ':';
                              usually empty */
} xhal_init_info;

/* Reads the manifests and makes the list of plugins. Counted: each successful call
 * needs one xhal_shutdown.
 *
 * `info` NULL: nothing is said of the caller.
 * Returns XHAL_OK (also when plugins were skipped: xhal_plugin_report tells), XHAL_ERR_VERSION when
 * the caller's headers are of another major, XHAL_ERR_FORKED in a child of a process that had open
 * devices, XHAL_ERR_SHUTDOWN when a shutdown is under way in another thread.
 * Thread: any.   Blocks: file reads.   Lifetime: until the matching xhal_shutdown.   Since: 0.1
 */
XHAL_API xhal_status xhal_init(const xhal_init_info* info);

/* Ends one xhal_init. The last one fails every waiter with XHAL_ERR_SHUTDOWN, closes the devices
 * and joins all threads; afterwards every call on an old handle returns XHAL_ERR_SHUTDOWN. Object
 * memory is kept, plugins stay mapped. A later xhal_init starts afresh.
 *
 * Returns XHAL_OK or XHAL_ERR_NOT_INITIALIZED.
 * Thread: any, not from a callback.   Blocks: until running work has stopped.   Since: 0.1
 */
XHAL_API xhal_status xhal_shutdown(void);

/* The version of this library: major << 16 | minor. Thread: any. Blocks: no. Since: 0.1 */
XHAL_API uint32_t xhal_version(void);

/* The build id of this library, a static string. Thread: any. Blocks: no. Since: 0.1 */
XHAL_API const char* xhal_build_id(void);

/* Finds an exported function by name, so that a caller compiled with newer headers runs on an older
 * library: unknown names give XHAL_ERR_UNSUPPORTED with both versions in the text. `function`
 * receives a pointer to a function.
 * Thread: any.   Blocks: no.   Lifetime: for ever.   Since: 0.1
 */
XHAL_API xhal_status xhal_get_proc(const char* name, void (**function)(void));

enum { XHAL_LOG_ERROR = 1, XHAL_LOG_WARN = 2, XHAL_LOG_INFO = 3, XHAL_LOG_DEBUG = 4 };
typedef void (*xhal_log_fn)(void* user, uint32_t level, xhal_string text);

/* Sends log lines of libxhal and the plugins to `callback` instead of stderr; NULL restores stderr.
 * The environment variable XHAL_LOG (off, error, warn, info, debug; default warn) sets the level of
 * what is produced at all. The callback may run on any thread, also concurrently, and must not call
 * xHAL. When this returns, no call of the callback it replaced is running or will come.
 * Thread: any, not from the callback.   Blocks: until running calls of the old callback have
 * returned.   Lifetime: `user` until replaced.   Since: 0.1
 */
XHAL_API xhal_status xhal_log_set(xhal_log_fn callback, void* user);

XHAL_EXTERN_C_END
#endif
