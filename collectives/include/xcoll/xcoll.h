/* SPDX-License-Identifier: Apache-2.0 */
/* xcoll/xcoll.h: all of libxcoll: collective operations between ranks, on host and
 * on device memory. */
#ifndef XCOLL_XCOLL_H_
#define XCOLL_XCOLL_H_

#include "xcoll/collective.h"
#include "xcoll/comm.h"
#include "xcoll/group.h"
#include "xcoll/status.h"
#include "xcoll/types.h"

#endif /* XCOLL_XCOLL_H_ */
