// SPDX-License-Identifier: Apache-2.0
// Rounds of clients that train LoRA on two matrices, with unequal rows, ranks and scales, by the contract of
// federated algorithms; and what they mean in dense matrices.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "fsllm/fed/algorithm.hpp"
#include "fsllm/peft/low_rank.hpp"

namespace fsllm::test {

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

/// What a round leaves, and of what.
struct Round {
  TensorMap weights;                                    ///< the global ones after it
  std::map<std::string, at::Tensor> base;               ///< what the frozen matrices have beyond W0, after it
  std::map<std::string, at::Tensor> before;             ///< that and s B A, before it
  std::map<std::string, std::vector<Factors>> clients;  ///< with s_k in B, in float64
  std::map<std::string, double> facts;
  /// What the matrix has beyond W0, s B A among it.
  at::Tensor change_of(Matrix const& matrix) const;
};

/// N(0, 0.01), the same wherever it is drawn.
at::Tensor noise(int64_t rows, int64_t columns, int64_t client, int64_t round, uint64_t step);
std::string name_a(Matrix const& matrix);
std::string name_b(Matrix const& matrix);
TensorMap first_weights(uint64_t seed);
at::Tensor frozen(Matrix const& matrix);
LoraFactors factors_of_run(bool unequal);
double weight_of(int64_t k);
FedAlgorithm bound_algorithm(std::string const& yaml, LoraFactors const& lora);
/// Collective.
std::vector<Round> train_lora(std::string const& yaml, bool unequal, Communicator const& comm);
/// Σ p_k s_k B_k A_k.
at::Tensor mean_product(Round const& round, Matrix const& matrix);
at::Tensor best_of_rank(at::Tensor const& matrix, int64_t rank);

}  // namespace fsllm::test
