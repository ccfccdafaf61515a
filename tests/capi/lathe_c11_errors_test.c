/* What the C interface refuses and how it says so; backends, version, and errors of two threads. */
#include <pthread.h>

#include "capi/capi_testing.h"

static const shape kDense = {.b = 2, .s_q = 3, .s_k = 5, .h = 2, .dn = 4, .dr = 2, .dv = 3, .causal = 1};
static const shape kPacked = {.b = 1,
                              .s_q = 3,
                              .s_k = 5,
                              .h = 2,
                              .dn = 4,
                              .dr = 2,
                              .dv = 3,
                              .causal = 1,
                              .sequences = 2,
                              .cu_q = {0, 1, 3},
                              .cu_k = {0, 2, 5}};

static void expect_status(const char* what, lathe_status status, lathe_status expected) {
  EXPECT(status == expected, "%s: %s, expected %s", what, lathe_status_string(status), lathe_status_string(expected));
}

static void expect_error_holds(const char* what, const char* words) {
  EXPECT(strstr(lathe_last_error(), words) != NULL, "%s: \"%s\" lacks \"%s\"", what, lathe_last_error(), words);
}

static void expect_forward_refused(const char* what, call* c, lathe_status expected, const char* a, const char* b) {
  expect_status(what, lathe_mla_forward(&c->forward), expected);
  expect_error_holds(what, a);
  expect_error_holds(what, b);
  EXPECT(is_nan_everywhere(&c->fused[3]) && is_nan_everywhere(&c->fused[8]), "%s: o or lse was written", what);
}

static void expect_backward_refused(const char* what, call* c, lathe_status expected, const char* a, const char* b) {
  expect_status(what, lathe_mla_backward(&c->backward), expected);
  expect_error_holds(what, a);
  expect_error_holds(what, b);
  for (int i = 5; i <= 7; ++i) EXPECT(is_nan_everywhere(&c->fused[i]), "%s: a gradient was written", what);
}

/* Runs `change` on f (g), the arguments of a good call, and expects the call refused with both words in the error. */
#define REFUSED_OF(shape, direction, change, status, a, b)    \
  do {                                                        \
    call c_;                                                  \
    make_call(&c_, &(shape), LATHE_F32);                      \
    lathe_mla_forward_args* f = &c_.forward;                  \
    lathe_mla_backward_args* g = &c_.backward;                \
    (void)f;                                                  \
    (void)g;                                                  \
    change;                                                   \
    expect_##direction##_refused(#change, &c_, status, a, b); \
    free_call(&c_);                                           \
  } while (0)
#define INVALID(change, a, b) REFUSED_OF(kDense, forward, change, LATHE_STATUS_INVALID_ARGUMENT, a, b)
#define INVALID_PACKED(change, a, b) REFUSED_OF(kPacked, forward, change, LATHE_STATUS_INVALID_ARGUMENT, a, b)
#define INVALID_BACKWARD(change, a, b) REFUSED_OF(kDense, backward, change, LATHE_STATUS_INVALID_ARGUMENT, a, b)
#define UNSUPPORTED(change, a, b) REFUSED_OF(kDense, forward, change, LATHE_STATUS_UNSUPPORTED, a, b)

