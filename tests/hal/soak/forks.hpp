// SPDX-License-Identifier: Apache-2.0
// forks.hpp: the steps that reach beyond their own thread: forked children, killed cards, callbacks
// that call the library.
#pragma once

#include "world.hpp"

namespace xhal::soak {

void forks(Lease& lease);
void losses(Lease& lease);
void callbacks(Lease& lease);
void close_shared_stream();

}  // namespace xhal::soak
