// SPDX-License-Identifier: Apache-2.0
// A pass is a value: passes of one model stand side by side, and masks of dropout are those of the rows.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/model/dropout.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

std::vector<int64_t> long_row(int64_t length) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < length; ++i) ids.push_back(3 + (7 * i + i * i) % 90);
  return ids;
}

TEST(Pass, TwoPassesOfAModelInterleave) {
  at::NoGradGuard const no_grad;
  for (auto const* name : {"llama", "gemma2", "gpt2", "phi3"}) {
    auto const reference = load_reference(name);
    auto const one = ragged({reference.rows[0], reference.rows[1]}), two = ragged({reference.rows[2]});
    auto const first = all_logits(*load_model(reference.dir), {reference.rows[0], reference.rows[1]}),
               second = all_logits(*load_model(reference.dir), {reference.rows[2]});
    auto const model = load_model(reference.dir);
    auto const a = model->pass(one), b = model->pass(two);
    EXPECT_TRUE(at::equal(model->logits(model->hidden_states(one.ids, a)), first)) << name;
    EXPECT_TRUE(at::equal(model->logits(model->hidden_states(two.ids, b)), second)) << name;
    EXPECT_TRUE(at::equal(model->logits(model->hidden_states(one.ids, a)), first)) << name;
  }
}

/// Tables of angles grow while other passes use them.
TEST(Pass, PassesAreMadeAndRunByThreadsAtOnce) {
  auto const model = load_model(load_reference("llama").dir);
  auto const logits_of = [](CausalLM& by, int64_t length) { return all_logits(by, {long_row(length)}); };
  std::vector<int64_t> const lengths{20, 300, 700, 40, 1500, 100};
  std::vector<std::future<at::Tensor>> running;
  for (auto const length : lengths)
    running.push_back(std::async(std::launch::async, [&, length] { return logits_of(*model, length); }));
  for (size_t i = 0; i < lengths.size(); ++i) {
    auto const alone = load_model(load_reference("llama").dir);
    EXPECT_TRUE(at::equal(running[i].get(), logits_of(*alone, lengths[i]))) << lengths[i];
  }
}

TEST(Pass, TokensKeepTheirLinesWhereverTheyAreComputed) {
  auto const model = load_model(load_reference("llama").dir);
  auto const lines_of = [&](std::vector<std::vector<int64_t>> const& rows, int64_t first_row) {
    return model->pass(ragged(rows), training(5, static_cast<int64_t>(rows.size()), first_row));
  };
  std::vector<std::vector<int64_t>> const rows{{5, 6, 7}, {8}, {9, 10}};
  auto const whole = lines_of(rows, 2);
  EXPECT_TRUE(at::equal(whole.tokens().row, at::tensor({2, 2, 2, 3, 4, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(whole.tokens().place, at::tensor({0, 1, 2, 0, 0, 1}, at::kLong)));
  auto const index = at::tensor({5, 3}, at::kLong);
  EXPECT_TRUE(at::equal(whole.at(index).tokens().row, at::tensor({4, 3}, at::kLong)));
  EXPECT_TRUE(at::equal(whole.at(index).tokens().place, at::tensor({1, 0}, at::kLong)));
  auto const x = at::zeros({6, 9});
  auto const mask = keep_mask(x, 0.5, whole, "a site");
  EXPECT_TRUE(
      at::equal(keep_mask(x.narrow(0, 0, 2), 0.5, whole.at(index), "a site"), mask.index_select(0, index)));
  EXPECT_TRUE(at::equal(keep_mask(x.narrow(0, 0, 3), 0.5, lines_of({rows[1], rows[2]}, 3), "a site"),
                        mask.narrow(0, 3, 3)));
  EXPECT_FALSE(keep_mask(x, 0.5, model->pass(ragged(rows)), "a site").defined()) << "no training";
  EXPECT_THROW(keep_mask(x.narrow(0, 0, 5), 0.5, whole, "a site"), InternalError) << "not the pass's tokens";
}

TEST(Pass, SegmentsHaveTheirClientsMasks) {
  auto const model = load_model(load_reference("llama").dir);
  std::vector<std::vector<int64_t>> const rows{{5, 6, 7}, {8, 9}, {9, 10}};
  PassOptions both;
  both.segments = {{.rows = 1, .dropout = {1, 7, 0, 3}, .first_row = 4},
                   {.rows = 2, .dropout = {1, 8, 0, 0}}};
  auto const pass = model->pass(ragged(rows), both);
  EXPECT_EQ(pass.segments().size(), 2U);
  auto const mask_of = [&](std::vector<std::vector<int64_t>> const& some, PassSegment const& segment) {
    auto const input = ragged(some);
    PassOptions options;
    options.segments = {segment};
    return keep_mask(at::zeros({input.ids.numel(), 20}), 0.5, model->pass(input, options), "a site");
  };
  EXPECT_TRUE(at::equal(
      keep_mask(at::zeros({7, 20}), 0.5, pass, "a site"),
      at::cat({mask_of({rows[0]}, both.segments[0]), mask_of({rows[1], rows[2]}, both.segments[1])})));
  both.segments.pop_back();
  EXPECT_THROW(model->pass(ragged(rows), both), InternalError) << "rows of nobody";
}

struct Dropouts {
  char const* model;
  nlohmann::json keys;
};

/// One mask more or less would change logits by far more than rounding does.
TEST(Pass, ModelsDropTheSamePackedPaddedAndRowByRow) {
  at::NoGradGuard const no_grad;
  nlohmann::json const gpt = {{"embd_pdrop", 0.1}, {"resid_pdrop", 0.2}, {"attn_pdrop", 0.3}};
  Dropouts const all[] = {
      {"gpt2", gpt}, {"gemma2", {{"attention_dropout", 0.3}}}, {"bloom", {{"attention_dropout", 0.3}}}};
  for (auto const& each : all) {
    SCOPED_TRACE(each.model);
    TempDir dir;
    auto reference = load_reference(each.model);
    copy_model(reference.dir, dir.path());
    auto config = read_json(dir / "config.json");
    config.update(each.keys);
    std::ofstream(dir / "config.json") << config;
    auto const model = load_model(dir.path(), {.compute_dtype = "fp64"});
    reference.rows.push_back(reference.rows[0]);  // of one length, not neighbours
    auto const count = static_cast<int64_t>(reference.rows.size());
    auto const logits = [&](std::vector<std::vector<int64_t>> const& rows, PassOptions const& options) {
      auto const input = ragged(rows);
      auto const pass = model->pass(input, options);
      return model->logits(model->hidden_states(input.ids, pass), pass);
    };
    auto const packed = logits(reference.rows, training(9, count));
    auto padding = training(9, count);
    padding.packing = Packing::pad;
    EXPECT_TRUE(tensors_near(logits(reference.rows, padding), packed, 1e-12));
    std::vector<at::Tensor> one_by_one;
    for (int64_t row = 0; row < count; ++row)
      one_by_one.push_back(logits({reference.rows[static_cast<size_t>(row)]}, training(9, 1, row)));
    EXPECT_TRUE(tensors_near(at::cat(one_by_one), packed, 1e-12));
    EXPECT_FALSE(tensors_near(one_by_one.back(), one_by_one.front(), 1e-3)) << "other rows, other masks";
    EXPECT_FALSE(tensors_near(logits(reference.rows, training(10, count)), packed, 1e-3));
    EXPECT_FALSE(tensors_near(all_logits(*model, reference.rows), packed, 1e-3));
  }
}

}  // namespace
}  // namespace fsllm::test