static void test_refused(void) {
  INVALID(f->q_nope.rank = 5, "q_nope", "rank 5");
  INVALID(f->q_nope.rank = -1, "q_nope", "rank -1");
  INVALID(f->q_nope.rank = 0, "q_nope", "not given");
  INVALID(f->v.data = NULL, "v has data NULL", "4 dimensions");
  INVALID(f->k_pe.shape[1] = -5, "k_pe", "-5");
  INVALID(f->k_pe.shape[2] = 2, "k_pe is f32 [2, 5, 2, 2]", "expected [2, 5, 1, 2]");
  INVALID(f->k_nope.shape[3] = 3, "[2, 5, 2, 3]", "[2, 5, 2, 4]");
  INVALID(f->v.strides[3] = 2, "v is", "contiguous last dimension");
  INVALID(f->o.strides[2] = 0, "o is written", "shares");
  INVALID(f->lse.shape[1] = 3, "[2, 3, 3]", "[2, 2, 3]");
  INVALID(f->lse.rank = 0, "lse", "not given");
  INVALID(f->q_pe.dtype = LATHE_F64, "q_pe is f64", "expected f32");
  INVALID(f->q_pe.dtype = (lathe_dtype)77, "q_pe", "77");
  INVALID(f->q_nope.dtype = LATHE_I32, "q_nope is i32", "floating-point");
  INVALID(f->device = (lathe_device)9, "device", "9");
  INVALID(f->causal = 2, "causal", "2");
  INVALID(f->softmax_scale = NAN, "softmax_scale", "nan");
  INVALID(f->backend = "sm91", "sm91", "allowed are auto, cpu, sm90, cudnn");
  INVALID(f->backend = "", "\"\"", "allowed are auto");
  INVALID_PACKED(f->cu_seqlens_k.rank = 0, "cu_seqlens_q is given", "without cu_seqlens_k");
  INVALID_PACKED(c_.s.cu_q[1] = 4, "falls from 4 to 3", "cu_seqlens_q");
  INVALID_PACKED(c_.s.cu_k[2] = 6, "ends with 6", "5 tokens");
  INVALID_PACKED(f->cu_seqlens_q.dtype = LATHE_F32, "cu_seqlens_q is f32", "expected i32");
  INVALID_BACKWARD(g->deterministic = 2, "deterministic", "2");
  INVALID_BACKWARD(g->causal = -1, "causal", "-1");
  INVALID_BACKWARD(g->do_.rank = 0, "do is not given", "expected");
  INVALID_BACKWARD(g->dq_pe.shape[3] = 3, "dq_pe is f32 [2, 3, 2, 3]", "expected [2, 3, 2, 2]");
  INVALID_BACKWARD(g->dk_pe.strides[1] = 0, "dk_pe is written", "shares");
  INVALID_BACKWARD(g->dlse.dtype = LATHE_F64, "dlse is f64", "expected f32");
  UNSUPPORTED(f->backend = "sm90", "sm90: it runs on cuda, the tensors lie on cpu", "f32 causal dense");
  UNSUPPORTED(f->device = LATHE_CUDA, "cpu: it runs on cpu", "sm90: ");
}

static void test_null(void) {
  call c;
  make_call(&c, &kDense, LATHE_F32);
  size_t size = 7;
  const char* text = NULL;
  const lathe_status invalid = LATHE_STATUS_INVALID_ARGUMENT;
  expect_status("args", lathe_mla_forward(NULL), invalid);
  expect_error_holds("args", "args is NULL");
  expect_status("args", lathe_mla_backward(NULL), invalid);
  expect_status("args", lathe_mla_forward_workspace_size(NULL, &size), invalid);
  expect_status("args", lathe_mla_backward_workspace_size(NULL, &size), invalid);
  EXPECT(size == 7, "size was written");
  expect_status("size", lathe_mla_forward_workspace_size(&c.forward, NULL), invalid);
  expect_status("size", lathe_mla_backward_workspace_size(&c.backward, NULL), invalid);
  expect_error_holds("size", "size is NULL");
  expect_status("args", lathe_mla_backend(NULL, &text, &text), invalid);
  expect_status("name", lathe_mla_backend(&c.forward, NULL, &text), invalid);
  expect_status("reason", lathe_mla_backend(&c.forward, &text, NULL), invalid);
  free_call(&c);
}

/* With a pointer that would crash if it was followed, cu_seqlens' included. */
static void test_queries_look_at_no_data(void) {
  call c;
  make_call(&c, &kPacked, LATHE_F64);
  void* const nowhere[] = {NULL, (void*)16};
  for (int i = 0; i < 2; ++i) {
    lathe_mla_forward_args f = c.forward;
    lathe_mla_backward_args g = c.backward;
    f.q_nope.data = f.q_pe.data = f.k_nope.data = f.k_pe.data = f.v.data = f.o.data = f.lse.data = nowhere[i];
    f.cu_seqlens_q.data = f.cu_seqlens_k.data = nowhere[i];
    g.cu_seqlens_q.data = g.cu_seqlens_k.data = g.q_nope.data = g.dk_pe.data = g.dlse.data = nowhere[i];
    size_t size = 7;
    EXPECT_SUCCESS(lathe_mla_forward_workspace_size(&f, &size));
    EXPECT(size == 0, "the CPU's forward asks for %zu bytes", size);
    size = 7;
    EXPECT_SUCCESS(lathe_mla_backward_workspace_size(&g, &size));
    EXPECT(size == 0, "the CPU's backward asks for %zu bytes", size);
    const char *name = NULL, *reason = NULL;
    EXPECT_SUCCESS(lathe_mla_backend(&f, &name, &reason));
  }
  free_call(&c);
}

