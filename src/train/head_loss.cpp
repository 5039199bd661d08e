// SPDX-License-Identifier: Apache-2.0
#include "head_loss.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows of logits that are in memory at once: enough to keep the GEMM efficient, small against the whole.
constexpr int64_t kChunkRows = 128;
/// Rows of a weight whose fp16 or bf16 gradients are added to a wider sum at a time.
constexpr int64_t kPanelRows = 8192;

at::Tensor in_sum_type(at::Tensor const& logits) {
  return logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
}

at::ScalarType type_of_sum(at::Tensor const& hidden) {
  return hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Of logits [m, vocab] that nobody needs any more, -log softmax at ids, [m]: with `to_gradient` they become
/// its gradient, softmax(logits) - onehot(ids).
at::Tensor take_losses(at::Tensor const& logits, at::Tensor const& ids, bool to_gradient) {
  auto const column = ids.unsqueeze(1);
  logits.sub_(logits.amax(1, true));
  auto const of_target = logits.gather(1, column);
  auto const total = logits.exp_().sum(1, true);
  if (to_gradient) logits.div_(total).scatter_add_(1, column, at::full_like(of_target, -1));
  return total.log().sub_(of_target).squeeze(1);
}

/// Calls take(first row, the chunk's tokens).
template <class Take>
void for_each_chunk(CausalLM& model, ScoredTokens const& tokens, Take const& take) {
  bool const adapted = model.head().adapter != nullptr;
  for (int64_t begin = 0; begin < tokens.ids.size(0); begin += kChunkRows) {
    int64_t const count = std::min(kChunkRows, tokens.ids.size(0) - begin);
    auto const part =
        adapted ? tokens.pass.at(at::arange(begin, begin + count, tokens.ids.options())) : Pass();
    take(begin,
         ScoredTokens{tokens.hidden.narrow(0, begin, count), tokens.ids.narrow(0, begin, count), part});
  }
}

/// What the gradients of the tokens' losses are multiplied by: a number, and where they are defined numbers
/// of each [M]. In other types than fp16 nothing can overflow, and it is left to the backward pass.
struct Factors {
  double of_all = 1;
  at::Tensor of_each;
  void apply(at::Tensor const& gradient, int64_t begin) const {
    if (of_all != 1) gradient.mul_(of_all);
    if (of_each.defined())
      gradient.mul_(of_each.narrow(0, begin, gradient.size(0)).unsqueeze(1).to(gradient.scalar_type()));
  }
};

/// Losses of the tokens [M], in parts, with the gradients by hidden states [M, D] and by what the head
/// learns.
struct HeadGradients {
  std::vector<at::Tensor> losses, hidden, parameters;
};

/// What the head learns: its weight, its bias, or what its adapter has.
variable_list learned(CausalLM& model) {
  auto const& head = model.head();
  variable_list parameters{head.weight, head.bias};
  if (head.adapter) {
    auto const own = head.adapter->parameters();
    if (own.empty()) fail_internal(__FILE__, __LINE__, "an adapter of the head that names no parameters");
    parameters.insert(parameters.end(), own.begin(), own.end());
  }
  std::erase_if(parameters,
                [](at::Tensor const& tensor) { return !tensor.defined() || !tensor.requires_grad(); });
  return parameters;
}

/// sum [V, D] += gᵀ x.
void add_product(at::Tensor const& sum, at::Tensor const& g, at::Tensor const& x) {
  if (sum.scalar_type() == g.scalar_type()) {
    sum.addmm_(g.t(), x);
    return;
  }
  for (int64_t begin = 0; begin < sum.size(0); begin += kPanelRows) {
    int64_t const count = std::min(kPanelRows, sum.size(0) - begin);
    sum.narrow(0, begin, count).add_(at::mm(g.narrow(1, begin, count).t(), x));
  }
}

/// A head without adapter whose weight learns. By formula: a gradient of each chunk by the weight would be as
/// large as the weight.
class LearningWeight {
 public:
  LearningWeight(CausalLM& model, at::ScalarType type)
      : cap_(model.config().logit_softcap), head_(model.head()), learns_bias_(false) {
    FSLLM_ASSERT(head_.adapter == nullptr);
    learns_bias_ = head_.bias.defined() && head_.bias.requires_grad();
    head_.weight = head_.weight.detach().to(type);
    if (head_.bias.defined()) head_.bias = head_.bias.detach().to(type);
  }
  void operator()(ScoredTokens const& rows, int64_t begin, Factors const& factors,
                  HeadGradients& sums) const {
    at::NoGradGuard const no_grad;
    auto logits = in_sum_type(head_.forward(rows.hidden, rows.pass));
    at::Tensor slope;  // of cap · tanh(y / cap)
    if (cap_ > 0) {
      logits.div_(cap_).tanh_();
      slope = logits.square().neg_().add_(1);
      logits.mul_(cap_);
    }
    sums.losses.push_back(take_losses(logits, rows.ids, true));
    factors.apply(logits, begin);
    if (slope.defined()) logits.mul_(slope);
    auto const gradient = logits.to(rows.hidden.scalar_type());
    sums.hidden.push_back(at::mm(gradient, head_.matrix()));
    add_product(sums.parameters[0], gradient, rows.hidden);
    if (learns_bias_) sums.parameters[1].add_(logits.sum(0));
  }

 private:
  double cap_;
  Linear head_;
  bool learns_bias_;
};

/// Any other head. What it learns is small: a sum of gradients of chunks.
void through_autograd(CausalLM& model, variable_list const& parameters, ScoredTokens const& rows,
                      int64_t begin, Factors const& factors, HeadGradients& sums) {
  variable_list inputs{rows.hidden.detach().requires_grad_(true)};
  inputs.insert(inputs.end(), parameters.begin(), parameters.end());
  auto const logits = model.logits(inputs.front(), rows.pass);
  auto const gradient = in_sum_type(logits.detach());
  sums.losses.push_back(take_losses(gradient, rows.ids, true));
  factors.apply(gradient, begin);
  auto const gradients = torch::autograd::grad({logits}, inputs, {gradient.to(logits.scalar_type())});
  sums.hidden.push_back(gradients.front());
  for (size_t i = 0; i < parameters.size(); ++i) sums.parameters[i].add_(gradients[i + 1]);
}

HeadGradients head_gradients(CausalLM& model, ScoredTokens const& tokens, Factors const& factors) {
  at::AutoGradMode const with_gradients(true);
  auto const parameters = learned(model);
  HeadGradients sums;
  for (auto const& tensor : parameters)
    sums.parameters.push_back(at::zeros(tensor.sizes(), tensor.options().requires_grad(false)));
  if (!parameters.empty() && parameters.front().is_same(model.head().weight)) {
    LearningWeight const head(model, tokens.hidden.scalar_type());
    for_each_chunk(model, tokens,
                   [&](int64_t begin, ScoredTokens const& rows) { head(rows, begin, factors, sums); });
  } else {
    for_each_chunk(model, tokens, [&](int64_t begin, ScoredTokens const& rows) {
      through_autograd(model, parameters, rows, begin, factors, sums);
    });
  }
  return sums;
}

/// `factor` times what has been saved, for a backward pass that comes once.
at::Tensor times(at::Tensor const& saved, at::Tensor const& factor) {
  return saved.mul(factor.to(saved.scalar_type()));
}

/// The number that gradients are computed with beforehand.
double upstream_of(at::Tensor const& hidden, double upstream) {
  return hidden.scalar_type() == at::kHalf ? upstream : 1;
}

struct SummedLoss : torch::autograd::Function<SummedLoss> {
  static at::Tensor forward(AutogradContext* ctx, ScoredTokens const& tokens, double upstream,
                            at::Tensor const& hidden, at::TensorList /*learned*/, CausalLM* model) {
    auto sums = head_gradients(*model, tokens, {upstream, {}});
    ctx->save_for_backward({at::cat(sums.hidden)});
    ctx->saved_data["parameters"] = sums.parameters;
    ctx->saved_data["upstream"] = upstream;
    auto sum = at::zeros({}, hidden.options().dtype(at::kDouble).requires_grad(false));
    for (auto const& part : sums.losses) sum.add_(part.sum().to(at::kDouble));
    return sum.to(type_of_sum(hidden));
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    double const upstream = ctx->saved_data["upstream"].toDouble();
    auto const factor = upstream == 1 ? grad.at(0) : grad.at(0).div(upstream);
    auto parameters = ctx->saved_data["parameters"].toTensorVector();
    ctx->saved_data.clear();
    variable_list gradients{{}, {}, times(ctx->get_saved_variables().at(0), factor)};
    for (auto const& sum : parameters) gradients.push_back(sum.mul_(factor.to(sum.scalar_type())));
    gradients.emplace_back();
    return gradients;
  }
};

/// The losses of tokens under a head that rests: each row's gradient only waits for the weight of its loss.
struct FrozenHeadLosses : torch::autograd::Function<FrozenHeadLosses> {
  static at::Tensor forward(AutogradContext* ctx, ScoredTokens const& tokens, double upstream,
                            at::Tensor const& /*hidden*/, CausalLM* model) {
    auto const sums = head_gradients(*model, tokens, {upstream, {}});
    ctx->save_for_backward({at::cat(sums.hidden)});
    ctx->saved_data["upstream"] = upstream;
    return at::cat(sums.losses).to(at::kDouble);
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    double const upstream = ctx->saved_data["upstream"].toDouble();
    auto const factors = (upstream == 1 ? grad.at(0) : grad.at(0).div(upstream)).unsqueeze(1);
    return {{}, {}, times(ctx->get_saved_variables().at(0), factors), {}};
  }
};

/// What a backward pass needs to compute logits again.
struct Recomputed final : torch::CustomClassHolder {
  ScoredTokens tokens;
  CausalLM* model = nullptr;
};

at::Tensor losses_without_gradients(CausalLM& model, ScoredTokens const& tokens) {
  at::NoGradGuard const no_grad;
  std::vector<at::Tensor> parts;
  for_each_chunk(model, tokens, [&](int64_t, ScoredTokens const& rows) {
    parts.push_back(take_losses(in_sum_type(model.logits(rows.hidden, rows.pass)), rows.ids, false));
  });
  return at::cat(parts);
}

/// The losses of tokens under a head that learns.
struct LearningHeadLosses : torch::autograd::Function<LearningHeadLosses> {
  static at::Tensor forward(AutogradContext* ctx, ScoredTokens const& tokens, at::Tensor const& hidden,
                            at::TensorList /*learned*/, CausalLM* model) {
    auto kept = c10::make_intrusive<Recomputed>();
    kept->tokens = {hidden.detach(), tokens.ids, tokens.pass};
    kept->model = model;
    ctx->saved_data["kept"] = c10::IValue::make_capsule(kept);
    return losses_without_gradients(*model, kept->tokens).to(at::kDouble);
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    auto const capsule = ctx->saved_data["kept"].toCapsule();
    auto const& kept = static_cast<Recomputed const&>(*capsule);
    auto const sums = head_gradients(*kept.model, kept.tokens, {1, grad.at(0)});
    variable_list gradients{{}, at::cat(sums.hidden)};
    gradients.insert(gradients.end(), sums.parameters.begin(), sums.parameters.end());
    gradients.emplace_back();
    return gradients;
  }
};

struct WeightedLoss : torch::autograd::Function<WeightedLoss> {
  static at::Tensor forward(AutogradContext* ctx, ScoredTokens const& tokens, at::Tensor const& hidden,
                            at::Tensor const& weights, CausalLM* model, at::Tensor* losses) {
    bool const half = hidden.scalar_type() == at::kHalf;
    auto const sums = head_gradients(*model, tokens, {1, half ? weights : at::Tensor()});
    auto const gradient = at::cat(sums.hidden);
    ctx->save_for_backward({half ? gradient : times(gradient, weights.unsqueeze(1))});
    *losses = at::cat(sums.losses).to(at::kDouble);
    return losses->mul(weights).sum().to(type_of_sum(hidden));
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    return {{}, times(ctx->get_saved_variables().at(0), grad.at(0)), {}, {}, {}};
  }
};

}  // namespace

