// SPDX-License-Identifier: Apache-2.0
#include "probe.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

namespace fsllm {

at::Tensor probe_logits(CausalLM& model) {
  at::NoGradGuard const no_grad;
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < std::min<int64_t>(16, model.config().max_positions); ++i)
    ids.push_back((7 + 37 * i) % model.config().vocab_size);
  RaggedInput input{at::tensor(ids, at::kLong), {0, static_cast<int64_t>(ids.size())}};
  auto const pass = model.pass(input);
  return model.logits(model.hidden_states(input.ids, pass), pass);
}

}  // namespace fsllm
