// SPDX-License-Identifier: Apache-2.0
// Rules for the factors of LoRA against dense matrices in float64: unequal rows, unequal ranks and scales,
// three rounds. Runs on 1, 2 and 4 ranks.
#include <ATen/ATen.h>

#include <cmath>

#include "fsllm/core/rng.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"
#include "fsllm/peft/low_rank.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

constexpr int64_t kClients = 5, kRank = 4, kRounds = 3;
constexpr double kRows[kClients] = {10, 30, 5, 11, 2};
constexpr int64_t kRanks[kClients] = {4, 2, 3, 1, 4};
constexpr double kScales[kClients] = {1, 2, 4.0 / 3, 5, 0.5};  // s_k / s

struct Matrix {
  char const* module;
  int64_t out, in;
  double s;
};
constexpr Matrix kMatrices[] = {{"m", 24, 30, 2}, {"n", 26, 22, 0.5}};

at::Tensor noise(int64_t rows, int64_t columns, int64_t client, int64_t round, uint64_t step) {
  return normal_matrix(rows, columns,
                       {7, Purpose::test, static_cast<uint64_t>(client), static_cast<uint64_t>(round), step})
      .mul_(0.1)
      .to(at::kFloat);
}

std::string name_a(Matrix const& matrix) {
  return std::string(matrix.module) + ".lora_A.weight";
}
std::string name_b(Matrix const& matrix) {
  return std::string(matrix.module) + ".lora_B.weight";
}
TensorMap first_weights(uint64_t seed) {
  TensorMap weights{{"z.bias", at::zeros({3})}};
  for (auto const& matrix : kMatrices) {
    weights.emplace(name_a(matrix), noise(kRank, matrix.in, 100, static_cast<int64_t>(seed % 1000), 0));
    weights.emplace(name_b(matrix), at::zeros({matrix.out, kRank}));
  }
  return weights;
}

at::Tensor frozen(Matrix const& matrix) {
  return noise(matrix.out, matrix.in, 101, 0, hash_of(matrix.module)).to(at::kDouble).mul(5);
}

LoraFactors factors_of_run(bool unequal) {
  LoraFactors lora;
  for (auto const& matrix : kMatrices)
    lora.targets.push_back({matrix.module, name_a(matrix), name_b(matrix), matrix.s});
  for (int64_t k = 0; unequal && k < kClients; ++k) lora.clients[k + 1] = {kRanks[k], kScales[k]};
  lora.seed = 3;
  lora.fresh = first_weights;
  lora.matrix = [](std::string const& module) {
    return frozen(module == kMatrices[0].module ? kMatrices[0] : kMatrices[1]);
  };
  return lora;
}

/// What a round leaves, and of what.
struct Round {
  TensorMap weights;                                    ///< the global ones after it
  std::map<std::string, at::Tensor> base;               ///< what the frozen matrices have beyond W0, after it
  std::map<std::string, at::Tensor> before;             ///< that and s B A, before it
  std::map<std::string, std::vector<Factors>> clients;  ///< with s_k in B, in float64
  std::map<std::string, double> facts;
  at::Tensor change_of(Matrix const& matrix) const {
    return base.at(matrix.module)
        .add(weights.at(name_b(matrix)).to(at::kDouble).mm(weights.at(name_a(matrix)).to(at::kDouble)),
             matrix.s);
  }
};

double weight_of(int64_t k) {
  double sum = 0;
  for (double const rows : kRows) sum += rows;
  return kRows[k] / sum;
}

FedAlgorithm bound_algorithm(std::string const& yaml, LoraFactors const& lora) {
  auto config = Config::parse(yaml, "test.yaml");
  auto const fed = load_fed_config(config);
  config.finish();
  auto algorithm = fed.algorithm;
  bind_factors(algorithm, lora);
  return algorithm;
}

