/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/xhal.h: everything a framework needs, in C11. C++ frameworks include xhal.hpp. */
#ifndef XHAL_XHAL_H
#define XHAL_XHAL_H

#include "xhal/activity.h"
#include "xhal/base.h"
#include "xhal/catalog.h"
#include "xhal/comm.h"
#include "xhal/context.h"
#include "xhal/device.h"
#include "xhal/event.h"
#include "xhal/graph.h"
#include "xhal/init.h"
#include "xhal/memory.h"
#include "xhal/module.h"
#include "xhal/op.h"
#include "xhal/pool.h"
#include "xhal/status.h"
#include "xhal/stream.h"
#include "xhal/telemetry.h"
#include "xhal/timeline.h"

#endif
