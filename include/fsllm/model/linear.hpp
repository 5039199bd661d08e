// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/model/quantized.hpp"

namespace fsllm {

class Pass;
struct Linear;

/// A PEFT method's part of one Linear: turns the base output y = W x + b into the adapted output.
struct LinearAdapter {
  virtual ~LinearAdapter() = default;
  /// What it learns, undefined and frozen tensors among them. Those that may stand at a head must say it.
  virtual std::vector<at::Tensor> parameters() const { return {}; }
  /// What the base is applied to in the place of x [N, in].
  virtual at::Tensor input(at::Tensor const& x, Pass const&) { return x; }
  /// x [N, in], y [N, out] → [N, out]. May overwrite y.
  virtual at::Tensor apply(at::Tensor const& x, at::Tensor const& y, Linear const& base,
                           Pass const& pass) = 0;
};

/// A PEFT method's part of the embedding of tokens.
struct EmbeddingAdapter {
  virtual ~EmbeddingAdapter() = default;
  /// ids [M], their embeddings x [M, size] in the compute type → [M, size].
  virtual at::Tensor apply(at::Tensor const& ids, at::Tensor const& x) = 0;
};

/// A PEFT method's part of one block: beside its MLP, and behind its second residual connection.
struct BlockAdapter {
  virtual ~BlockAdapter() = default;
  /// What takes the place of the MLP's output y. x is the residual stream that y (or its norm) is added to;
  /// all [N, hidden].
  virtual at::Tensor parallel_to_mlp(at::Tensor const& /*x*/, at::Tensor const& y, Pass const&) { return y; }
  /// The block's output [N, hidden] → [N, hidden].
  virtual at::Tensor apply(at::Tensor const& x, Pass const&) { return x; }
};

/// A PEFT method's part around all blocks.
struct StackAdapter {
  virtual ~StackAdapter() = default;
  /// Embeddings (with positions, where they are added) [N, hidden] → what goes into the first block.
  virtual at::Tensor before(at::Tensor const& x, Pass const& pass) = 0;
  /// What the last norm gives [N, hidden] → what goes towards the head.
  virtual at::Tensor after(at::Tensor const& x, Pass const& pass) = 0;
};

/// y = x Wᵀ + b with an adapter slot. The weight may be stored in another type than x (compute type), or
/// quantised: it is then converted on the fly, a part at a time, and again in the backward pass, never kept
/// converted.
struct Linear {
  std::string name;     ///< HF module path, "model.layers.0.self_attn.q_proj"
  at::Tensor weight;    ///< as in the file: [out, in], or [in, out] for Conv1D; undefined where quantised
  at::Tensor bias;      ///< [out] or undefined
  bool conv1d = false;  ///< the file stores [in, out] (PEFT's fan_in_fan_out)
  bool ends_sublayer = false;  ///< the last one of attention or of an MLP
  std::shared_ptr<LinearAdapter> adapter;
  std::shared_ptr<QuantizedWeight const> quantized;  ///< in the place of `weight`, and in its shape

  bool exists() const { return weight.defined() || quantized != nullptr; }
  int64_t in_features() const { return extent(conv1d ? 0 : 1); }
  int64_t out_features() const { return extent(conv1d ? 1 : 0); }
  c10::Device device() const { return quantized ? quantized->device() : weight.device(); }
  /// W [out, in]: a view, or fp32 values where it is quantised.
  at::Tensor matrix() const { return conv1d ? plain_weight().t() : plain_weight(); }
  /// The weight as in the file, in fp32 where it is quantised.
  at::Tensor plain_weight() const { return quantized ? quantized->dequantized() : weight; }
  /// Puts fp32 values in the place of the weight, in its type; a quantised one becomes fp32.
  void set_weight(at::Tensor const& values);
  at::Tensor forward(at::Tensor const& x, Pass const& pass) const;  ///< x [N, in] → [N, out]

 private:
  int64_t extent(size_t dim) const {
    return quantized ? quantized->shape()[dim] : weight.size(static_cast<int64_t>(dim));
  }
};

}  // namespace fsllm
