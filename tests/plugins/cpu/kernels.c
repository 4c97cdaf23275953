/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.c: a module for the tests: what a vendor of kernels for the cpu plugin would write. */
#include <stdint.h>

#define KERNEL __attribute__((visibility("default"))) void

/* out[number of this group] = base + number of this group */
KERNEL count_groups(const uint64_t* args, const uint32_t* group, const uint32_t* groups) {
  const uint32_t number = group[0] + groups[0] * (group[1] + groups[1] * group[2]);
  ((uint32_t*)args[0])[number] = (uint32_t)args[1] + number;
}

/* out[i] = 2 * table[i], carried through two pieces of local memory */
KERNEL through_local(const uint64_t* args, const uint32_t* group, const uint32_t* groups) {
  const float* table = (const float*)args[1];
  float* first = (float*)args[2];
  float* second = (float*)args[3];
  (void)groups;
  first[0] = table[group[0]];
  second[24] = first[0];
  ((float*)args[0])[group[0]] = first[0] + second[24];
}

/* out[0] = how often this module has been asked */
KERNEL next_number(const uint64_t* args, const uint32_t* group, const uint32_t* groups) {
  static uint32_t number;
  (void)group, (void)groups;
  ((uint32_t*)args[0])[0] = ++number;
}
