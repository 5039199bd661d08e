// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/fed/algorithm.hpp"
#include "fsllm/peft/low_rank.hpp"

namespace fsllm {

/// What the clients of a round have made of one target, in float64: A_k [r_k, in] and (s_k/s) B_k [out, r_k].
struct ClientFactors {
  LowRankTarget const& target;
  int64_t rank;                  ///< r of the run
  std::vector<Factors> clients;  ///< in the order of their ids
  std::vector<double> weights;   ///< p_k

  /// B_1, B_2, … side by side, each times s p_k, with A_1, A_2, … one below the other: their product is
  /// Σ p_k s_k B_k A_k. At least `rank` columns; those that are missing are 0.
  Factors stacked() const;
  /// Σ p_k B_k and Σ p_k A_k, padded with zeros to rank r.
  Factors mean() const;
};

/// What becomes of one target.
struct NewFactors {
  Factors factors;                ///< B [out, r], A [r, in] of the global model
  std::optional<Factors> change;  ///< left · right is added to the frozen matrix
};
using FactorRule = std::function<NewFactors(ClientFactors const& all)>;
/// Collective: the weights of a round's clients; empty: p_k.
using FactorWeights = std::function<std::vector<double>(LoraFactors const& lora, GatheredMessages const& all,
                                                        Communicator const& comm)>;

/// Makes `algorithm` one of kind gather, for any ranks: clients send their factors, folded so that all have
/// the run's s; `rule` makes the next ones of each target. Other parameters become their weighted mean. The
/// relative error of s B A against Σ p_k s_k B_k A_k (without what the frozen matrix takes up) is
/// aggregation_error.
void gather_factors(FedAlgorithm& algorithm, FactorRule rule, FactorWeights weights = {});

/// Clients whose LoRA has another rank start from the first rows of A and columns of B, scaled so that the
/// product is theirs; what lies beyond is 0, and stays so in training.
void fit_ranks(FedAlgorithm& algorithm, LoraFactors const& lora);
/// The parameters of a turn with s_k folded into B.
TensorMap folded_parameters(LoraFactors const& lora, ClientTurn const& turn);
ClientRank rank_of(LoraFactors const& lora, int64_t client, int64_t rank);

/// ‖left · right‖_F² of factors in float64.
double squared_norm(Factors const& product);

/// For sums of factors' updates: aggregation_error ‖Σ p_k s_k B_k A_k − s B̄ Ā‖_F / ‖Σ p_k s_k B_k A_k‖_F over
/// all targets, estimated, and its standard error.
void measure_aggregation_error(FedAlgorithm& algorithm, LoraFactors const& lora);

void fedask(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void fedex(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void fedsb(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void flexlora(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void flora(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void frlora(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void hetlora(Config& config, std::string const& rule, FedAlgorithm& algorithm);
void raflora(Config& config, std::string const& rule, FedAlgorithm& algorithm);

}  // namespace fsllm
