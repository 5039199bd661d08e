// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "fsllm/core/rng.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/linear.hpp"

namespace fsllm::detail {

/// Arguments of bottlenecks; docs/config.md says what they mean.
struct BottleneckOptions {
  std::string architecture = "houlsby", non_linearity = "swish", inverse = "none";
  int64_t reduction_factor = 16, mlp_reduction_factor = 0, inverse_reduction_factor = 2, phm_dim = 0;
  double scaling = 1, dropout = 0;
};

/// How a weight starts: N(0, 0.02²), BERT's way; Kaiming-uniform, U(±1/√in); or zero.
enum class Start { bert, kaiming, zero };

/// x [N, in] → x W + b [N, out]. W learns itself (`weight`), or is made of factors and a `rule` that all
/// projections of an adapter share (Compacter). All tensors are fp32 and learn.
struct Projection {
  at::Tensor weight;       ///< [out, in]
  at::Tensor rule;         ///< [n, n, n]
  at::Tensor left, right;  ///< [n, in/n, 1], [n, 1, out/n]
  at::Tensor bias;         ///< [out]

  /// With a rule, whose n must divide both sizes, factors are made for it; without one a weight.
  static Projection make(int64_t in, int64_t out, at::Tensor const& rule, at::Device device);
  at::Tensor apply(at::Tensor const& x) const;
  /// Its own tensors below `path`; the rule is not among them.
  void add_to(TensorMap& state, std::string const& path) const;
  /// A bias starts from zero, factors from Glorot's normal distribution; `next` gives a stream for each
  /// tensor that is drawn.
  void initialize(Start how, std::function<Philox()> const& next) const;
};

/// W = Σᵢ ruleᵢ ⊗ leftᵢ rightᵢ [in, out] (Karimi Mahabadi et al. 2021, Compacter).
at::Tensor hypercomplex_matrix(at::Tensor const& rule, at::Tensor const& left, at::Tensor const& right);

/// W_up σ(W_down x + b_down) + b_up.
struct SmallNetwork {
  Projection down, up;
  at::Tensor (*activation)(at::Tensor const&) = nullptr;

  at::Tensor apply(at::Tensor const& x) const { return up.apply(activation(down.apply(x))); }
  void add_to(TensorMap& state, std::string const& path) const;
};

/// An additive coupling of the halves x₁ and x₂ (Dinh et al. 2015, section 3.2) behind the embeddings, and
/// its inverse before the head (Pfeiffer et al. 2020, MAD-X): y₁ = x₁ + F(x₂), y₂ = x₂ + G(y₁).
struct Coupling final : StackAdapter {
  SmallNetwork f, g;

  at::Tensor before(at::Tensor const& x, Pass const&) override;
  at::Tensor after(at::Tensor const& x, Pass const&) override;
};

}  // namespace fsllm::detail
