// SPDX-License-Identifier: Apache-2.0
// Attention of training against its definition in float64.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/core.h>

#include <limits>

#include "cpu_kernels.hpp"
#include "functions.hpp"
#include "support.hpp"

namespace fsllm::detail {
namespace {

struct Shape {
  std::vector<int64_t> lengths;
  int64_t heads, kv_heads, dim, past = 0, window = 0;
  bool slopes = false;
};

struct Inputs {
  at::Tensor q, k, v, grad;
  CausalRule rule;
};

Inputs inputs_of(Shape const& s, at::ScalarType type) {
  Inputs in;
  in.rule = {{0}, s.past, s.window, 0.7 / std::sqrt(static_cast<double>(s.dim)), {}};
  for (auto const length : s.lengths) in.rule.firsts.push_back(in.rule.firsts.back() + length);
  int64_t const queries = in.rule.firsts.back(), keys = queries + std::ssize(s.lengths) * s.past;
  in.q = at::randn({queries, s.heads, s.dim}).mul_(3).to(type);
  in.k = at::randn({keys, s.kv_heads, s.dim}).to(type);
  // as a part of a wider tensor, as fused projections give it
  in.v = at::randn({keys, 2 * s.kv_heads, s.dim}).to(type).narrow(1, s.kv_heads, s.kv_heads);
  in.grad = at::randn({queries, s.heads * s.dim}).to(type);
  if (s.slopes) in.rule.slopes = at::rand({s.heads}).mul_(0.2);
  return in;
}

at::Tensor by_definition(Inputs const& in, at::Tensor const& q, at::Tensor const& k, at::Tensor const& v) {
  auto const& rule = in.rule;
  int64_t const heads = q.size(1), group = heads / k.size(1);
  std::vector<at::Tensor> rows;
  for (size_t r = 0; r + 1 < rule.firsts.size(); ++r) {
    int64_t const first = rule.firsts[r], length = rule.firsts[r + 1] - first;
    int64_t const key = first + static_cast<int64_t>(r) * rule.past, keys = length + rule.past;
    auto const mine = [&](at::Tensor const& x) {
      return x.narrow(0, key, keys).repeat_interleave(group, 1).transpose(0, 1);
    };
    auto const distance = at::arange(rule.past, keys).unsqueeze(1) - at::arange(keys).unsqueeze(0);
    auto scores =
        at::matmul(q.narrow(0, first, length).transpose(0, 1), mine(k).transpose(1, 2)) * rule.scale;
    if (rule.slopes.defined()) scores = scores - rule.slopes.to(at::kDouble).view({-1, 1, 1}) * distance;
    auto hidden = distance < 0;
    if (rule.window > 0) hidden = hidden.logical_or(distance >= rule.window);
    auto const weights =
        at::softmax(scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()), -1);
    rows.push_back(at::matmul(weights, mine(v)).transpose(0, 1).reshape({length, -1}));
  }
  return at::cat(rows);
}

struct Result {
  at::Tensor out, q, k, v;
};

Result results(
    Inputs const& in, at::ScalarType type,
    std::function<at::Tensor(at::Tensor const&, at::Tensor const&, at::Tensor const&)> const& attend) {
  std::vector<at::Tensor> leaves;
  for (auto const& x : {in.q, in.k, in.v}) leaves.push_back(x.to(type).detach().requires_grad_(true));
  auto const out = attend(leaves[0], leaves[1], leaves[2]);
  out.backward(in.grad.to(type));
  return {out.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
}

void expect_near(at::Tensor const& got, at::Tensor const& expected, double tolerance,
                 std::string const& what) {
  auto const wide = got.to(at::kDouble);
  ASSERT_EQ(wide.sizes(), expected.sizes()) << what;
  double const off = (wide - expected).abs().max().item<double>(), size = expected.abs().max().item<double>();
  EXPECT_LE(off, tolerance * std::max(size, 1.0)) << what;
}

std::vector<Shape> shapes() {
  return {{{128}, 9, 3, 64},
          {{1, 5, 48, 49, 131}, 4, 2, 16},
          {{33, 70}, 3, 3, 20},
          {{200}, 2, 1, 128, 0, 50},
          {{97, 10}, 4, 4, 8, 0, 1},
          {{65, 64}, 8, 2, 80, 12},
          {{30, 100}, 4, 1, 32, 20, 40},
          {{90, 3}, 6, 6, 24, 0, 0, true},
          {{40, 77}, 4, 2, 256, 5, 33, true},
          {{530}, 1, 1, 40}};
}

TEST(CausalAttention, IsItsDefinition) {
  if (cpu_kernels() == nullptr) GTEST_SKIP() << "no kernels for this processor";
  for (auto const& shape : shapes())
    for (auto const& [type, tolerance] :
         {std::pair{at::kFloat, 3e-6}, {at::kBFloat16, 8e-3}, {at::kHalf, 1e-3}}) {
      SCOPED_TRACE(fmt::format("{} tokens, {} heads of {}, {}", shape.lengths.back(), shape.heads, shape.dim,
                               at::toString(type)));
      auto const in = inputs_of(shape, type);
      auto const expected = results(in, at::kDouble, [&](auto const& q, auto const& k, auto const& v) {
        return by_definition(in, q, k, v);
      });
      auto const got = results(in, type, [&](auto const& q, auto const& k, auto const& v) {
        return causal_attention(q, k, v, in.rule);
      });
      expect_near(got.out, expected.out, tolerance, "out");
      expect_near(got.q, expected.q, tolerance, "q");
      expect_near(got.k, expected.k, tolerance, "k");
      expect_near(got.v, expected.v, tolerance, "v");
      at::NoGradGuard const no_grad;
      EXPECT_TRUE(at::equal(causal_attention(in.q, in.k, in.v, in.rule), got.out)) << "without gradients";
    }
}

/// What is no number is not hidden: neither forward nor backward.
TEST(CausalAttention, NotANumberStaysOne) {
  if (cpu_kernels() == nullptr) GTEST_SKIP() << "no kernels for this processor";
  for (auto const type : {at::kFloat, at::kBFloat16})
    for (auto member : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::grad}) {
      auto in = inputs_of({{70}, 4, 2, 64}, type);
      (in.*member) = (in.*member).clone();
      (in.*member)[3].fill_(std::numeric_limits<float>::quiet_NaN());
      auto const got = results(in, type, [&](auto const& q, auto const& k, auto const& v) {
        return causal_attention(q, k, v, in.rule);
      });
      bool const forward = member != &Inputs::grad;
      EXPECT_EQ(got.out[3].isnan().any().item<bool>(), forward);
      EXPECT_TRUE(got.q[3].isnan().any().item<bool>());
      EXPECT_TRUE(got.k[0].isnan().any().item<bool>());
    }
}

/// A row's bits are its own: neither the rows beside it nor the threads matter, nor what later tokens hold,
/// as long as it is a number.
TEST(CausalAttention, ARowIsAlone) {
  if (cpu_kernels() == nullptr) GTEST_SKIP() << "no kernels for this processor";
  auto const in = inputs_of({{17, 120, 60}, 6, 2, 64}, at::kFloat);
  auto const attend = [](Inputs const& given) {
    return results(given, at::kFloat, [&](auto const& q, auto const& k, auto const& v) {
      return causal_attention(q, k, v, given.rule);
    });
  };
  auto const all = attend(in);
  int const threads = at::get_num_threads();
  at::set_num_threads(3);
  auto const more_threads = attend(in);
  at::set_num_threads(threads);
  Inputs one;
  one.rule = in.rule;
  one.rule.firsts = {0, 120};
  for (auto [to, from] : {std::pair{&one.q, &in.q}, {&one.k, &in.k}, {&one.v, &in.v}, {&one.grad, &in.grad}})
    *to = from->narrow(0, 17, 120);
  auto const alone = attend(one);
  for (auto member : {&Result::out, &Result::q, &Result::k, &Result::v}) {
    EXPECT_TRUE(at::equal(all.*member, more_threads.*member));
    EXPECT_TRUE(at::equal((all.*member).narrow(0, 17, 120), alone.*member));
  }
  auto broken = in;
  broken.k = in.k.clone();
  broken.v = in.v.clone();
  for (auto* x : {&broken.k, &broken.v}) x->narrow(0, 17 + 100, 20).fill_(1e30F);
  EXPECT_TRUE(at::equal(attend(broken).out.narrow(0, 0, 117), all.out.narrow(0, 0, 117)));
}

}  // namespace
}  // namespace fsllm::detail