std::vector<Round> train(std::string const& yaml, bool unequal, Communicator const& comm) {
  auto const lora = factors_of_run(unequal);
  auto const algorithm = bound_algorithm(yaml, lora);
  auto const collective = make_host_collective(comm);
  ServerState server{first_weights(0), {}, {}, {}};
  auto const step = algorithm.server_step(server.weights);
  std::vector<Round> rounds;
  std::map<std::string, at::Tensor> base;
  for (auto const& matrix : kMatrices) base[matrix.module] = at::zeros({matrix.out, matrix.in}, at::kDouble);
  auto const serve = [&] {
    for (auto const& matrix : kMatrices)
      if (auto const left = server.base_change.find(matrix.module + std::string(".left"));
          left != server.base_change.end())
        base[matrix.module].add_(
            left->second.to(at::kDouble)
                .mm(server.base_change.at(matrix.module + std::string(".right")).to(at::kDouble)));
    server.base_change.clear();
    collective->broadcast(server.weights, 0);
  };
  if (algorithm.begin) {
    if (comm.rank() == 0) algorithm.begin(server);
    serve();
  }
  for (int64_t round = 0; round < kRounds; ++round) {
    RoundPlan plan{round, kClients, {}};
    for (int64_t k = 0; k < kClients; ++k) plan.cohorts.push_back({{k + 1, round, weight_of(k)}});
    auto const weights = trained_part(algorithm, server.weights, round);
    auto const layout_of = [&](FedAlgorithm::Layout const& layout) {
      return layout ? layout(weights) : TensorMap{};
    };
    Message const layout{layout_of(algorithm.averaged), layout_of(algorithm.summed), {}};
    auto const aggregation = algorithm.kind == Kind::gather ? make_gathering(weights, algorithm)
                             : algorithm.second ? make_two_sums(layout, weights, *algorithm.second, 48)
                                                : make_exact_aggregation(layout, 48);
    Round now;
    for (auto const& matrix : kMatrices)
      now.before[matrix.module] =
          base[matrix.module].add(server.weights.at(name_b(matrix))
                                      .to(at::kDouble)
                                      .mm(server.weights.at(name_a(matrix)).to(at::kDouble)),
                                  matrix.s);
    for (int64_t k = 0; k < kClients; ++k) {
      auto start = algorithm.start(server, {});
      if (algorithm.fit) start = algorithm.fit(start, k + 1);
      auto parameters = clone(start);
      int64_t const rank = unequal ? kRanks[k] : kRank;
      double const scale = unequal ? kScales[k] : 1;
      uint64_t site = 0;
      for (auto& [name, tensor] : parameters) {
        ++site;
        if (algorithm.rests && algorithm.rests(name, round)) continue;
        if (name == "z.bias")
          tensor.add_(noise(1, 3, k, round, site)[0]);
        else if (name.find("lora_A") != std::string::npos)
          tensor.narrow(0, 0, rank).add_(noise(rank, tensor.size(1), k, round, site));
        else
          tensor.narrow(1, 0, rank).add_(noise(tensor.size(0), rank, k, round, site));
      }
      for (auto const& matrix : kMatrices)
        now.clients[matrix.module].push_back(
            {parameters.at(name_b(matrix)).to(at::kDouble).mul(matrix.s * scale),
             parameters.at(name_a(matrix)).to(at::kDouble)});
      if (k % comm.size() != comm.rank()) continue;
      TensorMap state;
      ClientTurn turn{plan, {k + 1, round, weight_of(k)}, server, start, parameters, state, {}, {}};
      turn.update = subtract(parameters, start);
      aggregation->add(message_of(algorithm, turn), turn.task);
    }
    auto const arrived = aggregation->reduce(*collective);
    if (comm.rank() == 0) step->step(server, arrived, plan);
    serve();
    now.weights = clone(server.weights);
    for (auto const& [module, matrix] : base) now.base[module] = matrix.clone();
    now.facts = server.facts;
    rounds.push_back(std::move(now));
  }
  return rounds;
}

/// Σ p_k s_k B_k A_k.
at::Tensor mean_product(Round const& round, Matrix const& matrix) {
  auto sum = at::zeros({matrix.out, matrix.in}, at::kDouble);
  auto const& clients = round.clients.at(matrix.module);
  for (int64_t k = 0; k < kClients; ++k)
    sum.add_(clients[static_cast<size_t>(k)].b.mm(clients[static_cast<size_t>(k)].a), weight_of(k));
  return sum;
}

at::Tensor best_of_rank(at::Tensor const& matrix, int64_t rank) {
  auto const [u, s, vt] = at::linalg_svd(matrix, false);
  return u.narrow(1, 0, rank).mul(s.narrow(0, 0, rank)).mm(vt.narrow(0, 0, rank));
}

double relative(at::Tensor const& difference, at::Tensor const& of) {
  return (difference.norm() / of.norm()).item<double>();
}

/// The rule on one rank and on all, each round against `expected`; the same bits.
void expect_rounds(std::string const& rule, bool unequal,
                   std::function<at::Tensor(Round const&, Matrix const&)> const& expected,
                   double tolerance = 1e-6) {
  auto const yaml = "federate: {" + rule + "}";
  auto const alone = train(yaml, unequal, Communicator::self());
  for (size_t i = 0; i < alone.size(); ++i) {
    for (auto const& matrix : kMatrices) {
      auto const wanted = expected(alone[i], matrix);
      EXPECT_LT(relative(alone[i].change_of(matrix).sub(wanted), wanted), tolerance)
          << rule << " " << matrix.module << " round " << i << " unequal " << unequal;
    }
    auto bias = i == 0 ? at::zeros({3}) : alone[i - 1].weights.at("z.bias").clone();
    for (int64_t k = 0; k < kClients; ++k)
      bias.add_(noise(1, 3, k, static_cast<int64_t>(i), 5)[0], weight_of(k));
    EXPECT_TRUE(test::tensors_near(alone[i].weights.at("z.bias"), bias, 1e-6)) << rule;
  }
  auto const together = train(yaml, unequal, Communicator::world());
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
    auto const rounds = train("federate: {lora_aggregation: fedex}", unequal, Communicator::self());
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
  auto const rounds = train("federate: {lora_aggregation: flexlora}", true, Communicator::self());
  double lost = 0, all = 0;
  for (auto const& matrix : kMatrices) {
    auto const a = rounds[2].weights.at(name_a(matrix)).to(at::kDouble);
    EXPECT_TRUE(test::tensors_near(a.mm(a.t()), at::eye(kRank, at::kDouble), 1e-6));
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
      train("federate: {lora_aggregation: fedask, lora_oversampling: 4}", false, Communicator::self());
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

/// The sketch of 8 columns is within its standard errors of the exact error of averaged factors.
TEST(FactorRules, ErrorOfAveragedFactorsIsMeasured) {
  for (auto const* rule : {"fedavg", "ffa", "rolora"}) {
    auto const rounds =
        train(fmt::format("federate: {{lora_aggregation: {}}}", rule), false, Communicator::self());
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
}  // namespace fsllm
