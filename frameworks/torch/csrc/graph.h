// SPDX-License-Identifier: Apache-2.0
// graph.h: torch.accelerator.Graph on xHAL's captures (graph.cpp).
#pragma once

#include <string>

namespace xhal_torch {

// Makes torch.accelerator.Graph find us under the name torch gives the device. Nothing with a torch
// that has no such graphs.
void register_graphs(const std::string& device_name);

}  // namespace xhal_torch
