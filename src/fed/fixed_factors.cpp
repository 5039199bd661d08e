// SPDX-License-Identifier: Apache-2.0
// Factors that are chosen before the first round, from the gradients that it would begin with.
#include <ATen/ops/zeros.h>

#include "fsllm/comm/stall.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/train/matrix_gradients.hpp"
#include "run.hpp"
#include "stop.hpp"

namespace fsllm::detail {

void RankWork::add_gradients(RoundPlan const& plan, std::vector<std::string> const& modules,
                             Aggregation& aggregation) {
  for (auto const& task : tasks({0, 0, own_cohorts(plan)})) {
    set_activity(fmt::format("taking the first gradients of client {}", task.client));
    check_launcher();
    auto const shard = f_.data.shard(task.client);
    LocalTraining training(f_.model, f_.parameters, shard->train, f_.train_config(task.client),
                           ClientRound{f_.config.seed, task.client, plan.round, f_.config.rounds});
    aggregation.add({matrix_gradients(f_.model, modules, training.prepare()), {}, {}}, task);
  }
}

/// Collective: with the clients of a synchronous first round, whatever the run's rounds are.
void Run::fix_factors() {
  auto config = config_;
  config.asyn.use = false;
  Schedule schedule;
  auto const plan = plan_round(config, who_.trained, 0, schedule);
  std::vector<std::string> modules;
  Message layout;
  for (auto const& target : f_.lora.targets) {
    auto const& linear = module_of(f_.model, target.module);
    modules.push_back(target.module);
    layout.mean.emplace(target.module,
                        at::zeros({1, 1}).expand({linear.out_features(), linear.in_features()}));
  }
  auto const sum = make_exact_aggregation(layout, static_cast<int>(config_.fixed_point_bits));
  work_.add_gradients(plan, modules, *sum);
  auto const arrived = sum->reduce(f_.collective);
  set_activity("choosing the fixed factors");
  if (server()) algorithm_.fix_factors(state_.server, f_.fixed, arrived.mean);
  f_.collective.broadcast(f_.fixed, 0);
  publish(state_.server.weights);
  log_info("fixed factors of {} matrices follow from the first gradients of {} clients", modules.size(),
           tasks(plan).size());
}

}  // namespace fsllm::detail
