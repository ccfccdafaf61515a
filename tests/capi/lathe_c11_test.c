/* The numbers through the C interface: against a plain fp64 reference, and gradients by finite differences. */
#include "capi/capi_testing.h"

/* Row (token, head) of a batch; packed tensors have no batch. */
static double* row(const lathe_tensor* t, int64_t batch, int64_t token, int64_t head) {
  const int64_t* s = t->strides;
  return (double*)t->data + (t->rank == 4 ? batch * s[0] + token * s[1] + head * s[2] : token * s[0] + head * s[1]);
}

static double* stat(const lathe_tensor* t, int64_t batch, int64_t head, int64_t token) {
  const int64_t* s = t->strides;
  return (double*)t->data + (t->rank == 3 ? batch * s[0] + head * s[1] + token * s[2] : head * s[0] + token * s[1]);
}

static double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

static void add(double* to, const double* from, double factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
}

static double score(const call* c, int64_t batch, int64_t head, int64_t query, int64_t key) {
  const lathe_mla_forward_args* f = &c->forward;
  return f->softmax_scale * (dot(row(&f->q_nope, batch, query, head), row(&f->k_nope, batch, key, head), c->s.dn) +
                             dot(row(&f->q_pe, batch, query, head), row(&f->k_pe, batch, key, 0), c->s.dr));
}

/* One query that sees the keys [begin, end): o, lse and its share of every gradient. */
static void reference_query(const call* c, int64_t batch, int64_t head, int64_t query, int64_t begin, int64_t end) {
  const lathe_mla_backward_args* g = &c->backward;
  const shape* s = &c->s;
  double largest = -INFINITY;
  for (int64_t key = begin; key < end; ++key) largest = fmax(largest, score(c, batch, head, query, key));
  double sum = 0;
  for (int64_t key = begin; key < end; ++key) sum += exp(score(c, batch, head, query, key) - largest);
  const double lse = end > begin ? largest + log(sum) : -INFINITY;
  *stat(&g->lse, batch, head, query) = lse;
  double* o = row(&g->o, batch, query, head);
  for (int64_t key = begin; key < end; ++key)
    add(o, row(&g->v, batch, key, head), exp(score(c, batch, head, query, key) - lse), s->dv);
  const double* d_o = row(&g->do_, batch, query, head);
  const double delta = dot(o, d_o, s->dv) - *stat(&g->dlse, batch, head, query);
  for (int64_t key = begin; key < end; ++key) {
    const double p = exp(score(c, batch, head, query, key) - lse);
    const double ds = p * (dot(d_o, row(&g->v, batch, key, head), s->dv) - delta) * g->softmax_scale;
    add(row(&g->dv, batch, key, head), d_o, p, s->dv);
    add(row(&g->dq_nope, batch, query, head), row(&g->k_nope, batch, key, head), ds, s->dn);
    add(row(&g->dq_pe, batch, query, head), row(&g->k_pe, batch, key, 0), ds, s->dr);
    add(row(&g->dk_nope, batch, key, head), row(&g->q_nope, batch, query, head), ds, s->dn);
    add(row(&g->dk_pe, batch, key, 0), row(&g->q_pe, batch, query, head), ds, s->dr);
  }
}

/* Writes what the library should into the tensors of an fp64 call. */
static void reference(const call* c) {
  const shape* s = &c->s;
  const lathe_mla_backward_args* g = &c->backward;
  const lathe_tensor* sums[] = {&g->o, &g->dq_nope, &g->dq_pe, &g->dk_nope, &g->dk_pe, &g->dv};
  for (int i = 0; i < 6; ++i) fill(sums[i], 0);
  for (int64_t n = 0; n < (s->sequences > 0 ? s->sequences : s->b); ++n) {
    const int packed = s->sequences > 0;
    const int64_t q = packed ? s->cu_q[n] : 0, q_end = packed ? s->cu_q[n + 1] : s->s_q;
    const int64_t k = packed ? s->cu_k[n] : 0, k_end = packed ? s->cu_k[n + 1] : s->s_k;
    for (int64_t query = q; query < q_end; ++query) {
      const int64_t end = s->causal ? k_end - (q_end - 1 - query) : k_end;
      for (int64_t head = 0; head < s->h; ++head) reference_query(c, packed ? 0 : n, head, query, k, end);
    }
  }
}

/* Reports the first element that is off. */
static void expect_close(const char* name, const lathe_tensor* actual, const lathe_tensor* expected, double bound) {
  for (int64_t n = 0; n < numel(expected); ++n) {
    const double a = get(actual, n), e = get(expected, n);
    if (a == e || fabs(a - e) <= bound * (1 + fabs(e))) continue;
    EXPECT(0, "%s[%d] is %.17g, expected %.17g", name, (int)n, a, e);
    return;
  }
}

static int gaps_are_intact(const call* c) {
  for (int i = 0; i < c->count; ++i) {
    const lathe_tensor* t = &c->fused[i];
    const lathe_tensor gap = columns(*t, t->shape[t->rank - 1] - c->gaps[i], c->gaps[i]);
    if (!is_nan_everywhere(&gap)) return 0;
  }
  return 1;
}

