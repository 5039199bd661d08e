// SPDX-License-Identifier: Apache-2.0
#include "frozen_rows.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <vector>

#include "decoder.hpp"
#include "fsllm/model/frozen_rows.hpp"
#include "pass_plan.hpp"

namespace fsllm {
namespace detail {

at::Tensor FrozenRows::get(std::span<int64_t const> tokens, std::function<at::Tensor()> const& compute) {
  std::string const key(reinterpret_cast<char const*>(tokens.data()), tokens.size_bytes());
  auto const found = rows_.find(key);
  if (found != rows_.end()) return found->second;
  auto const row = compute();
  auto const size = static_cast<int64_t>(row.nbytes() + key.size());
  if (bytes_ + size <= limit_) {
    rows_.emplace(key, row);
    bytes_ += size;
  }
  return row;
}

void FrozenRows::clear() {
  rows_.clear();
  bytes_ = 0;
}

namespace {

bool learns(Linear const& linear) {
  return linear.adapter != nullptr || (linear.weight.defined() && linear.weight.requires_grad()) ||
         (linear.bias.defined() && linear.bias.requires_grad());
}

}  // namespace

int64_t Decoder::frozen_blocks() const {
  bool const drops =
      config_.embedding_dropout > 0 || config_.residual_dropout > 0 || config_.attention_dropout > 0;
  if (drops || virtual_tokens_ || embedding_adapter_ || stack_adapter_ || hooks_) return 0;
  if (learns(embedding_project_)) return 0;
  int64_t first = std::ssize(blocks_);
  for (auto const& parameter : layout_) {
    auto const& tensor = *parameter.tensor;
    if (tensor.defined() && tensor.requires_grad())
      first = std::min(first, std::max<int64_t>(0, parameter.layer));
  }
  for (int64_t layer = 0; layer < first; ++layer) {
    auto const& b = blocks_[static_cast<size_t>(layer)];
    auto const all = {&b.q, &b.k, &b.v, &b.qkv, &b.out, &b.gate, &b.up, &b.gate_up, &b.down};
    if (b.adapter || std::any_of(all.begin(), all.end(), [](auto const* linear) { return learns(*linear); }))
      return layer;
  }
  return first;
}

std::optional<at::Tensor> Decoder::behind_frozen_blocks(at::Tensor const& ids, Pass const& pass) const {
  auto const& plan = pass.plan();
  if (!frozen_rows_ || pass.has_cache() || plan.shared_prefix || !ids.is_cpu()) return {};
  int64_t const blocks = frozen_rows_->blocks();
  if (frozen_blocks() < blocks) {  // one of them has come to learn
    frozen_rows_->clear();
    return {};
  }
  at::NoGradGuard const no_grad;
  auto const& offsets = plan.rows.offsets();
  auto const tokens = ids.contiguous();
  std::vector<at::Tensor> rows;
  for (size_t row = 0; row + 1 < offsets.size(); ++row) {
    int64_t const begin = offsets[row], count = offsets[row + 1] - begin;
    rows.push_back(
        frozen_rows_->get({tokens.const_data_ptr<int64_t>() + begin, static_cast<size_t>(count)}, [&] {
          auto const own = tokens.narrow(0, begin, count);
          auto const alone = this->pass({own, {0, count}}, {}, nullptr);
          auto x = embed(own, alone);
          for (size_t layer = 0; layer < static_cast<size_t>(blocks); ++layer)
            x = run_block(blocks_[layer], std::move(x), static_cast<int64_t>(layer), alone);
          return x;
        }));
  }
  return at::cat(rows);
}

}  // namespace detail

int64_t frozen_blocks(CausalLM const& model) {
  return dynamic_cast<detail::Decoder const&>(model).frozen_blocks();
}

void keep_frozen_rows(CausalLM& model, int64_t bytes) {
  dynamic_cast<detail::Decoder&>(model).keep_frozen_rows(bytes);
}

int64_t frozen_row_bytes(CausalLM const& model) {
  return dynamic_cast<detail::Decoder const&>(model).frozen_row_bytes();
}

}  // namespace fsllm
