// SPDX-License-Identifier: Apache-2.0
// host_services.hpp: the table libxhal gives to plugins.
#pragma once

#include "xhal/host.h"

namespace xhal {

const xhal_host_services* host_services();

}  // namespace xhal
