// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/zeroth_order.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

constexpr int64_t kChunk = 1 << 16;

/// Box–Muller: two of N(0, 1) from two words.
void draw_pair(Philox& random, float* out) {
  double const first = (random.next_u32() + 0.5) * 0x1p-32, second = (random.next_u32() + 0.5) * 0x1p-32;
  double const radius = std::sqrt(-2 * std::log(first)), angle = 2 * std::numbers::pi * second;
  out[0] = static_cast<float>(radius * std::cos(angle));
  out[1] = static_cast<float>(radius * std::sin(angle));
}

void move_all(TensorMap const& parameters, double factor, PerturbationKey const& key) {
  for (auto const& [name, tensor] : parameters) add_normal(tensor, factor, name, key);
}

}  // namespace

void add_normal(at::Tensor const& parameter, double factor, std::string const& name,
                PerturbationKey const& key) {
  at::NoGradGuard const no_grad;
  auto const [seed, client, round, step] = key;
  Philox random(derive_seed(seed, Purpose::perturbation, static_cast<uint64_t>(client),
                            static_cast<uint64_t>(round), static_cast<uint64_t>(step)),
                Purpose::perturbation, hash_of(name));
  auto const values = parameter.detach().view({-1});
  auto const z = at::empty({std::min(kChunk, values.numel() + values.numel() % 2)}, at::kFloat);
  auto* const drawn = z.mutable_data_ptr<float>();
  for (int64_t begin = 0; begin < values.numel(); begin += kChunk) {
    int64_t const count = std::min(kChunk, values.numel() - begin);
    for (int64_t i = 0; i < count; i += 2) draw_pair(random, drawn + i);
    values.narrow(0, begin, count).add_(z.narrow(0, 0, count).to(values.options()), factor);
  }
}

std::pair<double, double> losses_around(TensorMap const& parameters, PerturbationKey const& key, double eps,
                                        std::function<double()> const& loss) {
  at::NoGradGuard const no_grad;
  auto const w = clone(parameters);
  auto live = parameters;
  move_all(parameters, eps, key);
  double const plus = loss();
  copy_values(live, w);
  move_all(parameters, -eps, key);
  double const minus = loss();
  copy_values(live, w);
  return {plus, minus};
}

}  // namespace fsllm
