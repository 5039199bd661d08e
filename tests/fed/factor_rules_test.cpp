// SPDX-License-Identifier: Apache-2.0
// Rules for the factors of LoRA against dense matrices in float64. Runs on 1, 2 and 4 ranks.
#include <ATen/ATen.h>

#include <cmath>

#include "fsllm/fed/aggregate.hpp"
#include "lora_rounds.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

double relative(at::Tensor const& difference, at::Tensor const& of) {
  return (difference.norm() / of.norm()).item<double>();
}

/// The rule on one rank and on all, each round against `expected`; the same bits.
void expect_rounds(std::string const& rule, bool unequal,
                   std::function<at::Tensor(Round const&, Matrix const&)> const& expected,
                   double tolerance = 1e-6) {
  auto const yaml = "federate: {" + rule + "}";
  auto const alone = train_lora(yaml, unequal, Communicator::self());
  for (size_t i = 0; i < alone.size(); ++i) {
    for (auto const& matrix : kMatrices) {
      auto const wanted = expected(alone[i], matrix);
      EXPECT_LT(relative(alone[i].change_of(matrix).sub(wanted), wanted), tolerance)
          << rule << " " << matrix.module << " round " << i << " unequal " << unequal;
    }
    auto bias = i == 0 ? at::zeros({3}) : alone[i - 1].weights.at("z.bias").clone();
    for (int64_t k = 0; k < kClients; ++k)
      bias.add_(noise(1, 3, k, static_cast<int64_t>(i), 5)[0], weight_of(k));
    EXPECT_TRUE(tensors_near(alone[i].weights.at("z.bias"), bias, 1e-6)) << rule;
  }
  auto const together = train_lora(yaml, unequal, Communicator::world());
  for (size_t i = 0; i < alone.size(); ++i)
    for (auto const& [name, tensor] : alone[i].weights)
      EXPECT_TRUE(tensor.equal(together[i].weights.at(name))) << rule << " " << name << " round " << i;
  if (Communicator::world().rank() == 0) {
    EXPECT_EQ(alone.back().facts, together.back().facts) << rule;
  }
}

TEST(FactorRules, ExactOnesGiveTheMeanOfTheProducts) {
  for (bool const unequal : {false, true})
    // The frozen matrices carry what was learned before.
    expect_rounds("lora_aggregation: flora", unequal, [](Round const& round, Matrix const& matrix) {
      return round.before.at(matrix.module).add(mean_product(round, matrix));
    });
}

/// W0 + overlay + s B̄Ā = W0 + overlay of before + Σ p_k s_k B_k A_k.
TEST(FactorRules, FedexAddsWhatTheMeansOfFactorsLack) {
  for (bool const unequal : {false, true}) {
    std::map<std::string, at::Tensor> overlay;
    for (auto const& matrix : kMatrices)
      overlay[matrix.module] = at::zeros({matrix.out, matrix.in}, at::kDouble);
    expect_rounds("lora_aggregation: fedex", unequal, [&](Round const& round, Matrix const& matrix) {
      auto const expected = overlay[matrix.module].add(mean_product(round, matrix));
      overlay[matrix.module] = round.base.at(matrix.module);
      return expected;
    });
    auto const rounds = train_lora("federate: {lora_aggregation: fedex}", unequal, Communicator::self());
    for (auto const& matrix : kMatrices) {
      auto mean = at::zeros({kRank, matrix.in}, at::kDouble);
      for (int64_t k = 0; k < kClients; ++k)
        mean.add_(rounds[0].clients.at(matrix.module)[static_cast<size_t>(k)].a, weight_of(k));
      EXPECT_LT(relative(rounds[0].weights.at(name_a(matrix)).to(at::kDouble).sub(mean), mean), 1e-6);
    }
    EXPECT_LT(rounds.back().facts.at("aggregation_error"), 1e-6);
  }
}

TEST(FactorRules, FlexloraAndFedaskGiveTheBestOfTheRank) {
  auto const best = [](Round const& round, Matrix const& matrix) {
    return best_of_rank(mean_product(round, matrix), kRank);
  };
  for (bool const unequal : {false, true}) {
    expect_rounds("lora_aggregation: flexlora", unequal, best);
    // 4 + 16 columns are as many as all ranks together.
    expect_rounds("lora_aggregation: fedask, lora_oversampling: 16", unequal, best);
  }
  auto const rounds = train_lora("federate: {lora_aggregation: flexlora}", true, Communicator::self());
  double lost = 0, all = 0;
  for (auto const& matrix : kMatrices) {
    auto const a = rounds[2].weights.at(name_a(matrix)).to(at::kDouble);
    EXPECT_TRUE(tensors_near(a.mm(a.t()), at::eye(kRank, at::kDouble), 1e-6));
    auto const exact = mean_product(rounds[2], matrix);
    all += exact.square().sum().item<double>();
    lost += exact.sub(best_of_rank(exact, kRank)).square().sum().item<double>();
  }
  EXPECT_GT(lost, 0);
  EXPECT_NEAR(rounds[2].facts.at("aggregation_error"), std::sqrt(lost / all), 1e-6);
}

/// A narrow sketch loses little beyond the best.
TEST(FactorRules, FedaskWithFewColumnsIsNearTheBest) {
  auto const rounds =
      train_lora("federate: {lora_aggregation: fedask, lora_oversampling: 4}", false, Communicator::self());
  for (auto const& matrix : kMatrices) {
    auto const exact = mean_product(rounds[0], matrix);
    double const best = relative(exact.sub(best_of_rank(exact, kRank)), exact);
    double const got = relative(exact.sub(rounds[0].change_of(matrix)), exact);
    EXPECT_GE(got, best - 1e-9);
    EXPECT_LT(got, 2 * best);
  }
}

