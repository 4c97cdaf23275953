/* SPDX-License-Identifier: Apache-2.0 */
/* train_mlp.c: trains a small network on an xHAL device, in C11, with no framework.
 *
 * The task: two spirals wound into each other, and for every point of the plane the answer which of
 * them it belongs to. Two hidden layers learn it in a moment.
 *
 *   cc -std=c11 train_mlp.c -lxhal -lm -o train_mlp && ./train_mlp        the first device
 *   XHAL_VISIBLE_DEVICES=cpu ./train_mlp                                  another one
 *
 * What a program does with xHAL is here once each: open a device, take memory from a pool, prepare
 * operators for the shapes of the network, launch them on a stream, read results back.
 * Exit status: 0 when more than 95 % of new points are told apart, else 1.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xhal/xhal.h"

enum { kPoints = 512, kInputs = 2, kHidden = 64, kClasses = 2, kSteps = 400, kParameters = 6 };

/* Every call returns a status; the record of a failure says what, where, why and what to do next.
 */
static void check(xhal_status status, const char* what) {
  if (status >= 0) return;
  xhal_error error = {.struct_size = sizeof error};
  fprintf(stderr, "%s: %s (%s)\n", what, xhal_status_text(status), xhal_status_name(status));
  if (xhal_last_error(&error) == XHAL_OK)
    fprintf(stderr, "  %.*s\n", (int)error.text.size, error.text.data);
  exit(1);
}

/* ---- the device, and memory on it ---- */

static xhal_device* device;
static xhal_context* context;
static xhal_stream* stream;
static xhal_pool* pool;

static void open_device(void) {
  const xhal_init_info init = {.struct_size = sizeof init,
                               .version_major = XHAL_VERSION_MAJOR,
                               .version_minor = XHAL_VERSION_MINOR};
  check(xhal_init(&init), "xhal_init");
  const xhal_device_open_info open = {.struct_size = sizeof open, .index = 0};
  check(xhal_device_open(&open, &device, &context), "xhal_device_open");
  check(xhal_stream_create(context, NULL, &stream), "xhal_stream_create");
  check(xhal_pool_create(context, NULL, &pool), "xhal_pool_create");
  xhal_device_info info;
  check(xhal_device_query(device, &info), "xhal_device_query");
  printf("training on %s, %s\n", info.id, info.name);
}

/* A tensor is its description and an address on the device. */
typedef struct tensor {
  xhal_tensor_desc desc;
  uint64_t address;
} tensor;

static tensor describe(uint8_t code, uint8_t bits, uint32_t ndim, int64_t rows, int64_t columns) {
  tensor t = {.desc = {.code = code, .bits = bits, .lanes = 1, .ndim = ndim}};
  const int64_t sizes[2] = {ndim == 2 ? rows : columns, columns};
  for (uint32_t d = 0; d < ndim; ++d) {
    t.desc.sizes[d] = sizes[d];
    t.desc.strides[d] = d + 1 == ndim ? 1 : columns;
  }
  return t;
}

static tensor allocate(tensor t) {
  uint64_t bytes = t.desc.bits / 8;
  for (uint32_t d = 0; d < t.desc.ndim; ++d) bytes *= (uint64_t)t.desc.sizes[d];
  const xhal_string tag = {"train_mlp", 9};
  check(xhal_pool_alloc(pool, stream, bytes, tag, &t.address), "xhal_pool_alloc");
  check(xhal_stream_fill(stream, t.address, bytes, 0, 1), "xhal_stream_fill");
  return t;
}

static tensor matrix(int64_t rows, int64_t columns) {
  return allocate(describe(XHAL_CODE_FLOAT, 32, 2, rows, columns));
}
static tensor vector(int64_t size) { return allocate(describe(XHAL_CODE_FLOAT, 32, 1, 1, size)); }
static tensor number(void) { return allocate(describe(XHAL_CODE_FLOAT, 32, 0, 1, 1)); }

/* The same numbers, read the other way round: no copy, only strides. */
static tensor transposed(tensor t) {
  for (int field = 0; field < 2; ++field) {
    int64_t* pair = field == 0 ? t.desc.sizes : t.desc.strides;
    const int64_t first = pair[0];
    pair[0] = pair[1];
    pair[1] = first;
  }
  return t;
}

static void write_to(tensor t, const void* data, uint64_t bytes) {
  check(xhal_stream_copy(stream, t.address, (uint64_t)(uintptr_t)data, bytes),
        "copying to the device");
  check(xhal_stream_synchronize(stream, XHAL_FOREVER), "waiting for the copy");
}
static void read_from(tensor t, void* data, uint64_t bytes) {
  check(xhal_stream_copy(stream, (uint64_t)(uintptr_t)data, t.address, bytes),
        "copying to the host");
  check(xhal_stream_synchronize(stream, XHAL_FOREVER), "waiting for the copy");
}

/* ---- operators: prepared once, launched in every step ---- */

