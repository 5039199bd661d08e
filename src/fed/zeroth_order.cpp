// SPDX-License-Identifier: Apache-2.0
// Clients that train by MeZO: slopes along random directions in the place of updates.
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/config.hpp"

namespace fsllm {
namespace {

constexpr char const *kSlopes = "mezo.slopes", *kRates = "mezo.rates";

/// [clients of the round, most steps]: each client fills its row.
TensorMap rows_of(RoundPlan const& plan) {
  auto const all = tasks(plan);
  int64_t steps = 0;
  for (auto const& task : all) steps = std::max(steps, task.steps);
  TensorMap rows;
  for (auto const* name : {kSlopes, kRates})
    rows.emplace(name, at::zeros({std::ssize(all), steps}, at::kDouble));
  return rows;
}

Message scalars_of(ClientTurn const& turn) {
  auto const all = tasks(turn.plan);
  auto const row = std::ranges::find(all, turn.task.client, &ClientTask::client) - all.begin();
  auto rows = rows_of(turn.plan);
  auto const slopes = rows.at(kSlopes)[row], rates = rows.at(kRates)[row];
  for (int64_t step = 0; step < std::ssize(turn.moves); ++step) {
    auto const& move = turn.moves[static_cast<size_t>(step)];
    slopes[step].fill_(move.slope);
    rates[step].fill_(move.rate);
  }
  return {{}, rows, {}};
}

/// Makes Σ p_k Σ_j -η_kj ρ_kj z_kj anew, and moves the weights by it as the algorithm does by a mean update.
class Replay : public SurroundingStep {
 public:
  Replay(std::unique_ptr<ServerStep> moves, uint64_t seed) : SurroundingStep(std::move(moves)), seed_(seed) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    Message update;
    for (auto const& [name, weight] : server.weights)
      update.mean.emplace(name, mean_update(name, weight, arrived.sum, plan));
    inner->step(server, update, plan);
  }

 private:
  at::Tensor mean_update(std::string const& name, at::Tensor const& weight, TensorMap const& rows,
                         RoundPlan const& plan) const {
    auto const sum = at::zeros(weight.sizes(), at::kDouble);
    auto const slopes = rows.at(kSlopes).accessor<double, 2>(), rates = rows.at(kRates).accessor<double, 2>();
    double weights = 0;
    int64_t row = 0;
    for (auto const& task : tasks(plan)) {
      weights += task.weight;
      for (int64_t step = 0; step < task.steps; ++step) {
        double const factor = -task.weight * rates[row][step] * slopes[row][step];
        if (factor != 0) add_normal(sum, factor, name, {seed_, task.client, task.version, step});
      }
      ++row;
    }
    return sum.div_(weights).to(weight.options());
  }

  uint64_t seed_;
};

}  // namespace

/// FedMeZO (Ling et al. 2024, "On the convergence of zeroth-order federated tuning for large language
/// models"): FedAvg of clients that train by MeZO. That they send scalars alone is FedKSeed's (Qin et al.
/// 2024), whose directions come from K seeds; here each step has one of its own.
void zeroth_order(Config const& config, FedConfig& fed) {
  auto& algorithm = fed.algorithm;
  auto const refuse = [&](bool refused, std::string const& what, char const* why) {
    FSLLM_CHECK(!refused, "{} = MeZO with {} ({}). Use one of the two.", config.where("train.optimizer.type"),
                what, why);
  };
  auto const method = "federate.method = " + fed.method,
             lora = "federate.lora_aggregation = " + algorithm.lora_rule;
  refuse(!algorithm.gradients.empty(), config.has("fedprox.use") ? "fedprox.use" : method,
         "which changes gradients, and there are none");
  refuse(algorithm.parts.size() != 1 || algorithm.parts.front().adjust || algorithm.personal_training, method,
         "whose clients train in parts, by gradients");
  refuse(bool(algorithm.rests) || algorithm.trains_cores, lora,
         "which goes by gradients: a random direction moves all that is trained");
  refuse(fed.keep_optimizer, "federate.keep_optimizer", "it keeps nothing from step to step");
  refuse(fed.clients_per_pass > 1, "hpc.clients_per_pass", "each client has a direction of its own");
  refuse(fed.asyn.use, "asyn.use", "the server replays the steps of clients that began together");
  if (algorithm.kind == Kind::none) return;
  refuse(algorithm.makes_factors, lora, "which needs the clients' factors, and they send scalars");
  refuse(bool(algorithm.client_state), algorithm.local_param.empty() ? method : "personalization.local_param",
         "clients would keep what the server replays");
  refuse(algorithm.kind == Kind::gather || !algorithm.transforms.empty(), "aggregator.robust_rule",
         "which needs the clients' updates, and they send scalars");
  algorithm.averaged = {};
  algorithm.planned_sums = rows_of;
  algorithm.finish = [](ClientTurn& turn) { return scalars_of(turn); };
  algorithm.server_step = [inner = algorithm.server_step, seed = fed.seed](TensorMap const& weights) {
    return std::make_unique<Replay>(inner(weights), seed);
  };
}

}  // namespace fsllm
