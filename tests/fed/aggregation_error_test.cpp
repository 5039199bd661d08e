// SPDX-License-Identifier: Apache-2.0
// How far what an aggregation makes is from the mean of the clients' products of factors.
#include <ATen/ATen.h>

#include <cmath>

#include "fsllm/fed/aggregate.hpp"
#include "lora_rounds.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

/// The sketch of 8 columns is within its standard errors of the exact error of averaged factors.
TEST(AggregationError, OfAveragedFactorsIsMeasured) {
  for (auto const* rule : {"fedavg", "ffa", "rolora"}) {
    auto const rounds =
        train_lora(fmt::format("federate: {{lora_aggregation: {}}}", rule), false, Communicator::self());
    for (auto const& round : rounds) {
      double error = 0, all = 0;
      for (auto const& matrix : kMatrices) {
        auto const exact = mean_product(round, matrix);
        all += exact.square().sum().item<double>();
        error += exact.sub(round.change_of(matrix)).square().sum().item<double>();
      }
      double const exact = std::sqrt(error / all), measured = round.facts.at("aggregation_error"),
                   deviation = round.facts.at("aggregation_error_se");
      EXPECT_NEAR(measured, exact, 3 * deviation + 1e-6) << rule;
      EXPECT_LT(deviation, 0.3 * exact + 1e-6) << rule;
      EXPECT_EQ(exact > 0.1, std::string(rule) == "fedavg") << exact;
      EXPECT_EQ(exact > 1e-6, std::string(rule) == "fedavg") << exact;
    }
  }
}

/// Where clients send another model than they have trained, the error is that of what they send.
TEST(AggregationError, IsThatOfWhatIsSent) {
  auto const lora = factors_of_run(false);
  FedAlgorithm algorithm;
  algorithm.lora_rule = "fedavg";
  algorithm.finish = [](ClientTurn& turn) {
    for (auto& [name, tensor] : turn.update) tensor = tensor.mul(turn.task.client == 1 ? 0.5 : -0.25);
    return Message{turn.update, {}, {}};
  };
  bind_factors(algorithm, lora);
  ServerState server{first_weights(0), {}, {}, {}};
  auto const aggregation =
      make_exact_aggregation({algorithm.averaged(server.weights), algorithm.summed(server.weights), {}}, 48);
  RoundPlan const plan{0, 2, {{{1, 0, 0.75}}, {{2, 0, 0.25}}}};
  double error = 0, all = 0;
  std::map<std::string, at::Tensor> exact, a, b;
  for (auto const& task : tasks(plan)) {
    auto parameters = clone(server.weights);
    uint64_t site = 0;
    for (auto& [name, tensor] : parameters)
      tensor.add_(noise(1, tensor.numel(), task.client, 0, ++site).view(tensor.sizes()));
    TensorMap state;
    ClientTurn turn{plan, task, server, server.weights, parameters, state, {}, {}};
    turn.update = subtract(parameters, server.weights);
    aggregation->add(message_of(algorithm, turn), task);
    for (auto const& matrix : kMatrices) {
      auto const sent = [&](std::string const& name) {
        return server.weights.at(name).add(turn.update.at(name)).to(at::kDouble);
      };
      auto const own_b = sent(name_b(matrix)), own_a = sent(name_a(matrix));
      auto const add = [&](at::Tensor& sum, at::Tensor const& value) {
        sum = sum.defined() ? sum.add(value, task.weight) : value.mul(task.weight);
      };
      add(exact[matrix.module], own_b.mm(own_a).mul(matrix.s));
      add(a[matrix.module], own_a);
      add(b[matrix.module], own_b);
    }
  }
  auto const collective = make_host_collective(Communicator::self());
  auto const step = algorithm.server_step(server.weights);
  step->step(server, aggregation->reduce(*collective), plan);
  for (auto const& matrix : kMatrices) {
    all += exact[matrix.module].square().sum().item<double>();
    error += exact[matrix.module]
                 .sub(b[matrix.module].mm(a[matrix.module]), matrix.s)
                 .square()
                 .sum()
                 .item<double>();
  }
  EXPECT_NEAR(server.facts.at("aggregation_error"), std::sqrt(error / all),
              3 * server.facts.at("aggregation_error_se") + 1e-6);
  EXPECT_LT(server.facts.at("aggregation_error_se"), 0.3 * std::sqrt(error / all));
}

/// FRLoRA averages the factors; what FedASK cuts off is known where its sketch holds the whole sum.
TEST(AggregationError, OfOtherSums) {
  auto const root_of = [](double error, double all) { return std::sqrt(error / all); };
  for (auto const& round : train_lora("federate: {lora_aggregation: frlora}", false, Communicator::self())) {
    double error = 0, all = 0;
    for (auto const& matrix : kMatrices) {
      auto b = at::zeros({matrix.out, kRank}, at::kDouble), a = at::zeros({kRank, matrix.in}, at::kDouble);
      for (int64_t k = 0; k < kClients; ++k) {
        b.add_(round.clients.at(matrix.module)[static_cast<size_t>(k)].b, weight_of(k));
        a.add_(round.clients.at(matrix.module)[static_cast<size_t>(k)].a, weight_of(k));
      }
      auto const exact = mean_product(round, matrix);
      all += exact.square().sum().item<double>();
      error += exact.sub(b.mm(a)).square().sum().item<double>();
    }
    double const deviation = round.facts.at("aggregation_error_se");
    EXPECT_NEAR(round.facts.at("aggregation_error"), root_of(error, all), 3 * deviation + 1e-6);
    EXPECT_LT(deviation, 0.3 * root_of(error, all));
  }
  auto const yaml = "federate: {lora_aggregation: fedask, lora_oversampling: 16}";
  for (auto const& round : train_lora(yaml, true, Communicator::self())) {
    double error = 0, all = 0;
    for (auto const& matrix : kMatrices) {
      auto const exact = mean_product(round, matrix);
      all += exact.square().sum().item<double>();
      error += exact.sub(best_of_rank(exact, kRank)).square().sum().item<double>();
    }
    EXPECT_GT(error, 0);
    EXPECT_NEAR(round.facts.at("aggregation_error"), root_of(error, all), 1e-6);
  }
}

}  // namespace
}  // namespace fsllm::test
