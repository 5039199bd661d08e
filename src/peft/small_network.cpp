// SPDX-License-Identifier: Apache-2.0
// What bottleneck adapters are made of.
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>

#include <cmath>

#include "bottleneck.hpp"
#include "random.hpp"

namespace fsllm::detail {

Projection Projection::make(int64_t in, int64_t out, at::Tensor const& rule, at::Device device) {
  Projection made;
  made.bias = trainable({out}, device);
  if (rule.defined()) {
    int64_t const n = rule.size(0);
    made.rule = rule;
    made.left = trainable({n, in / n, 1}, device);
    made.right = trainable({n, 1, out / n}, device);
  } else {
    made.weight = trainable({out, in}, device);
  }
  return made;
}

at::Tensor Projection::apply(at::Tensor const& x) const {
  auto const type = x.scalar_type();
  auto const matrix =
      weight.defined() ? weight.to(type).t() : hypercomplex_matrix(rule, left, right).to(type);
  return at::addmm(bias.to(type), x, matrix);
}

void Projection::add_to(TensorMap& state, std::string const& path) const {
  state.emplace(path + ".bias", bias);
  if (weight.defined()) {
    state.emplace(path + ".weight", weight);
    return;
  }
  state.emplace(path + ".W_left", left);
  state.emplace(path + ".W_right", right);
}

void Projection::initialize(Start how, std::function<Philox()> const& next) const {
  bias.zero_();
  if (rule.defined()) {
    for (auto const* factors : {&left, &right})
      fill_normal(*factors, std::sqrt(2 / static_cast<double>(factors->size(1) + factors->size(2))), next());
    return;
  }
  switch (how) {
    case Start::bert:
      return fill_normal(weight, 0.02, next());
    case Start::kaiming:
      return fill_uniform(weight, 1 / std::sqrt(static_cast<double>(weight.size(1))), next());
    case Start::zero:
      weight.zero_();
  }
}

void SmallNetwork::add_to(TensorMap& state, std::string const& path) const {
  down.add_to(state, path + ".adapter_down");
  up.add_to(state, path + ".adapter_up");
}

at::Tensor Coupling::before(at::Tensor const& x, Pass const&) {
  int64_t const half = x.size(1) / 2;
  auto const first = x.narrow(1, 0, half), second = x.narrow(1, half, x.size(1) - half);
  auto const moved = first.add(f.apply(second));
  return at::cat({moved, second.add(g.apply(moved))}, 1);
}

at::Tensor Coupling::after(at::Tensor const& x, Pass const&) {
  int64_t const half = x.size(1) / 2;
  auto const first = x.narrow(1, 0, half), second = x.narrow(1, half, x.size(1) - half);
  auto const restored = second.sub(g.apply(first));
  return at::cat({first.sub(f.apply(restored)), restored}, 1);
}

}  // namespace fsllm::detail
