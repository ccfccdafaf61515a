// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A value is a pure function of (seed, stream, counter), so the order of calls and the number of threads do not matter.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace lathe {

class Philox {
 public:
  // `stream` separates independent uses of one seed.
  explicit Philox(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  std::array<std::uint32_t, 4> block(std::uint64_t counter) const {
    std::array<std::uint32_t, 4> x{low(counter), high(counter), low(stream_), high(stream_)};
    std::uint32_t k0 = low(seed_);
    std::uint32_t k1 = high(seed_);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * x[0];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * x[2];
      x = {high(p1) ^ x[1] ^ k0, low(p1), high(p0) ^ x[3] ^ k1, low(p0)};
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
    return x;
  }

  std::uint64_t bits(std::uint64_t counter) const {
    const auto x = block(counter);
    return (std::uint64_t{x[1]} << 32) | x[0];
  }

  // Uniform in [0, 1).
  double uniform(std::uint64_t counter) const { return static_cast<double>(bits(counter) >> 11) * 0x1p-53; }

  // Uniform in [0, bound), bound > 0; the bias is below bound / 2^64.
  std::uint64_t below(std::uint64_t counter, std::uint64_t bound) const {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits(counter)) * bound) >> 64);
  }

  // Standard normal (Box-Muller).
  double normal(std::uint64_t counter) const {
    const auto x = block(counter);
    const double u = (static_cast<double>((std::uint64_t{x[1]} << 21) ^ (x[0] >> 11)) + 1.0) * 0x1p-53;
    const double v = static_cast<double>((std::uint64_t{x[3]} << 21) ^ (x[2] >> 11)) * 0x1p-53;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
  }

 private:
  static std::uint32_t low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
  static std::uint32_t high(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace lathe
