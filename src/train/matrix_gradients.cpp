// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/matrix_gradients.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "fsllm/core/finite.hpp"
#include "fsllm/train/loss.hpp"

namespace fsllm {
namespace {

using torch::autograd::AutogradContext;
using Tensors = torch::autograd::variable_list;

/// y + x Vᵀ for a V [out, in] of zeros, which is there for its gradient.
struct AddNothing : torch::autograd::Function<AddNothing> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, at::Tensor const& y,
                            at::Tensor const& /*v*/) {
    ctx->save_for_backward({x});
    return y.clone();
  }
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const x = ctx->get_saved_variables().at(0);
    return {at::Tensor(), grads[0], at::mm(grads[0].t(), x).to(at::kFloat)};
  }
};

struct GradientProbe final : LinearAdapter {
  at::Tensor v;
  std::vector<at::Tensor> parameters() const override { return {v}; }
  at::Tensor apply(at::Tensor const& x, at::Tensor const& y, Linear const&, Pass const&) override {
    return AddNothing::apply(x, y, v);
  }
};

/// Probes in the adapter slots of modules, as long as it lives.
class Probes {
 public:
  Probes(CausalLM& model, std::vector<std::string> const& modules) {
    for (auto const& module : modules) {
      auto& linear = module_of(model, module);
      auto probe = std::make_shared<GradientProbe>();
      probe->v = at::zeros({1, 1}, at::TensorOptions().dtype(at::kFloat).device(linear.device()))
                     .expand({linear.out_features(), linear.in_features()})
                     .set_requires_grad(true);
      places_.push_back({&linear, linear.adapter, probe});
      linear.adapter = probe;
    }
  }
  ~Probes() {
    for (auto const& place : places_) place.linear->adapter = place.before;
  }
  Probes(Probes const&) = delete;
  Probes& operator=(Probes const&) = delete;
  TensorMap gradients() const {
    TensorMap all;
    for (auto const& place : places_) {
      auto const& v = place.probe->v;
      all.emplace(place.linear->name, v.grad().defined() ? v.grad() : at::zeros_like(v).contiguous());
    }
    return all;
  }

 private:
  struct Place {
    Linear* linear;
    std::shared_ptr<LinearAdapter> before;
    std::shared_ptr<GradientProbe> probe;
  };
  std::vector<Place> places_;
};

}  // namespace

TensorMap matrix_gradients(CausalLM& model, std::vector<std::string> const& modules,
                           LocalTraining::Prepared const& step) {
  for (double scale = step.loss_scale;; scale /= 2) {
    Probes const probes(model, modules);
    auto const targets = static_cast<double>(step.targets);
    for (auto const& batch : step.batches)
      if (batch.num_targets() > 0)
        at::div(summed_loss(model, batch, step.dropout, scale / targets), targets).mul(scale).backward();
    auto gradients = probes.gradients();
    if (scale > 1 && !first_not_finite(gradients).empty()) continue;
    for (auto const& [name, gradient] : gradients) gradient.div_(scale);
    return gradients;
  }
}

at::Tensor first_update(OptimizerConfig const& config, at::Tensor const& gradient) {
  TensorMap const zero{{"update", at::zeros_like(gradient).contiguous().set_requires_grad(true)}};
  auto const& update = zero.begin()->second;
  update.mutable_grad() = gradient;
  Optimizer(config, zero).step();
  return update.detach();
}

}  // namespace fsllm
