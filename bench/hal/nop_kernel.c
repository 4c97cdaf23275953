/* SPDX-License-Identifier: Apache-2.0 */
/* nop_kernel.c: an empty kernel, for the cpu plugin's modules: what PoCL's empty kernel is to PoCL.
 */
#include <stdint.h>

__attribute__((visibility("default"))) void nop(const uint64_t* arguments, const uint32_t* group,
                                                const uint32_t* group_size) {
  (void)arguments, (void)group, (void)group_size;
}
