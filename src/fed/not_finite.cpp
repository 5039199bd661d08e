// SPDX-License-Identifier: Apache-2.0
#include "not_finite.hpp"

#include <cmath>

#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "fsllm/model/finite.hpp"

namespace fsllm {

void check_training(CausalLM& model, TensorMap const& parameters, TrainResult const& result,
                    std::string const& who, std::string const& rate) {
  if (result.skipped_steps > 0) check_finite_weights(model);
  auto const bad = first_not_finite(parameters);
  FSLLM_CHECK(bad.empty(), "{} of {} is not finite (the client's training diverged). Lower {}.", bad, who,
              rate);
}

void check_steps(std::vector<ClientReport> const& clients, int64_t round, bool go_on) {
  int64_t steps = 0, skipped = 0, overflowed = 0;
  for (auto const& client : clients) {
    steps += client.result.steps;
    skipped += client.result.skipped_steps;
    overflowed += client.result.overflow_steps;
  }
  FSLLM_CHECK(
      overflowed == 0 || overflowed + skipped < steps || go_on,
      "round {}: no step was taken (the gradients of {} of {} overflowed under the loss scale). Lower "
      "train.initial_scale_power, or train.loss_scale where it is set; or let clients keep the scale that "
      "they find with federate.keep_optimizer: True.",
      round, overflowed, steps);
  FSLLM_CHECK(steps == 0 || skipped < steps,
              "round {}: no step was taken (all {} had a loss or gradient that is not finite, although the "
              "model's weights are). Lower train.optimizer.lr, or use train.compute_dtype: fp32.",
              round, steps);
}

void check_first_losses(ClientLosses const& losses, CausalLM& model) {
  for (auto const& [split, clients] : losses) {
    if (std::isfinite(total(clients).sum)) continue;
    check_finite_weights(model);
    fail(fmt::format(
        "before training: the {} loss is not finite, although the model's weights are (the model or the "
        "adapter that training starts from overflows). Use train.compute_dtype: fp32, or another adapter.",
        split));
  }
}

}  // namespace fsllm
