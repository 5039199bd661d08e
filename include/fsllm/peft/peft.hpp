// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <any>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Keys `llm.adapter.*`: what all methods share, and what the chosen one has read of `llm.adapter.args[0].*`
/// or of an adapter_config.json.
struct PeftConfig {
  std::string method;          ///< a row of the method table; "" when llm.adapter.use is False
  std::any options = {};       ///< of the method's own type; empty: its defaults
  int64_t virtual_tokens = 0;  ///< learned tokens before each row, which take up positions
  std::string init_text;  ///< text to start virtual tokens from; its ids come from whoever has a tokenizer
  std::vector<int32_t> init_ids;
  std::string init_from;   ///< PEFT folder to start from
  bool mv_to_cpu = false;  ///< what resting clients leave lies in host memory
};

/// Reads and declares the keys of all methods; arguments of methods other than the chosen one are named in
/// the log and mean nothing. With `init_from`, what the YAML leaves open comes from that adapter, and what it
/// gives must agree with it.
PeftConfig load_peft_config(Config& config);

/// A matrix W [out, in] that LoRA changes by s B A: its module, the names of A [r, in] and B [out, r] among
/// the trainable tensors, and s.
struct LowRankTarget {
  std::string module, a, b;
  double scale = 1;
  std::string core = {};  ///< of R [r, r] in s B R A, which then is trained, and A and B are not
};

/// A parameter-efficient method attached to a model.
struct Peft {
  virtual ~Peft() = default;
  virtual void attach(CausalLM& model) = 0;
  /// Leaves the model as it was before attach().
  virtual void detach(CausalLM& model) = 0;
  /// The trainable tensors (live, requires_grad, fp32) under their PEFT names.
  virtual TensorMap state() const = 0;
  /// Draws fresh initial values from `seed` as PEFT does (LoRA: A Kaiming-uniform, B zero).
  virtual void initialize(uint64_t seed) = 0;
  /// LoRA's targets, where all that it changes are s B A and tensors beside; none for other methods and DoRA.
  virtual std::vector<LowRankTarget> low_rank_targets() const { return {}; }
  /// From now on low_rank_targets() are s B R A with fixed A and B (LoRA-XS, Bałazy et al. 2024): state() has
  /// R, which is 0, in their place. Matrices smaller than r, and embeddings, are Errors.
  virtual void train_cores() {}
  /// Those A and B under their PEFT names, live.
  virtual TensorMap fixed_factors() const { return {}; }
  /// Makes room for the values of `clients` adapters side by side, which passes use segment by segment
  /// (PassSegment::slot): names of state() → [clients, …], live, requires_grad. Empty where the method has no
  /// such form.
  virtual TensorMap slots(int64_t /*clients*/) { return {}; }
  /// Every s becomes `factor` times what the configuration says.
  virtual void scale_low_rank(double /*factor*/) {}
  /// Puts the adapter into own copies of the model's weights and detaches it. Methods whose effect no weights
  /// can have fail with the reason.
  virtual void merge_into(CausalLM& model) = 0;
  /// What adapter_model.safetensors holds where the trained state has `values`.
  virtual TensorMap file_tensors(TensorMap const& values) const { return values; }
  /// The content of adapter_config.json for a base model of this name.
  virtual nlohmann::ordered_json adapter_config(std::string const& base_model) const = 0;
};

/// r and lora_alpha of a LoRA that has one rank for all modules.
struct LowRankSize {
  int64_t rank = 0;
  double alpha = 0;
  bool rank_stabilised = false;  ///< s = alpha / sqrt(r), not alpha / r
  double scale() const;
};
std::optional<LowRankSize> low_rank_size(PeftConfig const& config);

/// A LoRA of these blocks alone: layers_to_transform becomes `blocks`, or must name some of them. Other
/// methods and trained biases are Errors, which `because` explains.
void restrict_to_blocks(PeftConfig& config, std::vector<int64_t> const& blocks, std::string const& because);

/// Attaches the method to `model`, initialised from `seed`, or from the tensors in `config.init_from`, whose
/// embeddings, if it has any, become the model's (CausalLM::set_vocabulary) and stay there. Unknown methods
/// and targets that match nothing are Errors.
std::unique_ptr<Peft> make_peft(PeftConfig const& config, CausalLM& model, uint64_t seed);

/// Writes adapter_model.safetensors + adapter_config.json that peft.PeftModel.from_pretrained loads. `values`
/// stand under the names of state() (for instance an averaged adapter that is not the live one). `vocabulary`
/// holds embeddings that are not the base model's, under the names of CausalLM::vocabulary().
void save_adapter(std::filesystem::path const& dir, Peft const& peft, TensorMap const& values,
                  std::string const& base_model, TensorMap const& vocabulary = {});

/// Reads a PEFT folder's adapter_config.json into a PeftConfig (init_from = dir). What this version cannot
/// compute is an Error that names the key.
PeftConfig read_adapter_config(std::filesystem::path const& dir);

/// The tensors of a PEFT folder in fp32, which must have exactly the names and shapes of `expected`, beside
/// `others`.
TensorMap read_adapter_tensors(std::filesystem::path const& dir, TensorMap const& expected,
                               std::set<std::string> const& others = {});

/// Rows of the embedding that a PEFT folder brings along (PEFT's save_embedding_layers); 0: it has none.
int64_t adapter_vocab_size(std::filesystem::path const& dir, ModelConfig const& model);

/// Names of the method table, for messages and --describe.
std::vector<std::string> known_peft_methods();
/// The same with a sentence about each.
std::vector<std::pair<std::string, std::string>> peft_methods();

}  // namespace fsllm
