// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "fsllm/comm/stall.hpp"
#include "fsllm/core/process.hpp"
#include "participants.hpp"
#include "rank_work.hpp"
#include "real_time.hpp"

namespace fsllm::detail {

/// A client of a cohort in its slot.
struct RankWork::Member {
  Member(RoundPlan const& plan, ClientTask const& task, ServerState const& server, TensorMap first,
         TensorMap slot, double lr)
      : start(std::move(first)), parameters(std::move(slot)), turn{plan,  task, server, start, parameters,
                                                                   state, {},   {},     lr} {}
  Member(Member const&) = delete;
  TensorMap start, parameters, state;
  ClientTurn turn;
  std::shared_ptr<ClientShard const> shard;
  std::unique_ptr<LocalTraining> training;
};

/// Clients whose batches share their passes, each with an adapter in a slot of its own.
std::vector<ClientReport> RankWork::train_cohort(RoundPlan const& plan, std::vector<ClientTask> const& cohort,
                                                 ServerState const& server, Aggregation& aggregation,
                                                 Progress& progress) {
  auto const slots = f_.slots(std::ssize(cohort));
  std::vector<std::unique_ptr<Member>> members;
  std::vector<SharedClient> clients;
  for (size_t i = 0; i < cohort.size(); ++i) {
    auto const& task = cohort[i];
    TensorMap slot;
    for (auto const& [name, all] : slots) slot.emplace(name, all.detach()[static_cast<int64_t>(i)]);
    auto& member = *members.emplace_back(
        std::make_unique<Member>(plan, task, server, moved(start_of(task.client, server, {}), device()),
                                 std::move(slot), f_.train_config(task.client).optimizer.lr));
    copy_values(member.parameters, member.start);
    set_activity(fmt::format("reading the shard of client {}", task.client));
    member.shard = f_.data.shard(task.client);
    member.training = training_of(member.turn, member.parameters, hook_of(member.turn, algorithm_.gradients),
                                  algorithm_.parts.front(), f_.train_config(task.client), *member.shard);
    clients.push_back({member.training.get(), &member.parameters});
  }
  auto const works = [](auto const& member) { return !member->training->done(); };
  for (int64_t next = 1; std::ranges::any_of(members, works); ++next) {
    set_activity(
        fmt::format("training clients {} to {}, step {}", cohort.front().client, cohort.back().client, next));
    for (auto const& step : shared_step(f_.model, slots, clients))
      if (step.taken) progress.advance(1, fmt::format("loss {:.3f}", step.loss));
    if (first_step_ == 0) first_step_ = seconds_since_process_start();
    stop_where_asked();
  }
  std::vector<ClientReport> reports;
  for (auto& member : members) {
    note_result(member->turn, member->training->result(), member->training->moves());
    auto const message = message_of(algorithm_, member->turn);
    reports.push_back({member->turn.task.client, member->turn.result, l2_norm(member->turn.update),
                       member->turn.task.version});
    if (algorithm_.kind != Kind::none) aggregation.add(message, member->turn.task);
  }
  return reports;
}

}  // namespace fsllm::detail
