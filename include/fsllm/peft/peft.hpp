// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Keys `llm.adapter.*`, `llm.adapter.args[0].*`; also what adapter_config.json holds.
struct PeftConfig {
  std::string method;  ///< "lora"; "" when llm.adapter.use is False
  int64_t rank = 8;
  double alpha = 8;
  double dropout = 0;
  bool rslora = false;
  std::vector<std::string> target_modules;  ///< empty: PEFT's default targets of the family
  std::string target_pattern;               ///< instead of names: a regular expression for whole module paths
  std::string init_from;                    ///< PEFT folder to start from
  bool mv_to_cpu = false;                   ///< move adapters of resting clients to host memory
};

/// Reads and declares the keys. With `init_from`, what the YAML leaves open comes from that adapter, and what
/// it gives must agree with it.
PeftConfig load_peft_config(Config& config);

/// A parameter-efficient method attached to a model.
struct Peft {
  virtual ~Peft() = default;
  virtual void attach(CausalLM& model) = 0;
  /// The trainable tensors (live, requires_grad, fp32) under their PEFT names.
  virtual TensorMap state() const = 0;
  /// Draws fresh initial values from `seed` (LoRA: A Kaiming-uniform, B zero).
  virtual void initialize(uint64_t seed) = 0;
  /// W += s·B·A for every target, into own copies of those weights; the adapter is then detached from
  /// `model`.
  virtual void merge_into(CausalLM& model) = 0;
  /// The content of adapter_config.json, except base_model_name_or_path.
  virtual nlohmann::ordered_json adapter_config() const = 0;
};

/// Attaches the method to `model`, initialised from `seed`, or from the tensors in `config.init_from`.
/// Unknown methods and targets that match nothing are Errors.
std::unique_ptr<Peft> make_peft(PeftConfig const& config, CausalLM& model, uint64_t seed);

/// Writes adapter_model.safetensors + adapter_config.json that peft.PeftModel.from_pretrained loads. `values`
/// are stored under the names of state() (for instance an averaged adapter that is not the live one).
void save_adapter(std::filesystem::path const& dir, Peft const& peft, TensorMap const& values,
                  std::string const& base_model);

/// Reads a PEFT folder's adapter_config.json into a PeftConfig (init_from = dir). What this version cannot
/// compute (DoRA, rank patterns, biases, ...) is an Error that names the key.
PeftConfig read_adapter_config(std::filesystem::path const& dir);

/// The tensors of a PEFT folder in fp32, which must have exactly the names and shapes of `expected`.
TensorMap read_adapter_tensors(std::filesystem::path const& dir, TensorMap const& expected);

/// Names of the method table, for messages and --describe.
std::vector<std::string> known_peft_methods();

}  // namespace fsllm
