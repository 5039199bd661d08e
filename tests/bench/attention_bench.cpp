// SPDX-License-Identifier: Apache-2.0
// Attention of training, forward and backward, on one core, beside LibTorch's fused kernel and its batched
// products with a softmax.
//   attention_bench [HEADS KV_HEADS DIM]   (9 3 64) → a line a shape and type: milliseconds, and the rate at
// which the products under the diagonal run
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "fsllm/core/matmul.hpp"
#include "functions.hpp"

namespace {

using Attend = std::function<at::Tensor(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v)>;

/// The best of several, forward and backward.
double seconds_of(std::vector<at::Tensor> const& qkv, at::Tensor const& grad, Attend const& attend) {
  double best = 1e9;
  for (int i = 0; i < 7; ++i) {
    std::vector<at::Tensor> leaves;
    for (auto const& x : qkv) leaves.push_back(x.detach().requires_grad_(true));
    auto const start = std::chrono::steady_clock::now();
    attend(leaves[0], leaves[1], leaves[2]).backward(grad);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  fsllm::use_matmul_kernels();
  int64_t const heads = argc > 3 ? std::stoll(argv[1]) : 9, kv_heads = argc > 3 ? std::stoll(argv[2]) : 3,
                dim = argc > 3 ? std::stoll(argv[3]) : 64;
  for (auto const type : {at::kFloat, at::kBFloat16})
    for (auto const& [rows, length] : {std::pair{4, 128}, {8, 512}, {2, 2048}}) {
      auto const tensor = [&](int64_t of) { return at::randn({rows * length, of, dim}).to(type); };
      std::vector<at::Tensor> const qkv{tensor(heads), tensor(kv_heads), tensor(kv_heads)};
      auto const grad = at::randn({rows * length, heads * dim}).to(type);
      fsllm::detail::CausalRule rule{{0}, 0, 0, 1 / std::sqrt(static_cast<double>(dim)), {}};
      for (int row = 0; row < rows; ++row) rule.firsts.push_back(rule.firsts.back() + length);
      auto const batched = [&](at::Tensor const& x) {
        return x.view({rows, length, x.size(1), dim}).transpose(1, 2);
      };
      auto const flat = [&](at::Tensor const& x) {
        return x.transpose(1, 2).reshape({rows * length, heads * dim});
      };
      auto const hidden = at::ones({length, length}, at::kBool).triu(1);
      double const ours = seconds_of(qkv, grad, [&](auto const& q, auto const& k, auto const& v) {
        return fsllm::detail::causal_attention(q, k, v, rule);
      });
      double const fused = seconds_of(qkv, grad, [&](auto const& q, auto const& k, auto const& v) {
        return flat(at::scaled_dot_product_attention(batched(q), batched(k), batched(v), {}, 0, true,
                                                     rule.scale, kv_heads != heads));
      });
      double const plain = seconds_of(qkv, grad, [&](auto const& q, auto const& k, auto const& v) {
        auto const all = [&](at::Tensor const& x) {
          return batched(x).repeat_interleave(heads / kv_heads, 1);
        };
        auto const scores = at::matmul(batched(q), all(k).transpose(2, 3)).mul_(rule.scale);
        auto const shown = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
        return flat(at::matmul(at::softmax(shown, -1), all(v)));
      });
      auto const pairs = static_cast<double>(rows * heads) * static_cast<double>(length * (length + 1)) / 2;
      double const operations = 7 * 2 * pairs * static_cast<double>(dim);  // two products and five
      std::cout << nlohmann::json{{"type", at::toString(type)},
                                  {"rows", rows},
                                  {"length", length},
                                  {"ms", 1e3 * ours},
                                  {"gflops", operations / ours / 1e9},
                                  {"fused_ms", 1e3 * fused},
                                  {"products_ms", 1e3 * plain}}
                << "\n";
    }
  return 0;
}
