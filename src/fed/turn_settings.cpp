// SPDX-License-Identifier: Apache-2.0
// With which settings a client trains in a turn, and what becomes of them where a run searches.
#include <functional>

#include "fsllm/comm/stall.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/fed/settings_search.hpp"
#include "rank_work.hpp"

namespace fsllm::detail {

TrainConfig const& RankWork::config_of(ClientTask const& task) const {
  return algorithm_.searched.empty() ? f_.train_config(task.client)
                                     : f_.searched_config(task.client, task.choice);
}

TrainConfig RankWork::config_of(TurnPart const& part, ClientTask const& task) const {
  auto config = config_of(task);
  if (part.adjust) part.adjust(config);
  return config;
}

int64_t RankWork::steps_of_turn(ClientTask const& task) const {
  auto parts = algorithm_.parts;
  if (algorithm_.personal_training) parts.push_back(algorithm_.personal_training->part);
  int64_t steps = 0;
  for (auto const& part : parts)
    steps += planned_steps(config_of(part, task), f_.data.summary(task.client).train.rows);
  return steps * algorithm_.components;
}

/// Each turn's setting, where a run searches for them, and what its validation rows count.
void RankWork::draw_settings(RoundPlan& plan, ServerState const& server) const {
  if (algorithm_.searched.empty()) return;
  int64_t all = 0;
  auto const rows = [&](ClientTask const& task) { return f_.data.summary(task.client).val.rows; };
  for (auto const& task : tasks(plan)) all += rows(task);
  FSLLM_CHECK(all > 0,
              "hpo.fedex.use: round {} (none of its clients has validation rows, by which settings are "
              "judged). Give data.splits a larger second share, or train more clients a round.",
              plan.round + 1);
  for (auto& cohort : plan.cohorts)
    for (auto& task : cohort) {
      task.choice = draw_setting(algorithm_.searched, server, f_.config.seed, task.client, plan.round);
      task.steps = planned_steps(config_of(task), f_.data.summary(task.client).train.rows);
      task.validation_share = static_cast<double>(rows(task)) / static_cast<double>(all);
    }
}

/// Of the live parameters on the client's validation rows, a target (pair); 0 where it has none.
double RankWork::validation_loss(ClientTask const& task) {
  auto const shard = f_.data.shard(task.client);
  if (shard->val.rows() == 0) return 0;
  set_activity(fmt::format("judging the turn of client {}", task.client));
  auto const loss =
      split_loss(f_.model, "val", shard->val, task.client, config_of(task), std::ref(references_), f_.group);
  return loss.sum / static_cast<double>(loss.terms());
}

}  // namespace fsllm::detail
