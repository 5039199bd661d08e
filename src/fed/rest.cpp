// SPDX-License-Identifier: Apache-2.0
// Rounds that stop halfway: what a rank keeps of its turns, and how it goes on with them.
#include <algorithm>

#include "fsllm/fed/plan.hpp"
#include "rank_work.hpp"
#include "real_time.hpp"

namespace fsllm::detail {

/// Is what this run does in a round such that a part of it can wait? The same on every rank.
bool RankWork::can_rest() const {
  return f_.group == nullptr && !real_time_ && algorithm_.components == 1 && f_.config.clients_per_pass == 1;
}

/// This rank's tasks that are still to be done: where they were, if the ranks are as many as before (fp32
/// sums then have the bits of an undisturbed round), else dealt anew.
std::vector<std::vector<ClientTask>> RankWork::remaining(RoundPlan const& plan) const {
  if (!earlier_) return own_cohorts(plan);
  auto const drop_ended = [&](std::vector<std::vector<ClientTask>>& cohorts) {
    for (auto& cohort : cohorts)
      std::erase_if(cohort, [&](ClientTask const& task) {
        return earlier_->ended.contains({task.client, task.version});
      });
    std::erase_if(cohorts, [](auto const& cohort) { return cohort.empty(); });
  };
  bool const as_before = earlier_->ranks == comm_.size();
  auto all = plan;
  if (!as_before) drop_ended(all.cohorts);
  auto mine = own_cohorts(all);
  drop_ended(mine);
  return mine;
}

/// Keeps a turn between two steps. Turns of several trainings begin anew.
void RankWork::rest(ClientTurn const& turn, LocalTraining const& training) {
  if (!can_rest() || algorithm_.parts.size() > 1 || algorithm_.personal_training) return;
  auto state = training.state();
  state.optimizer = clone(moved(state.optimizer, at::kCPU));
  resting_ = RestingTurn{turn.task.client, turn.task.version, clone(moved(turn.parameters, at::kCPU)),
                         std::move(state)};
}

/// The state in which an earlier start left this turn, once.
std::optional<RestingTurn> RankWork::take_resting(ClientTask const& task) {
  if (!earlier_) return {};
  auto found = earlier_->resting.extract({task.client, task.version});
  return found ? std::optional(std::move(found.mapped())) : std::nullopt;
}

/// What this rank has done of the tasks `mine` of a round that stops here.
void RankWork::keep_unfinished(std::vector<std::vector<ClientTask>> const& mine,
                               std::vector<ClientReport> const& reports, Aggregation const& aggregation) {
  auto sums = aggregation.state();
  if (!sums) return;
  unfinished_ = UnfinishedWork{reports, std::move(*sums), {}};
  if (resting_) unfinished_->resting.push_back(std::move(*resting_));
  for (auto const& task : tasks({0, 0, mine}))
    if (auto turn = take_resting(task)) unfinished_->resting.push_back(std::move(*turn));
}

}  // namespace fsllm::detail
