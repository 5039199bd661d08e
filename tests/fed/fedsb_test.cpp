// SPDX-License-Identifier: Apache-2.0
// Fed-SB against dense matrices in float64. Runs on 1, 2 and 4 ranks.
#include <ATen/ATen.h>

#include "fsllm/fed/aggregate.hpp"
#include "lora_rounds.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

std::string name_core(Matrix const& matrix) {
  return std::string(matrix.module) + ".lora_R.weight";
}

LoraFactors cores_of_run() {
  auto lora = factors_of_run(false);
  for (auto& target : lora.targets) target.core = target.module + ".lora_R.weight";
  lora.first_update = [](at::Tensor const& gradient) { return gradient.mul(-0.5); };
  return lora;
}

/// The gradient of one client, as float32.
at::Tensor gradient_of(Matrix const& matrix, int64_t k) {
  return noise(matrix.out, matrix.in, k, 50, 3);
}

struct Cores {
  TensorMap weights, fixed;
  std::map<std::string, double> facts;
  /// s B R A.
  at::Tensor product(Matrix const& matrix, at::Tensor const& core) const {
    return fixed.at(name_b(matrix))
        .to(at::kDouble)
        .mm(core.to(at::kDouble))
        .mm(fixed.at(name_a(matrix)).to(at::kDouble))
        .mul(matrix.s);
  }
};

at::Tensor step_of(Matrix const& matrix, int64_t k, int64_t round) {
  return noise(kRank, kRank, k, round, 8);
}

/// The state before the first round and after each, of clients whose training adds step_of.
std::vector<Cores> train_cores(std::string const& yaml, Communicator const& comm) {
  auto const lora = cores_of_run();
  auto const algorithm = bound_algorithm(yaml, lora);
  auto const collective = make_host_collective(comm);
  ServerState server;
  Cores now;
  TensorMap dense;
  for (auto const& matrix : kMatrices) {
    server.weights.emplace(name_core(matrix), at::zeros({kRank, kRank}));
    now.fixed.emplace(name_a(matrix), at::zeros({kRank, matrix.in}));
    now.fixed.emplace(name_b(matrix), at::zeros({matrix.out, kRank}));
    dense.emplace(matrix.module, at::zeros({matrix.out, matrix.in}));
  }
  auto const step = algorithm.server_step(server.weights);
  auto const sum_of = [&](TensorMap const& layout, auto const& message_of_client) {
    auto const sum = make_exact_aggregation({layout, {}, {}}, 48);
    for (int64_t k = 0; k < kClients; ++k)
      if (k % comm.size() == comm.rank()) sum->add({message_of_client(k), {}, {}}, {k + 1, 0, weight_of(k)});
    return sum->reduce(*collective);
  };
  auto const gradients = sum_of(dense, [](int64_t k) {
    TensorMap all;
    for (auto const& matrix : kMatrices) all.emplace(matrix.module, gradient_of(matrix, k));
    return all;
  });
  if (comm.rank() == 0) algorithm.fix_factors(server, now.fixed, gradients.mean);
  std::vector<Cores> states;
  auto const note = [&] {
    collective->broadcast(server.weights, 0);
    collective->broadcast(now.fixed, 0);
    states.push_back({clone(server.weights), clone(now.fixed), server.facts});
  };
  note();
  for (int64_t round = 0; round < kRounds; ++round) {
    auto const arrived = sum_of(server.weights, [&](int64_t k) {
      TensorMap update;
      for (auto const& matrix : kMatrices) update.emplace(name_core(matrix), step_of(matrix, k, round));
      return update;
    });
    if (comm.rank() == 0) step->step(server, arrived, {round, kClients, {}, {}});
    note();
  }
  return states;
}

