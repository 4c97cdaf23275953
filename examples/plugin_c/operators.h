/* SPDX-License-Identifier: Apache-2.0 */
/* operators.h: what the device computes: fill, strided_copy and axpby in f32, i32 and i64, one
 * element at a time. xhal/ops.inc says what each operator means. */
#ifndef EXAMPLE_OPERATORS_H
#define EXAMPLE_OPERATORS_H

#include <stdint.h>
#include <string.h>

#include "xhal/catalog.h"
#include "xhal/plugin.h"

/* A prepared operator. */
struct program {
  uint32_t id, last; /* the output is the last operand */
  xhal_tensor_desc operands[3];
};

/* Sets the thread's error record and returns `status`. */
xhal_status refuse(xhal_status status, uint32_t operand, const char* text);

/* One element: the catalogue computes integers as i64. */
struct number {
  int whole;
  int64_t i;
  double f;
};
static struct number whole(int64_t i) {
  const struct number n = {1, i, 0};
  return n;
}
static struct number real(double f) {
  const struct number n = {0, 0, f};
  return n;
}
static int64_t integer(struct number n) {
  if (n.whole) return n.i;
  return n.f >= -0x1p63 && n.f < 0x1p63 ? (int64_t)n.f : INT64_MIN;
}
static float f32(struct number n) { return n.whole ? (float)n.i : (float)n.f; }

static int is_known(uint8_t code, uint8_t bits) {
  return (code == XHAL_CODE_FLOAT && bits == 32) ||
         (code == XHAL_CODE_INT && (bits == 32 || bits == 64));
}

/* The dtypes that the catalogue gives these operators, "A+f64+u32" and for axpby "N+f64": others
 * are an invalid argument, whatever the device. */
static int is_in_catalogue(uint32_t op, uint8_t code, uint8_t bits) {
  switch (code) {
    case XHAL_CODE_FLOAT:
      return bits == 16 || bits == 32 || bits == 64;
    case XHAL_CODE_BFLOAT:
      return bits == 16;
    case XHAL_CODE_INT:
      return bits == 8 || bits == 16 || bits == 32 || bits == 64;
    case XHAL_CODE_UINT:
      return bits == 8 || (bits == 32 && op != XHAL_OP_axpby);
    case XHAL_CODE_BOOL:
      return bits == 8 && op != XHAL_OP_axpby;
  }
  return 0;
}

static struct number load(const char* from, uint8_t code, uint8_t bits) {
  float f;
  int32_t narrow;
  int64_t wide;
  if (code == XHAL_CODE_FLOAT) return memcpy(&f, from, sizeof f), real(f);
  if (bits == 32) return memcpy(&narrow, from, sizeof narrow), whole(narrow);
  return memcpy(&wide, from, sizeof wide), whole(wide);
}

static void store(char* to, const xhal_tensor_desc* t, struct number n) {
  const float f = f32(n);
  const int64_t i = integer(n); /* little-endian: the low bytes */
  if (t->code == XHAL_CODE_FLOAT)
    memcpy(to, &f, sizeof f);
  else
    memcpy(to, &i, t->bits / 8);
}

static struct number axpby(struct number alpha, struct number x, struct number beta,
                           struct number y) {
  if (!x.whole) return real(f32(alpha) * f32(x) + f32(beta) * f32(y));
  return whole((int64_t)((uint64_t)integer(alpha) * (uint64_t)x.i +
                         (uint64_t)integer(beta) * (uint64_t)y.i));
}

static int64_t count_of(const struct program* op) {
  int64_t count = 1;
  for (uint32_t d = 0; d < op->operands[op->last].ndim; ++d)
    count *= op->operands[op->last].sizes[d];
  return count;
}

static char* place(const struct program* op, uint32_t i, const uint64_t* addresses,
                   const int64_t* index) {
  const xhal_tensor_desc* t = &op->operands[i];
  int64_t elements = t->offset_elements;
  for (uint32_t d = 0; d < t->ndim; ++d) elements += index[d] * t->strides[d];
  return (char*)(uintptr_t)addresses[i] + elements * t->bits / 8;
}

static void run(const struct program* op, const uint64_t* addresses, const struct number* scalars) {
  const xhal_tensor_desc *first = &op->operands[0], *second = &op->operands[1];
  const xhal_tensor_desc* out = &op->operands[op->last];
  int64_t index[XHAL_MAX_DIMENSIONS] = {0};
  for (int64_t n = count_of(op); n > 0; --n) {
    struct number value = scalars[0];
    if (op->id != XHAL_OP_fill)
      value = load(place(op, 0, addresses, index), first->code, first->bits);
    if (op->id == XHAL_OP_axpby) {
      const struct number y = op->last == 2
                                  ? load(place(op, 1, addresses, index), second->code, second->bits)
                                  : whole(1);
      value = axpby(scalars[0], value, scalars[1], y);
    }
    store(place(op, op->last, addresses, index), out, value);
    for (uint32_t d = out->ndim; d-- > 0 && ++index[d] == out->sizes[d];) index[d] = 0;
  }
}

static xhal_status check_operand(const xhal_op_info* info, uint32_t i) {
  const xhal_tensor_desc *t = &info->operands[i], *out = &info->operands[info->operand_count - 1];
  if (!is_in_catalogue(info->id, t->code, t->bits))
    return refuse(XHAL_ERR_INVALID_ARGUMENT, i + 1, "operand of a dtype that the operator has not");
  if (!is_known(t->code, t->bits) || t->lanes != 1 || t->layout != 0)
    return refuse(XHAL_ERR_UNSUPPORTED, i + 1,
                  "operand of a dtype or layout that is not known here");
  if (info->id == XHAL_OP_axpby && (t->code != out->code || t->bits != out->bits))
    return refuse(XHAL_ERR_INVALID_ARGUMENT, i + 1, "operand of another dtype than the output");
  if (t->ndim != out->ndim || t->ndim > XHAL_MAX_DIMENSIONS)
    return refuse(XHAL_ERR_INVALID_ARGUMENT, i + 1, "operand of another rank than the output");
  for (uint32_t d = 0; d < t->ndim; ++d) {
    if (t->sizes[d] < 0 || t->sizes[d] != out->sizes[d])
      return refuse(XHAL_ERR_INVALID_ARGUMENT, i + 1, "operand of other sizes than the output");
  }
  return XHAL_OK;
}

static xhal_status prepare(const xhal_op_info* info, struct program* program) {
  const uint32_t groups = info->id == XHAL_OP_fill           ? 1
                          : info->id == XHAL_OP_strided_copy ? 2
                          : info->id == XHAL_OP_axpby        ? 3
                                                             : 0;
  if (groups == 0) return refuse(XHAL_ERR_UNSUPPORTED, 0, "this plugin has no such operator");
  int right = info->group_count == groups;
  for (uint32_t g = 0; right && g < groups; ++g)
    right = info->group_sizes[g] == 1 || (groups == 3 && g == 1 && info->group_sizes[g] == 0);
  if (!right) return refuse(XHAL_ERR_INVALID_ARGUMENT, 0, "the groups are not the catalogue's");
  for (uint32_t i = 0; i < info->operand_count; ++i) {
    const xhal_status status = check_operand(info, i);
    if (status != XHAL_OK) return status;
  }
  program->id = info->id;
  program->last = info->operand_count - 1;
  memcpy(program->operands, info->operands, info->operand_count * sizeof *info->operands);
  return XHAL_OK;
}

#endif
