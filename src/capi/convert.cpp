#include "capi/convert.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

namespace lathe::capi {
namespace {

// Stands for the data of a tensor that is given and has none to look at; never read or written.
alignas(256) std::byte no_data;

// A C caller may have put any number into an enum; read as one it would be undefined.
template <typename Enum>
std::int32_t number_of(const Enum& value) {
  std::int32_t number = 0;
  static_assert(sizeof(value) == sizeof(number));
  std::memcpy(&number, &value, sizeof(number));
  return number;
}

class Reader {
 public:
  template <typename Args>
  Reader(std::string_view op, const Args& args, ops::Checked checked) : op_(op), checked_(checked) {
    const std::int32_t device = number_of(args.device);
    require(device == LATHE_CPU || device == LATHE_CUDA,
            "{}: device is {}, allowed are LATHE_CPU ({}) and LATHE_CUDA ({})", op_, device,
            static_cast<int>(LATHE_CPU), static_cast<int>(LATHE_CUDA));
    device_ = device == LATHE_CPU ? DeviceKind::cpu : DeviceKind::cuda;
  }

  TensorView tensor(std::string_view name, const lathe_tensor& tensor) const {
    TensorView view;
    view.device = device_;
    if (tensor.rank == 0) return view;
    require(tensor.rank > 0 && tensor.rank <= kMaxRank, "{}: {} has rank {}, allowed are 0 (not given) to {}", op_,
            name, tensor.rank, kMaxRank);
    view.rank = tensor.rank;
    view.dtype = dtype(name, number_of(tensor.dtype));
    const auto rank = static_cast<std::size_t>(tensor.rank);
    std::copy_n(tensor.shape, rank, view.shape.begin());
    std::copy_n(tensor.strides, rank, view.strides.begin());
    const std::span<const std::int64_t> shape(tensor.shape, rank);
    if (std::ranges::min(shape) < 0) refuse("{}: {} has shape {}", op_, name, format_shape(shape));
    const bool looked_at = checked_ == ops::Checked::values && std::ranges::find(shape, 0) == shape.end();
    view.data = looked_at ? tensor.data : &no_data;
    require(view.data != nullptr, "{}: {} has data NULL and {} dimensions; a tensor that is not given has 0", op_, name,
            tensor.rank);
    return view;
  }

  bool flag(std::string_view name, std::int32_t value) const {
    require(value == 0 || value == 1, "{}: {} is {}, allowed are 0 and 1", op_, name, value);
    return value == 1;
  }

 private:
  DType dtype(std::string_view name, std::int32_t number) const {
    constexpr std::array kDTypes{DType::f32, DType::f64, DType::bf16, DType::i32};  // in lathe_dtype's order
    static_assert(LATHE_F32 == 0 && LATHE_F64 == 1 && LATHE_BF16 == 2 && LATHE_I32 == 3);
    require(number >= 0 && number < std::ssize(kDTypes), "{}: {} has dtype {}, allowed are 0 to {}", op_, name, number,
            std::ssize(kDTypes) - 1);
    return kDTypes[static_cast<std::size_t>(number)];
  }

  std::string_view op_;
  ops::Checked checked_;
  DeviceKind device_;
};

// What forward and backward share.
template <typename Op, typename Args>
void read_common(const Reader& read, const Args& args, Op& op) {
  op.q_nope = read.tensor("q_nope", args.q_nope);
  op.q_pe = read.tensor("q_pe", args.q_pe);
  op.k_nope = read.tensor("k_nope", args.k_nope);
  op.k_pe = read.tensor("k_pe", args.k_pe);
  op.v = read.tensor("v", args.v);
  op.out = read.tensor("o", args.o);
  op.lse = read.tensor("lse", args.lse);
  op.cu_seqlens_q = read.tensor("cu_seqlens_q", args.cu_seqlens_q);
  op.cu_seqlens_k = read.tensor("cu_seqlens_k", args.cu_seqlens_k);
  op.softmax_scale = args.softmax_scale;
  op.causal = read.flag("causal", args.causal);
}

}  // namespace

ops::MlaAttentionForward op_of(const lathe_mla_forward_args& args, ops::Checked checked) {
  const Reader read("mla_attention_forward", args, checked);
  ops::MlaAttentionForward op;
  read_common(read, args, op);
  return op;
}

ops::MlaAttentionBackward op_of(const lathe_mla_backward_args& args, ops::Checked checked) {
  const Reader read("mla_attention_backward", args, checked);
  ops::MlaAttentionBackward op;
  read_common(read, args, op);
  op.dout = read.tensor("do", args.do_);
  op.dlse = read.tensor("dlse", args.dlse);
  op.dq_nope = read.tensor("dq_nope", args.dq_nope);
  op.dq_pe = read.tensor("dq_pe", args.dq_pe);
  op.dk_nope = read.tensor("dk_nope", args.dk_nope);
  op.dk_pe = read.tensor("dk_pe", args.dk_pe);
  op.dv = read.tensor("dv", args.dv);
  op.deterministic = read.flag("deterministic", args.deterministic);
  return op;
}

}  // namespace lathe::capi
