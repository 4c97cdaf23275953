/* SPDX-License-Identifier: Apache-2.0 */
/* driver.c: a Level Zero driver whose functions do nothing, so that what is measured is the loader
 * and its layers, not a device.
 *
 * A test driver for Level Zero's own loader (ZE_ENABLE_ALT_DRIVERS names it): one driver with one
 * device, contexts and command lists, of which two calls can be appended: a barrier and a copy.
 * The loader wants a getter for every table of its API; those at the end leave theirs empty, which
 * means "not supported".
 */
#include <level_zero/ze_api.h>
#include <level_zero/ze_ddi.h>
#include <level_zero/zes_ddi.h>
#include <level_zero/zet_ddi.h>
#include <stddef.h>
#include <string.h>

/* Handles are addresses that nobody looks behind: there is one object of each kind. */
static char driver, device, context, list;

static ze_result_t one(void* object, uint32_t* count, void** handles) {
  if (handles != NULL && *count > 0) handles[0] = object;
  *count = 1;
  return ZE_RESULT_SUCCESS;
}

static ze_result_t init(ze_init_flags_t flags) {
  (void)flags;
  return ZE_RESULT_SUCCESS;
}

static ze_result_t driver_get(uint32_t* count, ze_driver_handle_t* drivers) {
  return one(&driver, count, (void**)drivers);
}
static ze_result_t driver_version(ze_driver_handle_t handle, ze_api_version_t* version) {
  (void)handle;
  *version = ZE_API_VERSION_1_3;
  return ZE_RESULT_SUCCESS;
}

static ze_result_t device_get(ze_driver_handle_t handle, uint32_t* count,
                              ze_device_handle_t* devices) {
  (void)handle;
  return one(&device, count, (void**)devices);
}
static ze_result_t device_properties(ze_device_handle_t handle,
                                     ze_device_properties_t* properties) {
  (void)handle;
  properties->type = ZE_DEVICE_TYPE_GPU; /* a loader may leave out what is none */
  strcpy(properties->name, "Does nothing");
  return ZE_RESULT_SUCCESS;
}

static ze_result_t context_create(ze_driver_handle_t handle, const ze_context_desc_t* desc,
                                  ze_context_handle_t* made) {
  (void)handle, (void)desc;
  *made = (ze_context_handle_t)(void*)&context;
  return ZE_RESULT_SUCCESS;
}
static ze_result_t context_destroy(ze_context_handle_t handle) {
  (void)handle;
  return ZE_RESULT_SUCCESS;
}

static ze_result_t list_create(ze_context_handle_t in, ze_device_handle_t of,
                               const ze_command_list_desc_t* desc, ze_command_list_handle_t* made) {
  (void)in, (void)of, (void)desc;
  *made = (ze_command_list_handle_t)(void*)&list;
  return ZE_RESULT_SUCCESS;
}
static ze_result_t list_destroy(ze_command_list_handle_t handle) {
  (void)handle;
  return ZE_RESULT_SUCCESS;
}
static ze_result_t append_barrier(ze_command_list_handle_t handle, ze_event_handle_t signal,
                                  uint32_t count, ze_event_handle_t* waits) {
  (void)handle, (void)signal, (void)count, (void)waits;
  return ZE_RESULT_SUCCESS;
}
static ze_result_t append_copy(ze_command_list_handle_t handle, void* to, const void* from,
                               size_t size, ze_event_handle_t signal, uint32_t count,
                               ze_event_handle_t* waits) {
  (void)handle, (void)to, (void)from, (void)size, (void)signal, (void)count, (void)waits;
  return ZE_RESULT_SUCCESS;
}

ZE_DLLEXPORT ze_result_t zeGetGlobalProcAddrTable(ze_api_version_t version,
                                                  ze_global_dditable_t* table) {
  (void)version;
  table->pfnInit = init;
  return ZE_RESULT_SUCCESS;
}
ZE_DLLEXPORT ze_result_t zeGetDriverProcAddrTable(ze_api_version_t version,
                                                  ze_driver_dditable_t* table) {
  (void)version;
  table->pfnGet = driver_get;
  table->pfnGetApiVersion = driver_version;
  return ZE_RESULT_SUCCESS;
}
ZE_DLLEXPORT ze_result_t zeGetDeviceProcAddrTable(ze_api_version_t version,
                                                  ze_device_dditable_t* table) {
  (void)version;
  table->pfnGet = device_get;
  table->pfnGetProperties = device_properties;
  return ZE_RESULT_SUCCESS;
}
ZE_DLLEXPORT ze_result_t zeGetContextProcAddrTable(ze_api_version_t version,
                                                   ze_context_dditable_t* table) {
  (void)version;
  table->pfnCreate = context_create;
  table->pfnDestroy = context_destroy;
  return ZE_RESULT_SUCCESS;
}
ZE_DLLEXPORT ze_result_t zeGetCommandListProcAddrTable(ze_api_version_t version,
                                                       ze_command_list_dditable_t* table) {
  (void)version;
  table->pfnCreate = list_create;
  table->pfnDestroy = list_destroy;
  table->pfnAppendBarrier = append_barrier;
  table->pfnAppendMemoryCopy = append_copy;
  return ZE_RESULT_SUCCESS;
}