static void expect_backend(const char* wanted, lathe_device device, lathe_status status, const char* expected_name,
                           const char* words) {
  call c;
  make_call(&c, &kDense, LATHE_F32);
  c.forward.backend = wanted;
  c.forward.device = device;
  const char *name = "", *reason = "";
  expect_status("lathe_mla_backend", lathe_mla_backend(&c.forward, &name, &reason), status);
  EXPECT(strcmp(name, expected_name) == 0, "backend \"%s\", expected \"%s\"", name, expected_name);
  EXPECT(strstr(reason, words) != NULL, "the reason \"%s\" lacks \"%s\"", reason, words);
  free_call(&c);
}

static void test_backends(void) {
  expect_backend(NULL, LATHE_CPU, LATHE_STATUS_SUCCESS, "cpu", "auto: ");
  expect_backend("auto", LATHE_CPU, LATHE_STATUS_SUCCESS, "cpu", "auto: ");
  expect_backend("cpu", LATHE_CPU, LATHE_STATUS_SUCCESS, "cpu", "as asked for");
  expect_backend("sm90", LATHE_CPU, LATHE_STATUS_UNSUPPORTED, "none", "sm90: it runs on cuda");
  expect_backend("cpu", LATHE_CUDA, LATHE_STATUS_UNSUPPORTED, "none", "cpu: it runs on cpu");
  expect_backend(NULL, LATHE_CUDA, LATHE_STATUS_UNSUPPORTED, "none", "; sm90: "); /* it has no fp32 either */
  expect_backend("tpu", LATHE_CPU, LATHE_STATUS_INVALID_ARGUMENT, "none", "");
}

static void* fail_on_another_thread(void* size) {
  EXPECT(strcmp(lathe_last_error(), "") == 0, "a new thread has the error \"%s\"", lathe_last_error());
  expect_status("args", lathe_mla_backward_workspace_size(NULL, size), LATHE_STATUS_INVALID_ARGUMENT);
  expect_error_holds("args", "args is NULL");
  return NULL;
}

static void test_threads_have_their_own_error(void) {
  size_t size = 0;
  call c;
  make_call(&c, &kDense, LATHE_F32);
  c.forward.causal = 55;
  expect_status("causal", lathe_mla_forward(&c.forward), LATHE_STATUS_INVALID_ARGUMENT);
  pthread_t thread;
  if (pthread_create(&thread, NULL, fail_on_another_thread, &size) != 0) abort();
  pthread_join(thread, NULL);
  expect_error_holds("after another thread failed", "causal is 55");
  c.forward.causal = 1;
  EXPECT_SUCCESS(lathe_mla_forward(&c.forward));
  expect_error_holds("after a call that succeeded", "causal is 55");
  free_call(&c);
}

int main(void) {
  EXPECT(strcmp(lathe_last_error(), "") == 0, "an error before any call: \"%s\"", lathe_last_error());
  EXPECT(strcmp(lathe_version(), LATHE_VERSION) == 0, "version %s, CMake has %s", lathe_version(), LATHE_VERSION);
  EXPECT(strcmp(lathe_status_string(LATHE_STATUS_DEVICE_ERROR), "LATHE_STATUS_DEVICE_ERROR") == 0, "status string");
  EXPECT(strcmp(lathe_status_string((lathe_status)99), "unknown lathe_status") == 0, "status string of 99");
  test_refused();
  test_null();
  test_queries_look_at_no_data();
  test_backends();
  test_threads_have_their_own_error();
  return failures > 0;
}