/// s B R A begins as the best rank r of the first step, with orthonormal factors, and moves by the mean of
/// the clients' s B ΔR_k A, unequally weighted: nothing is lost.
TEST(FedSb, TheMeanOfTheProductsIsTheProductOfTheMean) {
  auto const alone = train_cores("federate: {lora_aggregation: fedsb}", Communicator::self());
  for (auto const& matrix : kMatrices) {
    auto gradient = at::zeros({matrix.out, matrix.in}, at::kDouble);
    for (int64_t k = 0; k < kClients; ++k)
      gradient.add_(gradient_of(matrix, k).to(at::kDouble), weight_of(k));
    auto expected = best_of_rank(gradient.mul(-0.5), kRank);
    auto const near = [&](at::Tensor const& got, at::Tensor const& wanted) {
      EXPECT_LT((got.sub(wanted).norm() / wanted.norm()).item<double>(), 1e-6) << matrix.module;
    };
    auto const a = alone[0].fixed.at(name_a(matrix)).to(at::kDouble),
               b = alone[0].fixed.at(name_b(matrix)).to(at::kDouble);
    near(a.mm(a.t()), at::eye(kRank, at::kDouble));
    near(b.t().mm(b), at::eye(kRank, at::kDouble));
    near(alone[0].product(matrix, alone[0].weights.at(name_core(matrix))), expected);
    for (int64_t round = 0; round < kRounds; ++round) {
      auto const& state = alone[static_cast<size_t>(round + 1)];
      for (int64_t k = 0; k < kClients; ++k)
        expected.add_(state.product(matrix, step_of(matrix, k, round)), weight_of(k));
      near(state.product(matrix, state.weights.at(name_core(matrix))), expected);
      EXPECT_TRUE(state.fixed.at(name_a(matrix)).equal(alone[0].fixed.at(name_a(matrix))));
    }
  }
  EXPECT_EQ(alone.back().facts.at("aggregation_error"), 0);
  auto const together = train_cores("federate: {lora_aggregation: fedsb}", Communicator::world());
  for (size_t i = 0; i < alone.size(); ++i) {
    for (auto const& [name, tensor] : alone[i].weights)
      EXPECT_TRUE(tensor.equal(together[i].weights.at(name))) << name << i;
    for (auto const& [name, tensor] : alone[i].fixed)
      EXPECT_TRUE(tensor.equal(together[i].fixed.at(name))) << name << i;
  }
}

/// A core is a parameter as any other: what moves, chooses or shortens updates works, and only means are
/// called exact.
TEST(FedSb, GoesWithWhatTakesParameters) {
  auto const bound = [](std::string const& yaml) { return bound_algorithm(yaml, cores_of_run()); };
  for (auto const* yaml : {"federate: {lora_aggregation: fedsb, method: fedopt}",
                           "{federate: {lora_aggregation: fedsb}, fedprox: {use: True}}",
                           "{federate: {lora_aggregation: fedsb}, aggregator: {robust_rule: median}}"}) {
    auto const algorithm = bound(yaml);
    EXPECT_TRUE(algorithm.trains_cores && algorithm.fix_factors) << yaml;
  }
  EXPECT_ERROR(bound("federate: {lora_aggregation: fedsb, method: local}"), "nothing is sent");
  EXPECT_ERROR(bound("federate: {lora_aggregation: fedsb, method: scaffold}"), "keep a state of their own");
  EXPECT_ERROR(bound("{federate: {lora_aggregation: fedsb}, llm: {adapter: {init_from: there}}}"),
               "follow from the first gradient");
  EXPECT_ERROR(bound("{federate: {lora_aggregation: fedsb}, personalization: {local_param: [lora_R]}}"),
               "whose cores the server begins with");
  EXPECT_ERROR(bound_algorithm("federate: {lora_aggregation: fedsb}", {}),
               "nothing that is trained is a product");
  EXPECT_ERROR(check_unequal_rank(bound("federate: {lora_aggregation: fedsb}"), 2), "Use one of");
}

}  // namespace
}  // namespace fsllm::test
