/* SPDX-License-Identifier: Apache-2.0 */
/* The headers in C11, alone and pedantic: a program that uses libxcoll without C++. */
#include <xcoll/xcoll.h>

#include <stdio.h>

int main(void) {
  xcoll_unique_id id;
  xcoll_comm* comm = NULL;
  xcoll_config config = {.struct_size = sizeof(config), .name = "header"};
  float value = 3.0f;
  if (xcoll_unique_id_create(&id) != XCOLL_OK ||
      xcoll_comm_init(&id, 1, 0, &config, &comm) != XCOLL_OK ||
      xcoll_all_reduce(comm, &value, &value, 1, XCOLL_F32, XCOLL_SUM, NULL) != XCOLL_OK) {
    fprintf(stderr, "%s\n", xcoll_last_error());
    return 1;
  }
  xcoll_comm_destroy(comm);
  return value == 3.0f ? 0 : 1;
}
