// Every kind of warpgroup product that kernels use, against a plain product on the host: shapes, operands
// from registers or shared memory, either order, and panels that do not lie in order. Small integers: results are
// exact.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "sm90/barrier.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace lathe::sm90 {
namespace {

constexpr int kMaxSteps = 12;
constexpr int kRows = 64;
constexpr int kThreads = 128;

// Where an operand lies in shared memory, and where each step of 16 along K begins.
struct Operand {
  int offset = 0;
  int leading_bytes = 16;
  int steps[kMaxSteps] = {};
};

template <int kColumns, int kTransA, int kTransB, bool kRegisters>
__global__ void multiply(const uint4* image, int image_bytes, const uint32_t* fragments, Operand a, Operand b,
                         int steps, float* out) {
  extern __shared__ __align__(1024) uint8_t shared[];
  for (int i = static_cast<int>(threadIdx.x); i < image_bytes / 16; i += kThreads)
    reinterpret_cast<uint4*>(shared)[i] = image[i];
  proxy_fence();
  __syncthreads();
  float d[kColumns / 2];
  const uint64_t a_base = descriptor(shared_address(shared) + a.offset, a.leading_bytes);
  const uint64_t b_base = descriptor(shared_address(shared) + b.offset, b.leading_bytes);
#pragma unroll
  for (float& x : d) x = 1;  // overwritten by the first step, which does not accumulate
  for (int k = 0; k < steps; ++k) {
    uint32_t words[4];
    for (int i = 0; i < 4; ++i) words[i] = kRegisters ? fragments[(k * kThreads + threadIdx.x) * 4 + i] : 0;
    const uint64_t a_step = advance(a_base, a.steps[k]);
    const uint64_t b_step = advance(b_base, b.steps[k]);
    pin(d);
    pin(words);
    wgmma_fence();
    if constexpr (kRegisters) {
      if constexpr (kColumns == 64) wgmma_rs_n64<kTransB>(d, words, b_step, k > 0);
      if constexpr (kColumns == 96) wgmma_rs_n96<kTransB>(d, words, b_step, k > 0);
      if constexpr (kColumns == 128) wgmma_rs_n128<kTransB>(d, words, b_step, k > 0);
      if constexpr (kColumns == 192) wgmma_rs_n192<kTransB>(d, words, b_step, k > 0);
      if constexpr (kColumns == 256) wgmma_rs_n256<kTransB>(d, words, b_step, k > 0);
    } else {
      if constexpr (kColumns == 64) wgmma_ss_n64<kTransA, kTransB>(d, a_step, b_step, k > 0);
      if constexpr (kColumns == 96) wgmma_ss_n96<kTransA, kTransB>(d, a_step, b_step, k > 0);
      if constexpr (kColumns == 128) wgmma_ss_n128<kTransA, kTransB>(d, a_step, b_step, k > 0);
      if constexpr (kColumns == 192) wgmma_ss_n192<kTransA, kTransB>(d, a_step, b_step, k > 0);
      if constexpr (kColumns == 256) wgmma_ss_n256<kTransA, kTransB>(d, a_step, b_step, k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin(d);
    pin(words);
  }
  const int row = static_cast<int>(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4);
  const int column = static_cast<int>(threadIdx.x % 4 * 2);
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) out[(row + i % 4 / 2 * 8) * kColumns + i / 4 * 8 + column + i % 2] = d[i];
}

void check_cuda(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

template <typename T>
class DeviceVector {
 public:
  explicit DeviceVector(const std::vector<T>& values) : size_(values.size() * sizeof(T)) {
    check_cuda(cudaMalloc(&data_, size_));
    check_cuda(cudaMemcpy(data_, values.data(), size_, cudaMemcpyHostToDevice));
  }
  ~DeviceVector() { cudaFree(data_); }
  DeviceVector(const DeviceVector&) = delete;
  DeviceVector& operator=(const DeviceVector&) = delete;
  template <typename U = T>
  U* data() const {
    return static_cast<U*>(data_);
  }
  void to_host(std::vector<T>& values) const {
    check_cuda(cudaMemcpy(values.data(), data_, size_, cudaMemcpyDeviceToHost));
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

// The byte of element `column` of a panel's row, 128-byte swizzle.
int in_panel(int row, int column) { return row * 128 + ((column / 8 ^ (row % 8)) * 16) + column % 8 * 2; }

struct Case {
  int columns = 0;
  bool a_transposed = false, b_transposed = false, registers = false;
  int k = 0;
  Operand a, b;
  std::function<int(int m, int k)> a_at;  // byte of the element
  std::function<int(int n, int k)> b_at;
  int image_bytes = 0;
};

using Kernel = void (*)(const uint4*, int, const uint32_t*, Operand, Operand, int, float*);

template <int kColumns>
Kernel kernel_of(const Case& c) {
  if (c.registers) return c.b_transposed ? multiply<kColumns, 0, 1, true> : multiply<kColumns, 0, 0, true>;
  if (c.a_transposed) return c.b_transposed ? multiply<kColumns, 1, 1, false> : multiply<kColumns, 1, 0, false>;
  return c.b_transposed ? multiply<kColumns, 0, 1, false> : multiply<kColumns, 0, 0, false>;
}

Kernel kernel_of(const Case& c) {
  switch (c.columns) {
    case 64:
      return kernel_of<64>(c);
    case 96:
      return kernel_of<96>(c);
    case 128:
      return kernel_of<128>(c);
    case 192:
      return kernel_of<192>(c);
    default:
      return kernel_of<256>(c);
  }
}

uint16_t bf16_bits(int value) {
  const float f = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return static_cast<uint16_t>(bits >> 16);
}

void run(const Case& c) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> values(-4, 4);
  std::vector<int> a(static_cast<std::size_t>(kRows * c.k)), b(static_cast<std::size_t>(c.columns * c.k));
  for (int& x : a) x = values(random);
  for (int& x : b) x = values(random);
  // What no element lies on is NaN: nothing else is read.
  std::vector<uint8_t> image(static_cast<std::size_t>(c.image_bytes), 0xff);
  const auto put = [&](int byte, int value) {
    const uint16_t bits = bf16_bits(value);
    std::memcpy(&image[static_cast<std::size_t>(byte)], &bits, 2);
  };
  for (int k = 0; k < c.k; ++k) {
    if (!c.registers)
      for (int m = 0; m < kRows; ++m) put(c.a_at(m, k), a[m * c.k + k]);
    for (int n = 0; n < c.columns; ++n) put(c.b_at(n, k), b[n * c.k + k]);
  }
  // A in registers: rows g and g + 8 of the warp's 16, columns 2t, 2t + 1 and 8 further on.
  std::vector<uint32_t> fragments(static_cast<std::size_t>(c.k / 16 * kThreads * 4));
  for (int step = 0; step < c.k / 16; ++step)
    for (int thread = 0; thread < kThreads; ++thread)
      for (int i = 0; i < 4; ++i) {
        const int m = thread / 32 * 16 + thread % 32 / 4 + i % 2 * 8;
        const int k = step * 16 + thread % 4 * 2 + i / 2 * 8;
        fragments[(step * kThreads + thread) * 4 + i] =
            bf16_bits(a[m * c.k + k]) | static_cast<uint32_t>(bf16_bits(a[m * c.k + k + 1])) << 16;
      }
  std::vector<float> out(static_cast<std::size_t>(kRows * c.columns), -1.f);
  const DeviceVector<uint8_t> device_image(image);
  const DeviceVector<uint32_t> device_fragments(fragments);
  const DeviceVector<float> device_out(out);
  const Kernel kernel = kernel_of(c);
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  c.image_bytes));
  kernel<<<1, kThreads, static_cast<std::size_t>(c.image_bytes)>>>(
      device_image.data<const uint4>(), c.image_bytes, device_fragments.data(), c.a, c.b, c.k / 16, device_out.data());
  check_cuda(cudaGetLastError());
  check_cuda(cudaDeviceSynchronize());
  device_out.to_host(out);
  int wrong = 0;
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < c.columns; ++n) {
      int expected = 0;
      for (int k = 0; k < c.k; ++k) expected += a[m * c.k + k] * b[n * c.k + k];
      const float got = out[m * c.columns + n];
      if (got == static_cast<float>(expected)) continue;
      if (++wrong <= 4) ADD_FAILURE() << "row " << m << ", column " << n << ": " << got << ", expected " << expected;
    }
  EXPECT_EQ(wrong, 0) << "of " << kRows * c.columns;
}

class Products : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, 0));
    if (properties.major != 9) GTEST_SKIP() << "the device is not a Hopper";
  }
};