enum { kMaxOperands = 64 };
typedef struct step {
  xhal_op* op;
  uint64_t addresses[kMaxOperands];
  uint32_t operand_count;
  xhal_scalar scalars[2];
  uint32_t scalar_count;
  uint64_t workspace; /* what the operator wants for itself while it runs; 0 = nothing */
} step;

static step network[64];
static uint32_t step_count;

static step* add_step(const char* what, uint32_t id, const tensor* operands, const uint32_t* groups,
                      uint32_t group_count, const xhal_attribute* attributes,
                      uint32_t attribute_count) {
  step* s = &network[step_count++];
  xhal_tensor_desc descs[kMaxOperands];
  for (uint32_t g = 0; g < group_count; ++g) s->operand_count += groups[g];
  for (uint32_t i = 0; i < s->operand_count; ++i) {
    descs[i] = operands[i].desc;
    s->addresses[i] = operands[i].address;
  }
  const xhal_op_info info = {.struct_size = sizeof info,
                             .id = id,
                             .attribute_count = attribute_count,
                             .attributes = attributes,
                             .group_count = group_count,
                             .operand_count = s->operand_count,
                             .group_sizes = groups,
                             .operands = descs};
  check(xhal_op_prepare(context, &info, &s->op), what);
  xhal_op_properties properties = {.struct_size = sizeof properties};
  check(xhal_op_query(s->op, &properties, NULL, 0), what);
  const xhal_string tag = {"workspace", 9};
  check(xhal_pool_alloc(pool, stream, properties.workspace_bytes, tag, &s->workspace), what);
  return s;
}

static void run_steps(uint32_t first, uint32_t end) {
  for (uint32_t i = first; i < end; ++i) {
    const step* s = &network[i];
    check(xhal_op_launch(stream, s->op, s->addresses, s->operand_count, s->scalars, s->scalar_count,
                         s->workspace),
          "launching a step");
  }
}

/* out = in * weight + bias, then relu if asked for. Groups of gemm: a, b, c (absent), bias; out. */
static void add_layer(tensor in, tensor weight, tensor bias, tensor out, int relu) {
  const tensor operands[] = {in, weight, bias, out};
  const uint32_t groups[] = {1, 1, 0, 1, 1};
  const xhal_attribute activation = {
      .index = 0, .kind = XHAL_ATTR_INT, .value.i = relu, .count = 1};
  add_step("preparing a layer", XHAL_OP_gemm, operands, groups, 5, &activation, 1);
}
static void add_product(tensor a, tensor b, tensor out) {
  const tensor operands[] = {a, b, out};
  const uint32_t groups[] = {1, 1, 0, 0, 1};
  add_step("preparing a product", XHAL_OP_gemm, operands, groups, 5, NULL, 0);
}
/* The gradients of a layer's weight and bias, from that of its output. */
static void add_gradients(tensor in, tensor grad, tensor dweight, tensor dbias) {
  add_product(transposed(in), grad, dweight);
  const tensor operands[] = {grad, dbias};
  const uint32_t groups[] = {1, 1};
  const int64_t rows = 0;
  const xhal_attribute dims = {.index = 0, .kind = XHAL_ATTR_INTS, .value.ints = &rows, .count = 1};
  add_step("preparing a sum", XHAL_OP_sum, operands, groups, 2, &dims, 1);
}
/* The gradient before relu: nothing passes where relu gave 0. In place on `grad`. */
static void add_relu_gradient(tensor grad, tensor out) {
  const tensor operands[] = {grad, out, grad};
  const uint32_t groups[] = {1, 1, 1};
  add_step("preparing the gradient of relu", XHAL_OP_threshold_grad, operands, groups, 3, NULL, 0);
}

/* ---- the task ---- */

static uint32_t random_state = 1;
static float random_number(void) { /* in [-1, 1) */
  random_state = random_state * 1664525u + 1013904223u;
  return (float)(random_state >> 8) / 8388608.0f - 1.0f;
}

static void make_spirals(float* points, int64_t* classes) {
  for (int i = 0; i < kPoints; ++i) {
    const float along = (float)(i / 2) / (kPoints / 2);
    const float angle = 12.0f * along + (i % 2 == 0 ? 0.0f : 3.14159265f) + 0.1f * random_number();
    const float radius = 0.2f + 0.8f * along;
    points[2 * i] = radius * cosf(angle);
    points[2 * i + 1] = radius * sinf(angle);
    classes[i] = i % 2;
  }
}

static float accuracy(const float* scores, const int64_t* classes) {
  int right = 0;
  for (int i = 0; i < kPoints; ++i)
    right += (scores[2 * i + 1] > scores[2 * i]) == (classes[i] == 1);
  return (float)right / kPoints;
}

