// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attention.hpp"
#include "families/family.hpp"
#include "frozen_rows.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/model/checkpointing.hpp"
#include "rope.hpp"

namespace fsllm::detail {

struct Norm {
  at::Tensor weight, bias;  ///< [size]; bias only for LayerNorm
};

/// What the family does not have is left without weight.
struct Block {
  Norm norm1, norm2, norm1_after, norm2_after;
  Linear q, k, v;  ///< or qkv alone
  Linear qkv, out;
  Norm q_norm, k_norm;
  Linear gate, up;  ///< or gate_up alone; gate only where the MLP is gated
  Linear gate_up, down;
  std::shared_ptr<BlockAdapter> adapter;
};

/// A tensor of the model: its name in the file, the shape it must have, and where it lives.
struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
  at::Tensor* tensor;
  Linear* linear = nullptr;     ///< whose weight it is, if of a projection of a block: these may be quantised
  int64_t layer = -1;           ///< of the block it belongs to
  std::string token_rows = {};  ///< transformers' name of the tensor, where it has a row for each token
};

/// The one decoder, for every family of the table.
class Decoder final : public CausalLM {
 public:
  /// Lays out modules without weights; `prefix` is the family's, or "" for files that lack it.
  Decoder(ModelConfig config, Family const& family, std::string const& prefix, at::ScalarType compute,
          c10::Device device);
  Decoder(Decoder const&) = delete;
  Decoder& operator=(Decoder const&) = delete;

  ModelConfig const& config() const override { return config_; }
  Pass pass(RaggedInput const& input, PassOptions const& options, KvCache* cache) const override;
  at::Tensor hidden_states(at::Tensor const& ids, Pass const& pass) const override;
  at::Tensor logits(at::Tensor const& hidden, Pass const& pass) const override;
  bool head_requires_grad() const override;
  at::Tensor embeddings(at::Tensor const& ids) const override;
  std::vector<Linear*> linears() override;
  Linear& head() override;
  void untie_head() override;
  void set_embedding_adapter(std::shared_ptr<EmbeddingAdapter> adapter) override;
  void set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) override;
  void set_block_adapter(int64_t layer, std::shared_ptr<BlockAdapter> adapter) override;
  void set_stack_adapter(std::shared_ptr<StackAdapter> adapter) override;
  void set_layer_hooks(std::shared_ptr<LayerHooks> hooks) override;
  std::vector<std::vector<std::string>> block_parameters() const override;
  TensorMap parameters() override;
  TensorMap dequantized() override;
  void set_parameter(std::string const& name, at::Tensor const& value) override;
  TensorMap vocabulary() override;
  void set_vocabulary(TensorMap const& tensors) override;
  void make_trainable(std::string const& dtype) override;
  std::string device() const override { return device_.str(); }
  at::ScalarType compute_type() const override { return compute_; }

  void set_checkpointing(Checkpointing checkpointing) { checkpointing_ = checkpointing; }
  int64_t frozen_blocks() const;
  void keep_frozen_rows(int64_t bytes) {
    auto const blocks = frozen_blocks();
    frozen_rows_ = bytes > 0 && blocks > 0 ? std::make_shared<FrozenRows>(blocks, bytes) : nullptr;
  }
  int64_t frozen_row_bytes() const { return frozen_rows_ ? frozen_rows_->bytes() : 0; }

  /// Every tensor the file must hold, each once, in forward order.
  std::vector<Parameter> const& layout() const { return layout_; }

 private:
  void add_embeddings(Family const& family, std::string const& prefix);
  void add_head(Family const& family, std::string const& prefix);
  void add_head_tensor(std::string const& kind, std::vector<int64_t> const& shape, at::Tensor& tensor);
  void add_norm(Norm& norm, std::string const& path, int64_t size);
  void add_linear(Linear& linear, std::string const& module, std::string const& prefix, int64_t in,
                  int64_t out, bool bias);
  void add_block(Block& block, Family const& family, std::string const& prefix, size_t layer);
  void add_block_norms(Block& block, BlockNames const& names, std::string const& path);

  at::Tensor embed(at::Tensor const& ids, Pass const& pass) const;
  /// What leaves the blocks whose rows are kept, each row computed alone or kept; none where they are not.
  std::optional<at::Tensor> behind_frozen_blocks(at::Tensor const& ids, Pass const& pass) const;
  /// cos and sin of all tokens of a pass.
  std::pair<at::Tensor, at::Tensor> angles(AttentionPlan const& plan) const;
  std::vector<int64_t> windows() const;
  /// The head as logits() needs it: with the embedding's weight where it is tied to it.
  Linear current_head() const;
  at::Tensor norm(at::Tensor const& x, Norm const& norm) const;
  /// Of the input of a sublayer: cheap.
  at::Tensor sublayer_norm(at::Tensor const& x, Norm const& norm) const;
  /// Block `layer` with its adapter, and what the backward pass keeps of it.
  at::Tensor run_checkpointed(size_t layer, at::Tensor x, Pass const& pass) const;
  at::Tensor run_layer(size_t layer, at::Tensor x, Pass const& pass) const;
  at::Tensor run_block(Block const& block, at::Tensor x, int64_t layer, Pass const& pass) const;
  std::tuple<at::Tensor, at::Tensor, at::Tensor> project_qkv(Block const& block, at::Tensor const& x,
                                                             Pass const& pass) const;
  at::Tensor attention(Block const& block, at::Tensor const& x, int64_t layer, Pass const& pass) const;
  at::Tensor dropped_residual(at::Tensor const& y, Linear const& last, Pass const& pass) const;
  at::Tensor mlp(Block const& block, at::Tensor const& x, Pass const& pass) const;
  at::Tensor gated(Block const& block, at::Tensor const& x, Pass const& pass) const;
  /// The MLP of `normed` with what the block's adapter does beside it, which sees the stream x.
  at::Tensor adapted_mlp(Block const& block, at::Tensor const& x, at::Tensor const& normed,
                         Pass const& pass) const;
  void check_input(RaggedInput const& input) const;
  void check_cache(RaggedInput const& input, KvCache const* cache) const;

  ModelConfig config_;
  at::ScalarType compute_;
  c10::Device device_;
  Checkpointing checkpointing_ = Checkpointing::none;
  std::optional<RopeTable> rope_, long_rope_;
  ScoreRule score_rule_;
  at::Tensor embedding_, positions_;  ///< [vocab, embedding_size], [position_offset + max_positions, hidden]
  Norm embedding_norm_;
  Linear embedding_project_, head_project_;  ///< where embedding_size is not hidden_size
  std::vector<Block> blocks_;
  Norm final_norm_;
  Linear head_;  ///< its own weight means nothing where it is tied to the embedding
  std::vector<Parameter> layout_;
  std::shared_ptr<VirtualTokens> virtual_tokens_;
  std::shared_ptr<EmbeddingAdapter> embedding_adapter_;
  std::shared_ptr<StackAdapter> stack_adapter_;
  std::shared_ptr<LayerHooks> hooks_;
  std::shared_ptr<FrozenRows> frozen_rows_;
};

}  // namespace fsllm::detail
