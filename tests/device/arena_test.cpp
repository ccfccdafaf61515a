#include "device/arena.h"

#include <gtest/gtest.h>

#include <map>

#include "core/test_support.h"
#include "device/cpu_device.h"

namespace lathe {
namespace {

using test::message_of;

// Counts what is allocated; memory comes from a real device.
class CountingDevice final : public Device {
 public:
  DeviceKind kind() const override { return inner_->kind(); }
  std::string describe() const override { return inner_->describe(); }
  void* allocate(std::size_t bytes, const std::string& name) override {
    ++allocations;
    last_name = name;
    void* data = inner_->allocate(bytes, name);
    live[data] = bytes;
    return data;
  }
  void release(void* data, std::size_t bytes) noexcept override {
    EXPECT_EQ(live.at(data), bytes);
    live.erase(data);
    inner_->release(data, bytes);
  }
  void synchronize(Stream stream) override { inner_->synchronize(stream); }
  std::size_t peak_memory_bytes() const override { return inner_->peak_memory_bytes(); }

  int allocations = 0;
  std::string last_name;
  std::map<void*, std::size_t> live;

 private:
  void do_copy(const TensorView& to, const TensorView& from, Stream stream) override { inner_->copy(to, from, stream); }
  void do_fill_zero(const TensorView& tensor, Stream stream) override { inner_->fill_zero(tensor, stream); }

