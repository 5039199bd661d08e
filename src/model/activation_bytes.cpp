// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/activation_bytes.hpp"

#include <ATen/ops/zeros.h>

#include <array>

#include "recompute.hpp"

namespace fsllm {

ActivationBytes count_activations(CausalLM& model, TensorMap const& trained, Checkpointing checkpointing) {
  auto beside = model.parameters();
  beside.insert(trained.begin(), trained.end());
  set_checkpointing(model, checkpointing);
  constexpr double kStep = 6;  // short rows are enough for a polynomial of degree two
  std::array<double, 3> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) {
    auto const length = static_cast<int64_t>(kStep) * static_cast<int64_t>(i + 1);
    RaggedInput const input{at::zeros({length}, at::kLong), {0, length}};
    PassOptions const options{.segments = {{.rows = 1}}};
    bytes[i] = static_cast<double>(
        detail::saved_bytes([&] { model.hidden_states(input.ids, model.pass(input, options)); }, beside));
  }
  auto const [one, two, three] = bytes;
  double const square = (three - 2 * two + one) / (2 * kStep * kStep);
  double const linear = (two - one) / kStep - 3 * kStep * square;
  return {one - kStep * (linear + kStep * square), linear, square};
}

}  // namespace fsllm