at::Tensor summed_head_loss(CausalLM& model, ScoredTokens const& tokens, double upstream) {
  if (at::GradMode::is_enabled()) {
    auto const parameters = learned(model);  // as a vector, they would be no inputs
    return SummedLoss::apply(tokens, upstream_of(tokens.hidden, upstream), tokens.hidden,
                             at::TensorList(parameters), &model);
  }
  auto sum = at::zeros({}, tokens.hidden.options().dtype(at::kDouble));
  for_each_chunk(model, tokens, [&](int64_t, ScoredTokens const& rows) {
    auto const losses = take_losses(in_sum_type(model.logits(rows.hidden, rows.pass)), rows.ids, false);
    sum.add_(losses.sum().to(at::kDouble));
  });
  return sum;
}

at::Tensor head_losses(CausalLM& model, ScoredTokens const& tokens, double upstream) {
  if (!at::GradMode::is_enabled()) return losses_without_gradients(model, tokens).to(at::kDouble);
  auto const parameters = learned(model);
  if (parameters.empty())
    return FrozenHeadLosses::apply(tokens, upstream_of(tokens.hidden, upstream), tokens.hidden, &model);
  return LearningHeadLosses::apply(tokens, tokens.hidden, at::TensorList(parameters), &model);
}

at::Tensor weighted_head_loss(CausalLM& model, ScoredTokens const& tokens, at::Tensor const& weights,
                              at::Tensor& losses) {
  return WeightedLoss::apply(tokens, tokens.hidden, weights, &model, &losses);
}

}  // namespace fsllm
