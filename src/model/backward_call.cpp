// SPDX-License-Identifier: Apache-2.0
#include "backward_call.hpp"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

namespace fsllm::detail {
namespace {

using torch::autograd::AutogradContext;
using Tensors = torch::autograd::variable_list;

struct Call final : torch::CustomClassHolder {
  std::function<void()> function;
};

struct BackwardCall : torch::autograd::Function<BackwardCall> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, c10::intrusive_ptr<Call> const& call) {
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return x;
  }
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const capsule = ctx->saved_data["call"].toCapsule();
    static_cast<Call const&>(*capsule).function();
    return {grads[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor with_backward_call(at::Tensor const& x, std::function<void()> call) {
  if (!x.requires_grad()) return x;
  auto holder = c10::make_intrusive<Call>();
  holder->function = std::move(call);
  return BackwardCall::apply(x, holder);
}

}  // namespace fsllm::detail
