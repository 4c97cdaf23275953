/* SPDX-License-Identifier: Apache-2.0 */
/* xcoll/types.h: element types and reductions.
 *
 * A type's number is DLPack's: code << 8 | bits (code 0 int, 1 uint, 2 float, 4 bfloat, 6 bool).
 */
#ifndef XCOLL_TYPES_H_
#define XCOLL_TYPES_H_

#include <stdint.h>

#include "xcoll/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t xcoll_dtype;
enum {
  XCOLL_I8 = 0x0008,
  XCOLL_I32 = 0x0020,
  XCOLL_I64 = 0x0040,
  XCOLL_U8 = 0x0108,
  XCOLL_U32 = 0x0120,
  XCOLL_U64 = 0x0140,
  XCOLL_F16 = 0x0210,
  XCOLL_F32 = 0x0220,
  XCOLL_F64 = 0x0240,
  XCOLL_BF16 = 0x0410,
  XCOLL_BOOL = 0x0608
};

/* A result is the same bits on every rank: values are combined in rank order, f16 and bf16 in f32
 * and rounded once at the end. MIN and MAX hand NaN on. Integers wrap around. On bool, SUM and MAX
 * are "or", PROD and MIN are "and". */
typedef int32_t xcoll_reduction;
enum {
  XCOLL_SUM = 0,
  XCOLL_AVG = 1, /* floating point only: the sum divided by the number of ranks */
  XCOLL_MIN = 2,
  XCOLL_MAX = 3,
  XCOLL_PROD = 4,
  XCOLL_BAND = 5, /* the bit operations: integers and bool only */
  XCOLL_BOR = 6,
  XCOLL_BXOR = 7
};

/* The size of one element in bytes, 0 for a number that is no type.
 * Thread: any. Blocks: no. Since: 0.1 */
XCOLL_API uint64_t xcoll_dtype_bytes(xcoll_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif /* XCOLL_TYPES_H_ */