int main(void) {
  open_device();

  /* The network: parameters in the order weight, bias, weight, bias, ...; each with its gradient
   * and what AdamW remembers of it. */
  const int64_t sizes[] = {kInputs, kHidden, kHidden, kClasses};
  tensor parameters[kParameters], grads[kParameters], first[kParameters], second[kParameters],
      steps[kParameters];
  for (int i = 0; i < kParameters; ++i) {
    const int64_t rows = sizes[i / 2], columns = sizes[i / 2 + 1];
    tensor* all[] = {&parameters[i], &grads[i], &first[i], &second[i]};
    for (int k = 0; k < 4; ++k) *all[k] = i % 2 == 0 ? matrix(rows, columns) : vector(columns);
    steps[i] = number();
    if (i % 2 == 1) continue; /* biases begin at zero */
    float values[kHidden * kHidden];
    for (int64_t k = 0; k < rows * columns; ++k)
      values[k] = random_number() * sqrtf(3.0f / (float)rows);
    write_to(parameters[i], values, (uint64_t)(rows * columns) * sizeof values[0]);
  }
  const tensor points = matrix(kPoints, kInputs);
  const tensor classes = allocate(describe(XHAL_CODE_INT, 64, 1, 1, kPoints));
  const tensor hidden1 = matrix(kPoints, kHidden), hidden2 = matrix(kPoints, kHidden);
  const tensor scores = matrix(kPoints, kClasses), log_sum = vector(kPoints), loss = number();
  const tensor dscores = matrix(kPoints, kClasses), dloss = number();
  const tensor dhidden2 = matrix(kPoints, kHidden), dhidden1 = matrix(kPoints, kHidden);
  const float one = 1.0f;
  write_to(dloss, &one, sizeof one);

  /* Forward. */
  add_layer(points, parameters[0], parameters[1], hidden1, 1);
  add_layer(hidden1, parameters[2], parameters[3], hidden2, 1);
  add_layer(hidden2, parameters[4], parameters[5], scores, 0);
  const uint32_t forward_end = step_count;
  {
    const tensor operands[] = {scores, classes, loss, log_sum};
    const uint32_t groups[] = {1, 1, 1, 1};
    add_step("preparing the loss", XHAL_OP_cross_entropy, operands, groups, 4, NULL, 0);
  }
  /* Backward. */
  {
    const tensor operands[] = {dloss, scores, classes, log_sum, dscores};
    const uint32_t groups[] = {1, 1, 1, 1, 1};
    add_step("preparing the gradient of the loss", XHAL_OP_cross_entropy_grad, operands, groups, 5,
             NULL, 0);
  }
  add_gradients(hidden2, dscores, grads[4], grads[5]);
  add_product(dscores, transposed(parameters[4]), dhidden2);
  add_relu_gradient(dhidden2, hidden2);
  add_gradients(hidden1, dhidden2, grads[2], grads[3]);
  add_product(dhidden2, transposed(parameters[2]), dhidden1);
  add_relu_gradient(dhidden1, hidden1);
  add_gradients(points, dhidden1, grads[0], grads[1]);
  /* Update: AdamW for all parameters at once, in place. Its groups: parameters, gradients, two
   * moments, (amsgrad's maxima), steps, (found_inf); then the outputs, which are the same tensors.
   */
  {
    tensor operands[9 * kParameters];
    const tensor* lists[] = {parameters, grads, first,  second, steps,
                             parameters, first, second, steps};
    for (int k = 0; k < 9; ++k) memcpy(&operands[k * kParameters], lists[k], sizeof parameters);
    const uint32_t n = kParameters, groups[] = {n, n, n, n, 0, n, 0, n, n, n, 0, n};
    step* s = add_step("preparing AdamW", XHAL_OP_multi_adamw, operands, groups, 12, NULL, 0);
    s->scalars[0] = (xhal_scalar){
        .kind = XHAL_SCALAR_FLOAT, .code = XHAL_CODE_FLOAT, .bits = 64, .value.f = 1e-2};
    s->scalar_count = 1; /* lr; the others have the catalogue's defaults */
  }

  static float plane[kPoints * kInputs], answers[kPoints * kClasses];
  static int64_t labels[kPoints];
  make_spirals(plane, labels);
  write_to(points, plane, sizeof plane);
  write_to(classes, labels, sizeof labels);
  for (int i = 0; i <= kSteps; ++i) {
    run_steps(0, step_count);
    if (i % 50 != 0) continue;
    float value = 0;
    read_from(loss, &value, sizeof value);
    printf("step %3d  loss %.4f\n", i, value);
  }

  make_spirals(plane, labels); /* new points of the same spirals */
  write_to(points, plane, sizeof plane);
  run_steps(0, forward_end);
  read_from(scores, answers, sizeof answers);
  const float right = accuracy(answers, labels);
  printf("accuracy on new points: %.1f %%\n", 100.0f * right);

  for (uint32_t i = 0; i < step_count; ++i)
    check(xhal_op_destroy(network[i].op), "xhal_op_destroy");
  check(xhal_device_close(device), "xhal_device_close"); /* with its pools and streams */
  check(xhal_shutdown(), "xhal_shutdown");
  return right > 0.95f ? 0 : 1;
}