constexpr int kColumns[] = {64, 96, 128, 192, 256};

// K = 64: one panel along K for an operand with K in its rows, panels of 64 rows one behind the other else.
TEST_F(Products, EveryShapeSourceAndOrder) {
  for (const int columns : kColumns)
    for (const bool registers : {false, true})
      for (const bool a_transposed : {false, true})
        for (const bool b_transposed : {false, true}) {
          if (registers && a_transposed) continue;
          SCOPED_TRACE(testing::Message()
                       << "64 x " << columns << (registers ? ", A in registers" : "")
                       << (a_transposed ? ", A transposed" : "") << (b_transposed ? ", B transposed" : ""));
          constexpr int kPanel = 64 * 128;
          Case c;
          c.columns = columns;
          c.registers = registers;
          c.a_transposed = a_transposed;
          c.b_transposed = b_transposed;
          c.k = 64;
          c.b.offset = kPanel;
          c.a.leading_bytes = a_transposed ? kPanel : 16;
          c.b.leading_bytes = b_transposed ? kPanel : 16;
          for (int k = 0; k < 4; ++k) {
            c.a.steps[k] = a_transposed ? 2048 * k : 32 * k;
            c.b.steps[k] = b_transposed ? 2048 * k : 32 * k;
          }
          c.a_at = [=](int m, int k) { return a_transposed ? in_panel(k, m) : in_panel(m, k); };
          c.b_at = [=](int n, int k) {
            return kPanel + (b_transposed ? n / 64 * kPanel + in_panel(k, n % 64) : in_panel(n, k));
          };
          c.image_bytes = kPanel + 4 * kPanel;
          run(c);
        }
}

