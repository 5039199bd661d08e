// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>

#include "fsllm/fed/round.hpp"
#include "setup.hpp"

namespace fsllm {

/// The model with what is trained inside it.
struct Trainable {
  std::unique_ptr<CausalLM> model;
  std::unique_ptr<Peft> peft;
  TensorMap parameters;
  std::unique_ptr<RankGroup> group;  ///< which it refers to; null where a rank trains alone
  TensorMap vocabulary;              ///< embeddings that are not the file's, beside an adapter
  std::map<std::string, std::string> tokenizer_files;  ///< copies of the model's, once one was written
};

/// Without adapter, with rows for all tokens of the run.
std::unique_ptr<CausalLM> load_grown(Setup const& s, std::filesystem::path const& model_dir,
                                     LoadOptions const& options);

/// Collective over `group`, the ranks that train a client with this one; null: it trains alone.
Trainable load_trainable(Setup const& s, Collective* group = nullptr);

/// Where converted weights lie: runs of one outdir share them, but for a folder that somebody else has made
/// there.
std::filesystem::path weight_cache(Setup const& s);

/// The run's LoRA, for rules about its factors; refers to `t`.
LoraFactors lora_of(Setup const& s, Trainable& t);

/// hpc.clients_per_pass needs an adapter whose values can lie side by side.
void check_shared_passes(Setup const& s, Trainable& t);

/// What the model card says of the run before its first round.
TrainingFacts training_facts(Setup const& s, ClientData const& data);

/// Writes `values` of what is trained as an adapter folder, or as a model, with all that its use needs. With
/// an overlay the adapter is the best of its rank for both together, and the exact update lies beside it.
void save_values(Setup const& s, Trainable& t, std::filesystem::path const& dir, TensorMap const& values,
                 TensorMap const& overlay, ResultFacts const& facts);

/// Collective over the first group, whose ranks have parts of `values`: the model, written by rank 0.
void save_parts(Setup const& s, Trainable& t, std::filesystem::path const& dir, TensorMap const& values,
                ResultFacts const& facts);

/// Weights that are mapped from a file need not fit, but then every step reads what had to go.
void warn_of_memory(int64_t weights);

}  // namespace fsllm