#define EMPTY_TABLE(getter, type)                                          \
  ZE_DLLEXPORT ze_result_t getter(ze_api_version_t version, type* table) { \
    (void)version, (void)table;                                            \
    return ZE_RESULT_SUCCESS;                                              \
  }
EMPTY_TABLE(zeGetDeviceExpProcAddrTable, ze_device_exp_dditable_t)
EMPTY_TABLE(zeGetCommandQueueProcAddrTable, ze_command_queue_dditable_t)
EMPTY_TABLE(zeGetImageProcAddrTable, ze_image_dditable_t)
EMPTY_TABLE(zeGetImageExpProcAddrTable, ze_image_exp_dditable_t)
EMPTY_TABLE(zeGetFenceProcAddrTable, ze_fence_dditable_t)
EMPTY_TABLE(zeGetEventPoolProcAddrTable, ze_event_pool_dditable_t)
EMPTY_TABLE(zeGetEventProcAddrTable, ze_event_dditable_t)
EMPTY_TABLE(zeGetEventExpProcAddrTable, ze_event_exp_dditable_t)
EMPTY_TABLE(zeGetModuleProcAddrTable, ze_module_dditable_t)
EMPTY_TABLE(zeGetModuleBuildLogProcAddrTable, ze_module_build_log_dditable_t)
EMPTY_TABLE(zeGetKernelProcAddrTable, ze_kernel_dditable_t)
EMPTY_TABLE(zeGetKernelExpProcAddrTable, ze_kernel_exp_dditable_t)
EMPTY_TABLE(zeGetSamplerProcAddrTable, ze_sampler_dditable_t)
EMPTY_TABLE(zeGetPhysicalMemProcAddrTable, ze_physical_mem_dditable_t)
EMPTY_TABLE(zeGetMemProcAddrTable, ze_mem_dditable_t)
EMPTY_TABLE(zeGetVirtualMemProcAddrTable, ze_virtual_mem_dditable_t)
EMPTY_TABLE(zeGetFabricVertexExpProcAddrTable, ze_fabric_vertex_exp_dditable_t)
EMPTY_TABLE(zeGetFabricEdgeExpProcAddrTable, ze_fabric_edge_exp_dditable_t)
EMPTY_TABLE(zetGetDeviceProcAddrTable, zet_device_dditable_t)
EMPTY_TABLE(zetGetContextProcAddrTable, zet_context_dditable_t)
EMPTY_TABLE(zetGetCommandListProcAddrTable, zet_command_list_dditable_t)
EMPTY_TABLE(zetGetModuleProcAddrTable, zet_module_dditable_t)
EMPTY_TABLE(zetGetKernelProcAddrTable, zet_kernel_dditable_t)
EMPTY_TABLE(zetGetMetricGroupProcAddrTable, zet_metric_group_dditable_t)
EMPTY_TABLE(zetGetMetricGroupExpProcAddrTable, zet_metric_group_exp_dditable_t)
EMPTY_TABLE(zetGetMetricProcAddrTable, zet_metric_dditable_t)
EMPTY_TABLE(zetGetMetricStreamerProcAddrTable, zet_metric_streamer_dditable_t)
EMPTY_TABLE(zetGetMetricQueryPoolProcAddrTable, zet_metric_query_pool_dditable_t)
EMPTY_TABLE(zetGetMetricQueryProcAddrTable, zet_metric_query_dditable_t)
EMPTY_TABLE(zetGetTracerExpProcAddrTable, zet_tracer_exp_dditable_t)
EMPTY_TABLE(zetGetDebugProcAddrTable, zet_debug_dditable_t)
EMPTY_TABLE(zesGetDriverProcAddrTable, zes_driver_dditable_t)
EMPTY_TABLE(zesGetDeviceProcAddrTable, zes_device_dditable_t)
EMPTY_TABLE(zesGetSchedulerProcAddrTable, zes_scheduler_dditable_t)
EMPTY_TABLE(zesGetPerformanceFactorProcAddrTable, zes_performance_factor_dditable_t)
EMPTY_TABLE(zesGetPowerProcAddrTable, zes_power_dditable_t)
EMPTY_TABLE(zesGetFrequencyProcAddrTable, zes_frequency_dditable_t)
EMPTY_TABLE(zesGetEngineProcAddrTable, zes_engine_dditable_t)
EMPTY_TABLE(zesGetStandbyProcAddrTable, zes_standby_dditable_t)
EMPTY_TABLE(zesGetFirmwareProcAddrTable, zes_firmware_dditable_t)
EMPTY_TABLE(zesGetMemoryProcAddrTable, zes_memory_dditable_t)
EMPTY_TABLE(zesGetFabricPortProcAddrTable, zes_fabric_port_dditable_t)
EMPTY_TABLE(zesGetTemperatureProcAddrTable, zes_temperature_dditable_t)
EMPTY_TABLE(zesGetPsuProcAddrTable, zes_psu_dditable_t)
EMPTY_TABLE(zesGetFanProcAddrTable, zes_fan_dditable_t)
EMPTY_TABLE(zesGetLedProcAddrTable, zes_led_dditable_t)
EMPTY_TABLE(zesGetRasProcAddrTable, zes_ras_dditable_t)
EMPTY_TABLE(zesGetDiagnosticsProcAddrTable, zes_diagnostics_dditable_t)
