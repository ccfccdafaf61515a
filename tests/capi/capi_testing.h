/* What the C tests share: a call's tensors as slices of fused ones with gaps between their rows, and checks. */
#ifndef LATHE_TESTS_CAPI_TESTING_H
#define LATHE_TESTS_CAPI_TESTING_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lathe/lathe.h"

static int failures;

#define EXPECT(condition, ...)                        \
  do {                                                \
    if (!(condition)) {                               \
      ++failures;                                     \
      fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
      fprintf(stderr, __VA_ARGS__);                   \
      fputc('\n', stderr);                            \
    }                                                 \
  } while (0)

#define EXPECT_SUCCESS(call)                                                                                        \
  do {                                                                                                              \
    const lathe_status status_ = (call);                                                                            \
    EXPECT(status_ == LATHE_STATUS_SUCCESS, "%s: %s: %s", #call, lathe_status_string(status_), lathe_last_error()); \
  } while (0)

/* Dense, or with `sequences` > 0 packed: then b is 1, and s_q and s_k are the totals. */
typedef struct shape {
  int64_t b, s_q, s_k, h, dn, dr, dv;
  int causal;
  int sequences;
  int32_t cu_q[4], cu_k[4];
} shape;

typedef struct call {
  shape s;
  lathe_mla_forward_args forward;
  lathe_mla_backward_args backward;
  lathe_tensor fused[16]; /* all memory, gaps included */
  int64_t gaps[16];
  int count;
} call;

static size_t element_size(lathe_dtype dtype) { return dtype == LATHE_F64 ? sizeof(double) : sizeof(float); }

static int64_t numel(const lathe_tensor* t) {
  int64_t count = 1;
  for (int i = 0; i < t->rank; ++i) count *= t->shape[i];
  return count;
}

/* Where element n, in logical order, lies. */
static int64_t offset_of(const lathe_tensor* t, int64_t n) {
  int64_t offset = 0;
  for (int i = t->rank - 1; i >= 0; --i) {
    offset += n % t->shape[i] * t->strides[i];
    n /= t->shape[i];
  }
  return offset;
}

static double get(const lathe_tensor* t, int64_t n) {
  const int64_t offset = offset_of(t, n);
  return t->dtype == LATHE_F64 ? ((const double*)t->data)[offset] : (double)((const float*)t->data)[offset];
}

static void set(const lathe_tensor* t, int64_t n, double value) {
  const int64_t offset = offset_of(t, n);
  if (t->dtype == LATHE_F64)
    ((double*)t->data)[offset] = value;
  else
    ((float*)t->data)[offset] = (float)value;
}

static void fill(const lathe_tensor* t, double value) {
  for (int64_t n = 0; n < numel(t); ++n) set(t, n, value);
}

/* Values in [-2, 2) that fp32 holds; the same for every dtype. */
static void fill_random(const lathe_tensor* t, uint32_t seed) {
  uint32_t state = seed * 2654435761u + 1u;
  for (int64_t n = 0; n < numel(t); ++n) {
    state = state * 1664525u + 1013904223u;
    set(t, n, (double)(state >> 12) / 262144.0 - 2.0);
  }
}

static int is_nan_everywhere(const lathe_tensor* t) {
  for (int64_t n = 0; n < numel(t); ++n)
    if (!isnan(get(t, n))) return 0;
  return 1;
}

/* Elements [begin, begin + length) of the last dimension. */
static lathe_tensor columns(lathe_tensor t, int64_t begin, int64_t length) {
  t.shape[t.rank - 1] = length;
  t.data = (char*)t.data + (size_t)begin * element_size(t.dtype);
  return t;
}

/* A tensor full of NaN whose rows `gap` elements part. A packed one (`packed`) loses its first dimension. */
static lathe_tensor allocate(call* c, lathe_dtype dtype, int rank, const int64_t* dims, int packed, int64_t gap) {
  lathe_tensor t = {.dtype = dtype, .rank = rank - packed};
  int64_t stride = 1;
  for (int i = t.rank - 1; i >= 0; --i) {
    t.shape[i] = dims[i + packed] + (i == t.rank - 1 ? gap : 0);
    t.strides[i] = stride;
    stride *= t.shape[i];
  }
  t.data = malloc((size_t)stride * element_size(dtype));
  if (t.data == NULL) abort();
  fill(&t, NAN);
  c->gaps[c->count] = gap;
  c->fused[c->count++] = t;
  return columns(t, 0, t.shape[t.rank - 1] - gap);
}

static lathe_tensor tokens(call* c, lathe_dtype dtype, int64_t s, int64_t heads, int64_t d, int64_t gap) {
  const int64_t dims[4] = {c->s.b, s, heads, d};
  return allocate(c, dtype, 4, dims, c->s.sequences > 0, gap);
}

static lathe_tensor offsets(const shape* s, int32_t* values) {
  lathe_tensor none = {0};
  lathe_tensor t = {.data = values, .dtype = LATHE_I32, .rank = 1, .shape = {s->sequences + 1}, .strides = {1}};
  return s->sequences > 0 ? t : none;
}

/* Inputs are random, what is written is NaN. The call must stay where it is: cu_seqlens lie in it. */
static void make_call(call* c, const shape* s, lathe_dtype dtype) {
  memset(c, 0, sizeof(*c));
  c->s = *s;
  const lathe_tensor q = tokens(c, dtype, s->s_q, s->h, s->dn + s->dr, 1);
  const lathe_tensor kv = tokens(c, dtype, s->s_k, s->h, s->dn + s->dv, 3);
  const lathe_tensor k_pe = tokens(c, dtype, s->s_k, 1, s->dr, 5);
  const lathe_tensor o = tokens(c, dtype, s->s_q, s->h, s->dv, 2);
  const lathe_tensor d_o = tokens(c, dtype, s->s_q, s->h, s->dv, 0);
  const lathe_tensor dq = tokens(c, dtype, s->s_q, s->h, s->dn + s->dr, 3);
  const lathe_tensor dkv = tokens(c, dtype, s->s_k, s->h, s->dn + s->dv, 1);
  const lathe_tensor dk_pe = tokens(c, dtype, s->s_k, 1, s->dr, 7);
  const int64_t stats[3] = {s->b, s->h, s->s_q};
  const lathe_tensor lse = allocate(c, dtype, 3, stats, s->sequences > 0, 0);
  const lathe_tensor dlse = allocate(c, dtype, 3, stats, s->sequences > 0, 0);
  const lathe_tensor* inputs[] = {&q, &kv, &k_pe, &d_o, &dlse};
  for (uint32_t i = 0; i < 5; ++i) fill_random(inputs[i], i);
  const double scale = 1 / sqrt((double)(s->dn + s->dr));
  c->forward = (lathe_mla_forward_args){.q_nope = columns(q, 0, s->dn),
                                        .q_pe = columns(q, s->dn, s->dr),
                                        .k_nope = columns(kv, 0, s->dn),
                                        .k_pe = k_pe,
                                        .v = columns(kv, s->dn, s->dv),
                                        .o = o,
                                        .lse = lse,
                                        .cu_seqlens_q = offsets(s, c->s.cu_q),
                                        .cu_seqlens_k = offsets(s, c->s.cu_k),
                                        .softmax_scale = scale,
                                        .causal = s->causal};
  const lathe_mla_forward_args* f = &c->forward;
  c->backward = (lathe_mla_backward_args){.q_nope = f->q_nope,
                                          .q_pe = f->q_pe,
                                          .k_nope = f->k_nope,
                                          .k_pe = f->k_pe,
                                          .v = f->v,
                                          .o = o,
                                          .lse = lse,
                                          .do_ = d_o,
                                          .dlse = dlse,
                                          .dq_nope = columns(dq, 0, s->dn),
                                          .dq_pe = columns(dq, s->dn, s->dr),
                                          .dk_nope = columns(dkv, 0, s->dn),
                                          .dk_pe = dk_pe,
                                          .dv = columns(dkv, s->dn, s->dv),
                                          .cu_seqlens_q = f->cu_seqlens_q,
                                          .cu_seqlens_k = f->cu_seqlens_k,
                                          .softmax_scale = scale,
                                          .causal = s->causal};
}

static void free_call(call* c) {
  for (int i = 0; i < c->count; ++i) free(c->fused[i].data);
}

#endif
