// A device at run time: memory and ordered work. Everything that computes is given one; nothing is global.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/tensor_view.h"

namespace lathe {

class WorkRecorder;

// Work given to one stream runs in order. On the CPU every call has finished when it returns.
struct Stream {
  void* handle = nullptr;
};

// What the memory of a device is used for, by the names given to Buffer.
class MemoryLedger {
 public:
  struct Entry {
    std::string name;
    std::size_t bytes = 0;  // in use
  };

  // The entry's index, for remove.
  std::size_t add(const std::string& name, std::size_t bytes);
  void remove(std::size_t index, std::size_t bytes) noexcept { entries_[index].bytes -= bytes; }

  // In the order of their first use.
  const std::vector<Entry>& entries() const { return entries_; }
  // "weights 5.2 MB, gradients 5.2 MB, ..., total 312.0 MB"
  std::string describe() const;

 private:
  std::vector<Entry> entries_;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  // "CPU, 2 threads"
  virtual std::string describe() const = 0;

  // 64-byte aligned memory. Throws OutOfMemoryError with the size wanted; `name` says what for.
  virtual void* allocate(std::size_t bytes, const std::string& name) = 0;
  virtual void release(void* data, std::size_t bytes) noexcept = 0;

  // Contiguous tensors of one dtype and element count, between this device and the host or within it; within it also
  // f32 to bf16, rounded to nearest even. The host's memory may be used again when this returns.
  void copy(const TensorView& to, const TensorView& from, Stream stream);
  void fill_zero(const TensorView& tensor, Stream stream);
  // Returns when all work on the stream is done.
  virtual void synchronize(Stream stream) = 0;

  // The most memory used so far: peak resident set on the CPU.
  virtual std::size_t peak_memory_bytes() const = 0;

  // What every Buffer of this device is written into.
  MemoryLedger& memory() { return memory_; }

  // Where set, every op, copy and fill on this device is timed by it; it outlives the setting.
  void set_recorder(WorkRecorder* recorder) { recorder_ = recorder; }
  WorkRecorder* recorder() const { return recorder_; }

 private:
  // Of tensors that were checked and have elements.
  virtual void do_copy(const TensorView& to, const TensorView& from, Stream stream) = 0;
  virtual void do_fill_zero(const TensorView& tensor, Stream stream) = 0;

  MemoryLedger memory_;
  WorkRecorder* recorder_ = nullptr;
};

// Whether a copy is one from f32 to bf16 within a device.
bool rounding_copy(const TensorView& to, const TensorView& from);

// A named allocation. Move-only. The device outlives it.
class Buffer {
 public:
  Buffer() = default;
  // Throws OutOfMemoryError that also says what the device's memory is in use for.
  Buffer(Device& device, std::size_t bytes, const std::string& name);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t entry_ = 0;  // in the device's ledger
};

}  // namespace lathe
