// SPDX-License-Identifier: Apache-2.0
#include "lora_rounds.hpp"

#include <ATen/ATen.h>

#include "fsllm/core/rng.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"

namespace fsllm::test {

at::Tensor Round::change_of(Matrix const& matrix) const {
  return base.at(matrix.module)
      .add(weights.at(name_b(matrix)).to(at::kDouble).mm(weights.at(name_a(matrix)).to(at::kDouble)),
           matrix.s);
}

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

std::vector<Round> train_lora(std::string const& yaml, bool unequal, Communicator const& comm) {
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

}  // namespace fsllm::test
