// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "biases.hpp"
#include "fsllm/model/checkpointing.hpp"
#include "fsllm/model/pass.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm::detail {

struct LoraOptions {
  int64_t rank = 8;
  double alpha = 8, dropout = 0;
  bool rslora = false, dora = false;
  std::string bias = "none";                 ///< or all, lora_only: which biases of the model learn too
  Targets targets;                           ///< empty: PEFT's of the family
  std::vector<int64_t> layers;               ///< only in these blocks; empty: all
  std::vector<std::string> layers_patterns;  ///< names of the list of blocks, regular expressions; empty: any
  bool gaussian = false;                     ///< A starts from N(0, 1/r²), not from a uniform distribution
  Patterns rank_pattern, alpha_pattern;
};

/// LoRA's part of one Linear, or DoRA's where there is a magnitude.
struct LoraAdapter final : LinearAdapter, AddsToOutput {
  at::Tensor a, b;              ///< [r, in], [out, r], fp32, requires_grad
  at::Tensor magnitude;         ///< [out], or undefined
  at::Tensor row_squares;       ///< of the frozen weight, [out]; with a magnitude
  at::Tensor core;              ///< R [r, r] of s B R A, requires_grad, or undefined; a and b are fixed then
  at::Tensor a_slots, b_slots;  ///< [clients, …], or undefined
  at::Tensor core_slots;        ///< likewise; a_slots and b_slots are not there then
  double scale = 1, dropout = 0;
  std::vector<at::Tensor> parameters() const override { return {a, b, magnitude, core}; }
  at::Tensor apply(at::Tensor const& x, at::Tensor const& y, Linear const& base, Pass const& pass) override;
  bool only_adds() const override { return !magnitude.defined(); }

 private:
  at::Tensor apply_dora(at::Tensor const& x, at::Tensor const& y, Linear const& base, Pass const& pass) const;
};

/// LoRA's part of the embedding: x + s · A[:, ids]ᵀ Bᵀ (peft tuners/lora/layer.py, `Embedding`).
struct LoraEmbedding final : EmbeddingAdapter {
  at::Tensor a, b;  ///< [r, vocab], [size, r], fp32, requires_grad
  double scale = 1;
  at::Tensor apply(at::Tensor const& ids, at::Tensor const& x) override;
};

/// Σ_j W_ij² of [out, in], in fp32.
at::Tensor squares_of_rows(Linear const& base);
/// ‖W + s·B·A‖ of each row [out], without gradients (DoRA holds it constant).
at::Tensor norms_of_rows(LoraAdapter const& adapter, Linear const& base);

/// LoRA on every Linear that a target names, head and embedding among them.
class Lora final : public Peft {
 public:
  Lora(PeftConfig const& config, CausalLM& model);
  void attach(CausalLM& model) override;
  void detach(CausalLM& model) override;
  TensorMap state() const override;
  void initialize(uint64_t seed) override;
  void merge_into(CausalLM& model) override;
  std::vector<LowRankTarget> low_rank_targets() const override;
  void train_cores() override;
  TensorMap fixed_factors() const override;
  TensorMap file_tensors(TensorMap const& values) const override;
  TensorMap slots(int64_t clients) override;
  void scale_low_rank(double factor) override;
  nlohmann::ordered_json adapter_config(std::string const& base_model) const override;

 private:
  struct Site {
    std::string module;
    std::shared_ptr<LoraAdapter> adapter;
    double scale;                                                   ///< as the configuration says
    std::string name_a() const, name_b() const, name_core() const;  ///< among the trained tensors
  };
  /// r and lora_alpha of a module.
  std::pair<int64_t, double> size_of(std::string const& module) const;
  bool in_chosen_layer(std::string const& module) const;
  void add_site(Linear const& linear);
  void add_embedding(CausalLM& model);
  bool is_site(std::string const& module) const;
  void warn_of_ranks() const;
  void merge_embedding(CausalLM& model) const;

  LoraOptions options_;
  bool cores_ = false;  ///< of all sites
  bool fan_in_fan_out_ = false;
  std::vector<Site> sites_;  ///< in layer order, the head at last
  std::string embedding_module_, head_module_;
  std::shared_ptr<LoraEmbedding> embedding_;  ///< null where it is no target
  double embedding_scale_ = 1;                ///< as the configuration says
  TrainedBiases biases_;
};

std::any read_lora(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_lora(PeftConfig const& config, CausalLM& model);

}  // namespace fsllm::detail
