// The CUDA ops against the CPU's in fp64. Where there is no GPU one line says so, and nothing fails.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "device/cuda_device.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const std::string reason = lathe::cuda_device_unavailable();
  if (!reason.empty()) {
    std::printf("skipped: %s\n", reason.c_str());
    return 0;
  }
  return RUN_ALL_TESTS();
}