constexpr int kKeyPanel = 128 * 128;

// The backward's K: panels of 128 keys, nope 0-63, rope, nope 64-127; 64 queries by 96 columns over 128 keys.
TEST_F(Products, HalvesOfTheQueryGradient) {
  for (const int half : {0, 1}) {
    SCOPED_TRACE(testing::Message() << "half " << half);
    Case c;
    c.columns = 96;
    c.a_transposed = c.b_transposed = true;
    c.k = 128;
    c.a.offset = 3 * kKeyPanel;
    c.a.leading_bytes = kKeyPanel;
    c.b.offset = half == 0 ? 0 : kKeyPanel;
    c.b.leading_bytes = half == 0 ? 2 * kKeyPanel : kKeyPanel + 64;
    for (int k = 0; k < 8; ++k) c.a.steps[k] = c.b.steps[k] = 2048 * k;
    c.a_at = [](int m, int k) { return 3 * kKeyPanel + in_panel(k, m); };
    c.b_at = [half](int n, int k) {
      if (half == 0) return n < 64 ? in_panel(k, n) : 2 * kKeyPanel + in_panel(k, n - 64);
      return n < 64 ? kKeyPanel + in_panel(k, n) : 2 * kKeyPanel + in_panel(k, 32 + n - 64);
    };
    c.image_bytes = 4 * kKeyPanel;
    run(c);
  }
}

// Scores: K (one consumer's 64 rows of the same panels) times Q in panels of 64 queries, nope, nope, rope.
TEST_F(Products, ScoresOverPanelsOutOfOrder) {
  constexpr int kPanels[] = {0, 2, 1};
  constexpr int kQueryPanel = 64 * 128;
  for (const int consumer : {0, 1}) {
    SCOPED_TRACE(testing::Message() << "consumer " << consumer);
    Case c;
    c.columns = 64;
    c.k = 192;
    c.a.offset = consumer * kQueryPanel;
    c.b.offset = 3 * kKeyPanel;
    for (int k = 0; k < 12; ++k) {
      c.a.steps[k] = kPanels[k / 4] * kKeyPanel + k % 4 * 32;
      c.b.steps[k] = k / 4 * kQueryPanel + k % 4 * 32;
    }
    c.a_at = [=](int m, int k) { return kPanels[k / 64] * kKeyPanel + in_panel(consumer * 64 + m, k % 64); };
    c.b_at = [](int n, int k) { return 3 * kKeyPanel + k / 64 * kQueryPanel + in_panel(n, k % 64); };
    c.image_bytes = 3 * kKeyPanel + 3 * kQueryPanel;
    run(c);
  }
}

}  // namespace
}  // namespace lathe::sm90