static void expect_as_reference(const shape* s, lathe_dtype dtype, int with_dlse, double bound) {
  call actual, expected;
  make_call(&actual, s, dtype);
  make_call(&expected, s, LATHE_F64);
  if (!with_dlse) {
    actual.backward.dlse.rank = 0;
    fill(&expected.backward.dlse, 0);
  }
  EXPECT_SUCCESS(lathe_mla_forward(&actual.forward));
  EXPECT_SUCCESS(lathe_mla_backward(&actual.backward));
  reference(&expected);
  const lathe_mla_backward_args *a = &actual.backward, *e = &expected.backward;
  expect_close("o", &a->o, &e->o, bound);
  expect_close("lse", &a->lse, &e->lse, bound);
  expect_close("dq_nope", &a->dq_nope, &e->dq_nope, bound);
  expect_close("dq_pe", &a->dq_pe, &e->dq_pe, bound);
  expect_close("dk_nope", &a->dk_nope, &e->dk_nope, bound);
  expect_close("dk_pe", &a->dk_pe, &e->dk_pe, bound);
  expect_close("dv", &a->dv, &e->dv, bound);
  EXPECT(gaps_are_intact(&actual), "the gaps between rows were written");
  free_call(&actual);
  free_call(&expected);
}

/* sum(o * do) + sum(lse * dlse) of one forward. */
static double loss_of(const call* c) {
  EXPECT_SUCCESS(lathe_mla_forward(&c->forward));
  double loss = 0;
  for (int64_t n = 0; n < numel(&c->forward.o); ++n) loss += get(&c->forward.o, n) * get(&c->backward.do_, n);
  for (int64_t n = 0; n < numel(&c->forward.lse); ++n) loss += get(&c->forward.lse, n) * get(&c->backward.dlse, n);
  return loss;
}

static void expect_finite_differences(const shape* s) {
  const double step = 1e-5;
  call c;
  make_call(&c, s, LATHE_F64);
  EXPECT_SUCCESS(lathe_mla_forward(&c.forward));
  EXPECT_SUCCESS(lathe_mla_backward(&c.backward));
  const lathe_mla_backward_args* g = &c.backward;
  const lathe_tensor* inputs[] = {&g->q_nope, &g->q_pe, &g->k_nope, &g->k_pe, &g->v};
  const lathe_tensor* gradients[] = {&g->dq_nope, &g->dq_pe, &g->dk_nope, &g->dk_pe, &g->dv};
  for (int i = 0; i < 5; ++i) {
    for (int64_t n = 0; n < numel(inputs[i]); ++n) {
      const double value = get(inputs[i], n), gradient = get(gradients[i], n);
      set(inputs[i], n, value + step);
      const double above = loss_of(&c);
      set(inputs[i], n, value - step);
      const double difference = (above - loss_of(&c)) / (2 * step);
      set(inputs[i], n, value);
      EXPECT(fabs(gradient - difference) <= 1e-8 * (1 + fabs(difference)), "gradient %d[%d] is %.12g, difference %.12g",
             i, (int)n, gradient, difference);
    }
  }
  free_call(&c);
}

int main(void) {
  const shape shapes[] = {
      {.b = 2, .s_q = 5, .s_k = 7, .h = 3, .dn = 4, .dr = 2, .dv = 3, .causal = 1},
      {.b = 1, .s_q = 7, .s_k = 4, .h = 2, .dn = 3, .dr = 1, .dv = 5, .causal = 1}, /* rows that see no key */
      {.b = 2, .s_q = 70, .s_k = 130, .h = 2, .dn = 16, .dr = 8, .dv = 16, .causal = 0},
      {.b = 1,
       .s_q = 9,
       .s_k = 12,
       .h = 2,
       .dn = 4,
       .dr = 2,
       .dv = 3,
       .causal = 1,
       .sequences = 3,
       .cu_q = {0, 4, 4, 9},
       .cu_k = {0, 6, 7, 12}}, /* packed, one without queries */
      {.b = 0, .s_q = 3, .s_k = 3, .h = 1, .dn = 2, .dr = 2, .dv = 2, .causal = 1},
  };
  for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); ++i) {
    expect_as_reference(&shapes[i], LATHE_F64, 1, 1e-13);
    expect_as_reference(&shapes[i], LATHE_F32, 1, 4e-6);
    expect_as_reference(&shapes[i], LATHE_F64, 0, 1e-13);
  }
  const shape dense = {.b = 1, .s_q = 3, .s_k = 4, .h = 2, .dn = 3, .dr = 2, .dv = 3, .causal = 1};
  const shape packed = {.b = 1,
                        .s_q = 4,
                        .s_k = 5,
                        .h = 2,
                        .dn = 2,
                        .dr = 1,
                        .dv = 2,
                        .causal = 1,
                        .sequences = 2,
                        .cu_q = {0, 1, 4},
                        .cu_k = {0, 2, 5}};
  expect_finite_differences(&dense);
  expect_finite_differences(&packed);
  return failures > 0;
}