TEST(FactorRules, FlexloraKeepsTheEnergyThatIsAskedFor) {
  for (double const energy : {0.3, 0.6})
    expect_rounds(fmt::format("lora_aggregation: flexlora, lora_energy: {}", energy), true,
                  [&](Round const& round, Matrix const& matrix) {
                    auto const exact = mean_product(round, matrix);
                    auto const s = std::get<1>(at::linalg_svd(exact, false)).square();
                    int64_t rank = 0;
                    while (s.narrow(0, 0, rank).sum().item<double>() < energy * s.sum().item<double>())
                      ++rank;
                    return best_of_rank(exact, std::min(rank, kRank));
                  });
}

/// ω_k ∝ ‖s_k B_k A_k‖ over both matrices; factors folded to the run's s.
TEST(FactorRules, HetloraWeighsByNorms) {
  for (bool const unequal : {false, true})
    expect_rounds("lora_aggregation: hetlora", unequal, [](Round const& round, Matrix const& matrix) {
      std::vector<double> norms(kClients);
      double sum = 0;
      for (size_t k = 0; k < kClients; ++k) {
        for (auto const& [module, clients] : round.clients)
          norms[k] += clients[k].b.mm(clients[k].a).square().sum().item<double>();
        sum += norms[k] = std::sqrt(norms[k]);
      }
      auto b = at::zeros({matrix.out, kRank}, at::kDouble), a = at::zeros({kRank, matrix.in}, at::kDouble);
      for (size_t k = 0; k < kClients; ++k) {
        b.add_(round.clients.at(matrix.module)[k].b, norms[k] / sum);
        a.add_(round.clients.at(matrix.module)[k].a, norms[k] / sum);
      }
      return b.mm(a);
    });
}

/// Ranks 1, 2, 3 and 4 occur: each level over the clients that have it.
TEST(FactorRules, RafloraAveragesRanksOverTheirOwners) {
  expect_rounds("lora_aggregation: raflora", true, [](Round const& round, Matrix const& matrix) {
    auto sum = at::zeros({matrix.out, matrix.in}, at::kDouble);
    for (int64_t level = 1; level <= 4; ++level) {
      double owners = 0;
      for (int64_t k = 0; k < kClients; ++k) owners += kRanks[k] >= level ? kRows[k] : 0;
      for (int64_t k = 0; k < kClients; ++k) {
        if (kRanks[k] < level) continue;
        auto const& [b, a] = round.clients.at(matrix.module)[static_cast<size_t>(k)];
        sum.add_(b.narrow(1, level - 1, 1).mm(a.narrow(0, level - 1, 1)), kRows[k] / owners);
      }
    }
    return best_of_rank(sum, kRank);
  });
  expect_rounds("lora_aggregation: raflora", false, [](Round const& round, Matrix const& matrix) {
    return best_of_rank(mean_product(round, matrix), kRank);
  });
}

/// The best of rank r of W0 is in the factors from the start; W0 + overlay takes up s (B̄Ā - B_0A_0).
TEST(FactorRules, FrloraBeginsWithPrincipalFactors) {
  std::map<std::string, at::Tensor> learned;
  expect_rounds("lora_aggregation: frlora", false, [&](Round const& round, Matrix const& matrix) {
    auto const principal = best_of_rank(frozen(matrix), kRank);
    auto& overlay = learned[matrix.module];
    if (!overlay.defined()) {
      overlay = principal.neg();
      EXPECT_LT(relative(round.before.at(matrix.module), principal), 1e-6) << "the model begins as it was";
    }
    auto b = at::zeros({matrix.out, kRank}, at::kDouble), a = at::zeros({kRank, matrix.in}, at::kDouble);
    for (int64_t k = 0; k < kClients; ++k) {
      b.add_(round.clients.at(matrix.module)[static_cast<size_t>(k)].b, weight_of(k));
      a.add_(round.clients.at(matrix.module)[static_cast<size_t>(k)].a, weight_of(k));
    }
    overlay = overlay.add(b.mm(a)).sub(principal);
    return overlay.add(principal);
  });
}

TEST(FactorRules, RefuseWhatTheyCannotTake) {
  auto const algorithm = [](std::string const& yaml) { return bound_algorithm(yaml, factors_of_run(false)); };
  EXPECT_ERROR(algorithm("federate: {lora_aggregation: flora, method: scaffold}"),
               "the rule itself makes the next factors");
  EXPECT_ERROR(algorithm("{federate: {lora_aggregation: flexlora}, aggregator: {robust_rule: krum}}"),
               "not of their updates");
  EXPECT_ERROR(algorithm("{federate: {lora_aggregation: flora}, personalization: {local_param: [lora_B]}}"),
               "Use one of the two");
  EXPECT_ERROR(bound_algorithm("federate: {lora_aggregation: fedask}", {}),
               "nothing that is trained is a product");
  LoraFactors embedding;
  embedding.targets.push_back({"embed", "embed.lora_embedding_A", "embed.lora_embedding_B", 1});
  EXPECT_ERROR(bound_algorithm("federate: {lora_aggregation: flora}", embedding), "is an embedding");
  auto plain = FedAlgorithm();
  plain.lora_rule = "fedavg";
  EXPECT_ERROR(check_unequal_rank(plain, 2), "Use one of fedask, fedex, flexlora, flora, hetlora, raflora");
}

}  // namespace
}  // namespace fsllm::test
