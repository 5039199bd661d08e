// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/config.hpp"
#include "fsllm/model/kv_cache.hpp"
#include "fsllm/model/layer_hooks.hpp"
#include "fsllm/model/linear.hpp"
#include "fsllm/model/pass.hpp"
#include "fsllm/model/virtual_tokens.hpp"

namespace fsllm {

/// Rows of tokens end to end: row i is ids[offsets[i] .. offsets[i+1]).
struct RaggedInput {
  at::Tensor ids;                   ///< int64 [N]
  std::vector<int64_t> offsets{0};  ///< [rows + 1]
  int64_t num_rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

struct LoadOptions {
  /// fp32, bf16, fp16, auto = as in the file (quantised blocks: fp32); int8, nf4: projections of blocks are
  /// quantised, other matrices halves.
  std::string storage_dtype = "auto";
  std::string compute_dtype = "fp32";  ///< type of activations: fp32, bf16, fp16 (fp64 in tests)
  std::string device = "cpu";          ///< where the model computes
  bool weights_on_host = false;        ///< until something moves them there
  /// Where weights of another type or format than wanted are kept after conversion, one mapped copy for all
  /// ranks of a node and for the next run; empty: every process converts in its own memory.
  std::filesystem::path cache_dir = {};
  /// Also weights that could be mapped as they lie are copied to cache_dir, if it is on another file system.
  bool stage = false;
  /// XXH64 of the model's files by path, where somebody has read them already: a good copy is taken without
  /// reading them, and a file of another content is an Error.
  std::map<std::string, uint64_t> checksums = {};
  std::vector<int64_t> block_numbers = {};  ///< ModelConfig::block_numbers
  bool values = true;  ///< false: tensors of the right shapes and types without values, for checks
};

/// For programs without a run directory: $XDG_CACHE_HOME/fsllm, ~/.cache/fsllm, or a folder of this user in
/// the temporary directory; made on the way.
std::filesystem::path user_cache_dir();

/// A decoder-only language model. Weights from files are memory-mapped views that must not be written to.
class CausalLM {
 public:
  virtual ~CausalLM() = default;
  virtual ModelConfig const& config() const = 0;

  /// A pass of these rows, with the values that learned virtual tokens have now. With a cache, positions go
  /// on from each row's past (inference only). Ids outside the vocabulary (looked at where they lie in host
  /// memory) and rows longer than the position table are Errors.
  virtual Pass pass(RaggedInput const& input, PassOptions const& options = {},
                    KvCache* cache = nullptr) const = 0;
  /// What the head sees of the N tokens: hidden states after the last norm, [N, hidden] (embedding_size where
  /// the model projects them), in the compute type. Keys and values are appended to the pass's cache.
  virtual at::Tensor hidden_states(at::Tensor const& ids, Pass const& pass) const = 0;
  /// [M, hidden] → [M, vocab], of the tokens of the pass; without one outside training.
  virtual at::Tensor logits(at::Tensor const& hidden, Pass const& pass) const = 0;
  at::Tensor logits(at::Tensor const& hidden) const { return logits(hidden, Pass()); }
  /// Does the head itself learn (full-parameter training, LoRA on the head)?
  virtual bool head_requires_grad() const = 0;
  /// The embeddings of token ids [M] → [M, embedding_size], in the type of the weights, scaled ones in the
  /// compute type.
  virtual at::Tensor embeddings(at::Tensor const& ids) const = 0;

  /// Every Linear a PEFT method may attach to (all projections of all blocks and of the
  /// embedding; not the head), in layer order.
  virtual std::vector<Linear*> linears() = 0;
  /// The head, which LoRA may adapt too. Tied to the embedding it has the embedding's weight, until it gets
  /// a copy of its own from untie_head().
  virtual Linear& head() = 0;
  virtual void untie_head() = 0;
  /// Puts an adapter (or none) behind the embedding.
  virtual void set_embedding_adapter(std::shared_ptr<EmbeddingAdapter> adapter) = 0;
  /// Puts learned tokens before every row, or none (null). config().max_positions is less by their number
  /// from then on. More tokens than the model has positions are an Error.
  virtual void set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) = 0;
  /// Puts an adapter (or none) into block `layer`.
  virtual void set_block_adapter(int64_t layer, std::shared_ptr<BlockAdapter> adapter) = 0;
  /// Puts an adapter (or none) around all blocks.
  virtual void set_stack_adapter(std::shared_ptr<StackAdapter> adapter) = 0;
  /// Calls these around the blocks of every pass from now on, or none (null).
  virtual void set_layer_hooks(std::shared_ptr<LayerHooks> hooks) = 0;
  /// The names in parameters() of each block's own.
  virtual std::vector<std::vector<std::string>> block_parameters() const = 0;
  /// All parameters under the names and in the shapes of the file (Conv1D: [in, out]); the live tensors.
  /// Quantised weights are not among them.
  virtual TensorMap parameters() = 0;
  /// The values of the quantised weights in fp32, under the names of the file: copies.
  virtual TensorMap dequantized() = 0;
  /// Puts a tensor of the same shape in the place of a parameter, under its name in parameters().
  virtual void set_parameter(std::string const& name, at::Tensor const& value) = 0;
  /// What has a row for each token: the embedding and, where it is not tied, the head's weight (and its
  /// bias), under the names of transformers' modules ("model.embed_tokens.weight"); the live tensors.
  virtual TensorMap vocabulary() = 0;
  /// Puts tensors of these names in their place, as they are. All have the same rows, any number of them;
  /// config().vocab_size follows.
  virtual void set_vocabulary(TensorMap const& tensors) = 0;
  /// Full-parameter training: replaces every parameter by an own writable copy in `dtype` with requires_grad.
  virtual void make_trainable(std::string const& dtype) = 0;
  virtual std::string device() const = 0;
  virtual at::ScalarType compute_type() const = 0;  ///< of activations
};

/// The Linear (or head) of this path; an Error says that the adapter was made for another model.
Linear& module_of(CausalLM& model, std::string const& path);

/// Bytes of all weights, as they are kept.
int64_t weight_bytes(CausalLM& model);

/// The tensors of CausalLM::vocabulary() with rows for `vocab_size` tokens, in own memory: new ones are the
/// mean of the old, as FS-LLM sets them (llm/model/model_builder.py); the same bits whatever the threads.
TensorMap grown_vocabulary(TensorMap const& vocabulary, int64_t vocab_size);

/// The files that a model's values come from: config.json and safetensors, or GGUF.
std::vector<std::filesystem::path> model_files(std::filesystem::path const& model);

/// Loads an HF folder (config.json + safetensors) or a GGUF file. Missing, unexpected and mis-shaped tensors
/// are Errors with names.
std::unique_ptr<CausalLM> load_model(std::filesystem::path const& model, LoadOptions const& options = {});
/// A model of the shapes that `config` says, without values; no file is read. Types are those of
/// storage_dtype (auto and quantised ones: fp32).
std::unique_ptr<CausalLM> model_of_shapes(ModelConfig const& config, LoadOptions const& options);

/// Writes config.json, model.safetensors and the tokenizer files of `source_dir` as an HF folder; `dtype` is
/// fp32, bf16, fp16, or auto for the types the live tensors have.
void save_model(std::filesystem::path const& out_dir, CausalLM& model,
                std::filesystem::path const& source_dir, std::string const& dtype);
/// The same in fp32, with values that come one by one, in the order of names.
void save_model(std::filesystem::path const& out_dir, CausalLM& model,
                std::filesystem::path const& source_dir,
                std::function<at::Tensor(std::string const& name)> const& value_of);

}  // namespace fsllm