  std::unique_ptr<Device> inner_ = make_cpu_device();
};

bool is_aligned(const TensorView& view) { return reinterpret_cast<std::uintptr_t>(view.data) % 64 == 0; }

TEST(Arena, TensorsAreAlignedAndApart) {
  CountingDevice device;
  Arena arena(device, "activations");
  const auto a = arena.take(DType::f32, {3, 5});
  const auto b = arena.take(DType::bf16, {1});
  const auto c = arena.take(DType::f64, {2});
  EXPECT_EQ(a.describe(), "f32 [3, 5]");
  EXPECT_TRUE(is_aligned(a) && is_aligned(b) && is_aligned(c));
  EXPECT_GE(static_cast<std::byte*>(b.data), static_cast<std::byte*>(a.data) + a.bytes());
  EXPECT_GE(static_cast<std::byte*>(c.data), static_cast<std::byte*>(b.data) + b.bytes());
  EXPECT_EQ(device.allocations, 1);
  EXPECT_EQ(device.last_name, "activations");
}

TEST(Arena, GivesBackDownToAMark) {
  CountingDevice device;
  Arena arena(device, "scratch");
  const auto a = arena.take(DType::f32, {100});
  const auto mark = arena.mark();
  const auto b = arena.take(DType::f32, {100});
  arena.release(mark);
  EXPECT_EQ(arena.take(DType::f32, {7}).data, b.data);
  void* inner = nullptr;
  {
    const ArenaScope scope(arena);
    inner = arena.take(DType::f32, {1}).data;
  }
  EXPECT_EQ(arena.take(DType::f32, {1}).data, inner);
  EXPECT_NE(a.data, b.data);
}

TEST(Arena, AfterTheSecondPassNothingIsAllocatedAndNothingWasted) {
  CountingDevice device;
  Arena arena(device, "scratch");
  const auto pass = [&] {
    const ArenaScope scope(arena);
    std::vector<void*> places;
    for (const std::int64_t size : {1'000'000, 3'000'000, 10, 5'000'000, 2'000'000})
      places.push_back(arena.take(DType::f32, {size}).data);
    return places;
  };
  pass();
  EXPECT_GT(device.live.size(), 1U);
  const auto second = pass();
  const int allocations = device.allocations;
  EXPECT_EQ(pass(), second);
  EXPECT_EQ(device.allocations, allocations);
  ASSERT_EQ(device.live.size(), 1U);
  EXPECT_EQ(arena.high_water_bytes(), std::size_t{44'000'064});
  EXPECT_EQ(device.live.begin()->second, arena.high_water_bytes());
  EXPECT_EQ(device.memory().describe(), "scratch 44.0 MB, total 44.0 MB");
}

TEST(Arena, LargeTensorsGetABlockOfTheirOwn) {
  CountingDevice device;
  {
    Arena arena(device, "scratch");
    const auto small = arena.take(DType::f32, {16});
    const auto large = arena.take(DType::f32, {20'000'000});
    device.fill_zero(small, {});
    device.fill_zero(large, {});
    EXPECT_EQ(large.as<float>()[19'999'999], 0.0F);
    EXPECT_EQ(device.live.size(), 2U);
  }
  EXPECT_TRUE(device.live.empty());
}

TEST(Arena, TakesTensorsWithoutElements) {
  CountingDevice device;
  Arena arena(device, "scratch");
  EXPECT_EQ(arena.take(DType::f32, {0, 5}).numel(), 0);
  EXPECT_NE(message_of<Error>([&] { arena.take(DType::f32, {-1}); }), "nothing was thrown");
}

TEST(Buffer, SaysWhatMemoryIsInUseForWhenThereIsNoMore) {
  CountingDevice device;
  const Buffer first(device, 3'000'000, "weights");
  const Buffer second(device, 1'000'000, "moments");
  {
    const Buffer third(device, 1'000'000, "moments");
    const Buffer fourth(device, 7'000'000, "scratch");
    EXPECT_EQ(device.memory().describe(), "weights 3.0 MB, moments 2.0 MB, scratch 7.0 MB, total 12.0 MB");
  }
  EXPECT_EQ(
      message_of<OutOfMemoryError>([&] { Buffer(device, ~std::size_t{0}, "activations"); }),
      "out of memory on the CPU: 18446744073.71 GB wanted for activations; in use: weights 3.0 MB, moments 1.0 MB, "
      "total 4.0 MB");
}

TEST(Buffer, OwnsItsMemory) {
  CountingDevice device;
  {
    Buffer a(device, 10, "a");
    Buffer b(std::move(a));
    EXPECT_EQ(a.data(), nullptr);
    EXPECT_EQ(b.bytes(), 10U);
    Buffer c(device, 20, "c");
    c = std::move(b);
    EXPECT_EQ(c.bytes(), 10U);
    const Buffer nothing;
    EXPECT_EQ(nothing.data(), nullptr);
  }
  EXPECT_TRUE(device.live.empty());
}

TEST(CpuDevice, RefusesWhatItCannotAllocate) {
  const auto device = make_cpu_device();
  EXPECT_EQ(message_of<Error>([&] { device->allocate(~std::size_t{0}, "weights"); }),
            "out of memory on the CPU: 18446744073.71 GB wanted for weights");
  void* nothing = device->allocate(0, "nothing");
  EXPECT_NE(nothing, nullptr);
  device->release(nothing, 0);
}

TEST(CpuDevice, CopiesAndClears) {
  const auto device = make_cpu_device();
  std::vector<float> from{1, 2, 3, 4};
  std::vector<float> to(4, -1.0F);
  const auto view = [](std::vector<float>& data) { return TensorView::contiguous(data.data(), DType::f32, {2, 2}); };
  device->copy(view(to), view(from), {});
  EXPECT_EQ(to, from);
  device->fill_zero(view(to).slice(0, 1, 1), {});
  EXPECT_EQ(to, (std::vector<float>{1, 2, 0, 0}));
  EXPECT_EQ(message_of<Error>([&] { device->copy(view(to).select(1, 0), view(from).select(0, 0), {}); }),
            "cannot copy f32 [2] to f32 [2] strides [2]: both must be contiguous, of one dtype and size");
  EXPECT_EQ(message_of<Error>([&] { device->fill_zero(view(to).select(1, 0), {}); }),
            "cannot fill f32 [2] strides [2]: not contiguous");
  EXPECT_GT(device->peak_memory_bytes(), std::size_t{1} << 20);
}

}  // namespace
}  // namespace lathe
