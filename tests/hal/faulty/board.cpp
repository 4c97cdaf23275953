// SPDX-License-Identifier: Apache-2.0
#include "board.hpp"

xhal::faulty::Board* xhal_faulty_board() {
  static auto* const board = new xhal::faulty::Board;  // outlives static destructors
  return board;
}
