// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  Reference reference_ = load_reference(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Model, EveryFamily, testing::ValuesIn(reference_names()),
                         [](auto const& test) { return test.param; });

/// Rows of all_logits against "row<i>.logits".
void expect_golden_logits(CausalLM& model, Reference const& reference, double tolerance) {
  auto const logits = all_logits(model, reference.rows);
  int64_t start = 0;
  double worst = 0;
  for (size_t row = 0; row < reference.rows.size(); ++row) {
    auto const length = static_cast<int64_t>(reference.rows[row].size());
    auto const& golden = reference.golden.at("row" + std::to_string(row) + ".logits");
    auto const mine = logits.narrow(0, start, length);
    EXPECT_TRUE(tensors_near(mine, golden, tolerance)) << "row " << row;
    worst = std::max(worst, (mine.to(at::kDouble).sub(golden.to(at::kDouble))).abs().max().item<double>());
    start += length;
  }
  testing::Test::RecordProperty("largest_logit_error", std::to_string(worst));
  std::printf("%s: largest logit error %.2e\n", reference.dir.filename().c_str(), worst);
}

TEST_P(EveryFamily, LogitsAgreeWithTransformersInFp32) {
  expect_golden_logits(*load_model(reference_.dir), reference_, 1e-4);
}

TEST_P(EveryFamily, LogitsAgreeWithTransformersInFp64) {
  expect_golden_logits(*load_model(reference_.dir, {.compute_dtype = "fp64"}), reference_, 2e-5);
}

TEST_P(EveryFamily, TenLossesOfFullTrainingAgreeWithTransformers) {
  auto const model = load_model(reference_.dir);
  model->make_trainable("fp32");
  auto const parameters = model->parameters();
  for (size_t step = 0; step < reference_.losses_full_sgd.size(); ++step) {
    auto const loss = mean_loss(*model, reference_);
    double const golden = reference_.losses_full_sgd[step];
    EXPECT_NEAR(loss.item<double>(), golden, 1e-4 * golden) << "step " << step;
    loss.backward();
    at::NoGradGuard const no_grad;
    for (auto const& [name, parameter] : parameters) {
      ASSERT_TRUE(parameter.grad().defined()) << name;
      parameter.add_(parameter.grad(), -0.05);
      parameter.mutable_grad().zero_();
    }
  }
}

TEST_P(EveryFamily, RowsDoNotSeeEachOther) {
  auto const model = load_model(reference_.dir, {.compute_dtype = "fp64"});
  auto const together = all_logits(*model, reference_.rows);
  int64_t start = 0;
  for (auto const& row : reference_.rows) {
    auto const alone = all_logits(*model, {row});
    EXPECT_TRUE(tensors_near(together.narrow(0, start, alone.size(0)), alone, 1e-12));
    start += alone.size(0);
  }
}

TEST_P(EveryFamily, RowsOfEqualLengthShareACallUpToRounding) {
  auto const model = load_model(reference_.dir, {.compute_dtype = "fp64"});
  auto const& row = reference_.rows[0];
  std::vector<int64_t> const reversed(row.rbegin(), row.rend());
  auto const together = all_logits(*model, {row, reversed});
  EXPECT_TRUE(tensors_near(together.narrow(0, 0, 17), all_logits(*model, {row}), 1e-12));
  EXPECT_TRUE(tensors_near(together.narrow(0, 17, 17), all_logits(*model, {reversed}), 1e-12));
}

TEST_P(EveryFamily, PaddedAttentionGivesTheSameLogitsUpToRounding) {
  auto const model = load_model(reference_.dir, {.compute_dtype = "fp64"});
  at::NoGradGuard const no_grad;
  auto const input = ragged(reference_.rows);
  EXPECT_TRUE(tensors_near(model->logits(model->hidden_states(input.ids, model->pass(input, {Packing::pad}))),
                           all_logits(*model, reference_.rows), 1e-12));
}

TEST_P(EveryFamily, PaddedAttentionGivesTheSameGradientsUpToRounding) {
  std::map<std::string, at::Tensor> gradients[2];
  for (auto const packing : {Packing::pack, Packing::pad}) {
    auto const model = load_model(reference_.dir, {.compute_dtype = "fp64"});
    model->make_trainable("fp64");
    mean_loss(*model, reference_, {packing}).backward();
    for (auto const& [name, parameter] : model->parameters())
      gradients[packing == Packing::pad][name] = parameter.grad();
  }
  for (auto const& [name, gradient] : gradients[0])
    EXPECT_TRUE(tensors_near(gradients[1].at(name), gradient, 1e-10)) << name;
}

/// Logits of these tokens behind the cache's, which they join.
at::Tensor cached_logits(CausalLM& model, RaggedInput const& input, KvCache& cache) {
  auto const pass = model.pass(input, {}, &cache);
  auto const logits = model.logits(model.hidden_states(input.ids, pass));
  pass.advance_cache();
  return logits;
}

TEST_P(EveryFamily, CacheInPiecesGivesTheLogitsOfOnePass) {
  auto const model = load_model(reference_.dir, {.compute_dtype = "fp64"});
  at::NoGradGuard const no_grad;
  auto const whole = all_logits(*model, {reference_.rows[0], reference_.rows[2]});
  std::vector<std::vector<int64_t>> const rows = {reference_.rows[0], reference_.rows[2]};
  KvCache cache(model->config().num_layers, 2);
  std::vector<size_t> done = {0, 0};
  for (std::vector<size_t> const& piece : {std::vector<size_t>{7, 3}, {1, 1}, {8, 6}, {1, 1}}) {
    std::vector<std::vector<int64_t>> parts;
    for (size_t row = 0; row < 2; ++row)
      parts.emplace_back(rows[row].begin() + done[row], rows[row].begin() + done[row] + piece[row]);
    auto const logits = cached_logits(*model, ragged(parts), cache);
    auto const first = static_cast<int64_t>(piece[0]), second = static_cast<int64_t>(piece[1]);
    EXPECT_TRUE(tensors_near(logits.narrow(0, 0, first), whole.narrow(0, done[0], first), 1e-12));
    EXPECT_TRUE(tensors_near(logits.narrow(0, first, second), whole.narrow(0, 17 + done[1], second), 1e-12));
    for (size_t row = 0; row < 2; ++row) done[row] += piece[row];
  }
}

/// The embeddings of known tokens, as if they had been learned.
struct KnownTokens final : VirtualTokens {
  KnownTokens(CausalLM& model, std::vector<int64_t> const& ids)
      : embeddings(model.embeddings(at::tensor(ids, at::kLong))) {}
  int64_t count() const override { return embeddings.size(0); }
  at::Tensor values(Pass const&) override { return embeddings; }
  at::Tensor embeddings;
};

TEST_P(EveryFamily, VirtualEmbeddingsActAsTheTokensTheyCameFrom) {
  auto const model = load_model(reference_.dir, {.compute_dtype = "fp64"});
  at::NoGradGuard const no_grad;
  std::vector<int64_t> const first = {7, 3, 90, 4};
  auto const& rows = reference_.rows;
  std::vector<at::Tensor> expected;
  for (auto const& row : rows) {
    auto ids = first;
    ids.insert(ids.end(), row.begin(), row.end());
    expected.push_back(all_logits(*model, {ids}).narrow(0, 4, static_cast<int64_t>(row.size())));
  }
  int64_t const positions = model->config().max_positions;
  model->set_virtual_tokens(std::make_shared<KnownTokens>(*model, first));
  EXPECT_EQ(model->config().max_positions, positions - 4);
  EXPECT_TRUE(tensors_near(all_logits(*model, rows), at::cat(expected), 1e-12));
  KvCache cache(model->config().num_layers, 1);
  for (size_t done = 0, piece = 3; done < rows[0].size(); done += piece, piece = rows[0].size() - done) {
    auto const begin = rows[0].begin() + static_cast<std::ptrdiff_t>(done);
    auto const input = ragged({{begin, begin + static_cast<std::ptrdiff_t>(piece)}});
    auto const logits = cached_logits(*model, input, cache);
    auto const from = static_cast<int64_t>(done), length = static_cast<int64_t>(piece);
    EXPECT_TRUE(tensors_near(logits, expected[0].narrow(0, from, length), 1e-12)) << done;
  }
  model->set_virtual_tokens(nullptr);
  EXPECT_EQ(model->config().max_positions, positions);
}

/// Adds 1 behind a block; changes its MLP's output, beside it or where it ends, in a way that no norm undoes;
/// shifts what goes into all blocks and what comes out; doubles what goes into a projection.
struct Plus final : BlockAdapter {
  at::Tensor apply(at::Tensor const& x, Pass const&) override { return x.add(1); }
};
struct ChangeBeside final : BlockAdapter {
  at::Tensor parallel_to_mlp(at::Tensor const& x, at::Tensor const& y, Pass const&) override {
    EXPECT_EQ(x.sizes(), y.sizes());
    return y.mul(2).add(1);
  }
};
struct ChangeOut final : LinearAdapter {
  at::Tensor apply(at::Tensor const&, at::Tensor const& y, Linear const&, Pass const&) override {
    return y.mul(2).add(1);
  }
};
struct Around final : StackAdapter {
  at::Tensor before(at::Tensor const& x, Pass const&) override { return x.add(1); }
  at::Tensor after(at::Tensor const& x, Pass const&) override { return x.sub(2); }
};
struct TwiceIn final : LinearAdapter {
  at::Tensor input(at::Tensor const& x, Pass const&) override { return x.mul(2); }
  at::Tensor apply(at::Tensor const&, at::Tensor const& y, Linear const&, Pass const&) override { return y; }
};

TEST(Forward, AdaptersStandWhereTheyAreAttached) {
  auto const reference = load_reference("gpt2");
  auto const model = load_model(reference.dir, {.compute_dtype = "fp64"});
  auto const plain = all_logits(*model, reference.rows);
  auto const parameters = model->parameters();
  auto* const down = model->linears().back();
  // The last block's output is its input plus both branches: a bias one higher adds one to it.
  model->set_parameter(down->name + ".bias", parameters.at(down->name + ".bias").to(at::kDouble).add(1));
  auto const raised = all_logits(*model, reference.rows);
  model->set_parameter(down->name + ".bias", parameters.at(down->name + ".bias"));
  EXPECT_TRUE(tensors_near(all_logits(*model, reference.rows), plain, 0));
  model->set_block_adapter(1, std::make_shared<Plus>());
  EXPECT_TRUE(tensors_near(all_logits(*model, reference.rows), raised, 1e-12));
  model->set_block_adapter(1, nullptr);
  down->adapter = std::make_shared<TwiceIn>();
  auto const doubled = all_logits(*model, reference.rows);
  down->adapter.reset();
  model->set_parameter(down->name + ".weight", parameters.at(down->name + ".weight").mul(2));
  EXPECT_TRUE(tensors_near(all_logits(*model, reference.rows), doubled, 1e-12));
  EXPECT_FALSE(tensors_near(doubled, plain, 0.1));
  EXPECT_THROW(model->set_parameter("none", at::zeros({1})), InternalError);
}

/// What an adapter adds beside the MLP is added to the MLP's output, in every form of a block.
TEST_P(EveryFamily, BesideTheMlpIsWhereItsLastProjectionEnds) {
  auto const model = load_model(reference_.dir);
  std::vector<Linear*> ends;
  for (auto* linear : model->linears())
    if (linear->ends_sublayer) ends.push_back(linear);
  ASSERT_EQ(ends.size(), static_cast<size_t>(2 * model->config().num_layers));
  auto const plain = all_logits(*model, reference_.rows);
  for (size_t i = 1; i < ends.size(); i += 2) ends[i]->adapter = std::make_shared<ChangeOut>();
  auto const expected = all_logits(*model, reference_.rows);
  for (auto* end : ends) end->adapter.reset();
  for (int64_t layer = 0; layer < model->config().num_layers; ++layer)
    model->set_block_adapter(layer, std::make_shared<ChangeBeside>());
  EXPECT_TRUE(tensors_near(all_logits(*model, reference_.rows), expected, 0));
  EXPECT_FALSE(tensors_near(expected, plain, 1e-4));
}

/// gpt2: a shift of the embeddings is one of the positions, a shift behind the last norm one of its bias.
TEST(Forward, AdaptersAroundAllBlocks) {
  auto const reference = load_reference("gpt2");
  auto const model = load_model(reference.dir, {.compute_dtype = "fp64"});
  auto const plain = all_logits(*model, reference.rows);
  model->set_stack_adapter(std::make_shared<Around>());
  auto const around = all_logits(*model, reference.rows);
  model->set_stack_adapter(nullptr);
  EXPECT_TRUE(at::equal(all_logits(*model, reference.rows), plain));
  auto const parameters = model->parameters();
  auto const shift = [&](std::string const& name, double by) {
    model->set_parameter(name, parameters.at(name).to(at::kDouble).add(by));
  };
  shift("transformer.wpe.weight", 1);
  shift("transformer.ln_f.bias", -2);
  EXPECT_TRUE(tensors_near(all_logits(*model, reference.rows), around, 1e-12));
  EXPECT_FALSE(tensors_near(around, plain, 0.1));
}

TEST(Forward, VirtualTokensNeedPositions) {
  auto const gpt2 = load_model(load_reference("gpt2").dir);
  gpt2->set_virtual_tokens(std::make_shared<KnownTokens>(*gpt2, std::vector<int64_t>(30, 5)));
  EXPECT_NO_THROW(all_logits(*gpt2, {std::vector<int64_t>(10, 7)}));
  EXPECT_ERROR(all_logits(*gpt2, {std::vector<int64_t>(11, 7)}),
               "a row of 11 tokens (the model has 10 positions beside 30 virtual tokens)");
  EXPECT_ERROR(gpt2->set_virtual_tokens(std::make_shared<KnownTokens>(*gpt2, std::vector<int64_t>(40, 5))),
               "40 virtual tokens (the model has 40 positions)");
}

/// bf16 storage computed in fp32 equals the same rounded weights stored in fp32.
TEST_P(EveryFamily, HalfStorageIsConvertedOnTheFly) {
  TempDir dir;
  copy_model(reference_.dir, dir.path());
  auto tensors = SafetensorsReader(reference_.dir).tensors();
  for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kBFloat16);
  write_safetensors(dir / "model.safetensors", tensors);
  auto const half = load_model(dir.path());
  auto const full = load_model(dir.path(), {.storage_dtype = "fp32"});
  EXPECT_EQ(half->linears()[0]->weight.scalar_type(), at::kBFloat16);
  EXPECT_EQ(full->linears()[0]->weight.scalar_type(), at::kFloat);
  EXPECT_TRUE(tensors_near(all_logits(*half, reference_.rows), all_logits(*full, reference_.rows), 1e-6));
}

TEST_P(EveryFamily, ComputesInHalfTypes) {
  auto const exact = all_logits(*load_model(reference_.dir), reference_.rows);
  for (auto const* type : {"bf16", "fp16"}) {
    auto const model = load_model(reference_.dir, {.storage_dtype = type, .compute_dtype = type});
    auto const logits = all_logits(*model, reference_.rows).to(at::kFloat);
    auto const relative = logits.sub(exact).norm().item<double>() / exact.norm().item<double>();
    EXPECT_LT(relative, std::string(type) == "bf16" ? 0.03 : 0.004) << type;
  }
}

TEST(Forward, FrozenWeightsStayViewsOfTheFile) {
  auto const reference = load_reference("llama");
  SafetensorsReader const reader(reference.dir);
  auto const model = load_model(reference.dir);
  for (auto const& [name, tensor] : model->parameters()) {
    EXPECT_FALSE(tensor.requires_grad()) << name;
    EXPECT_TRUE(tensor.storage().resizable() == false) << name << " is an own copy";
    EXPECT_TRUE(at::equal(tensor, reader.tensor(name))) << name;
  }
}

/// Frozen projections keep nothing of their input for the backward pass, whatever the weights are stored as.
TEST(Forward, FrozenLinearDoesNotSaveItsInput) {
  auto const dir = load_reference("llama").dir;
  for (auto const* storage : {"fp32", "bf16"}) {
    auto const model = load_model(dir, {.storage_dtype = storage});
    auto const leaf = at::zeros({5, 32}).set_requires_grad(true);
    auto const x = leaf.mul(2);
    auto const holders = x.storage().use_count();
    auto const y = model->linears()[0]->forward(x, Pass());
    EXPECT_TRUE(y.requires_grad());
    EXPECT_EQ(x.storage().use_count(), holders) << storage;
  }
}

TEST(Forward, TrainableParametersAreOwnCopiesAndTiedOnesOne) {
  auto const model = load_model(load_reference("llama3").dir);
  auto const before = model->parameters();
  model->make_trainable("fp32");
  auto const after = model->parameters();
  EXPECT_EQ(after.count("lm_head.weight"), 0U);
  for (auto const& [name, tensor] : after) {
    EXPECT_TRUE(tensor.requires_grad() && tensor.is_leaf() && tensor.is_contiguous()) << name;
    EXPECT_NE(tensor.const_data_ptr(), before.at(name).const_data_ptr()) << name;
  }
}

TEST(Forward, BadInputIsNamed) {
  auto const llama = load_model(load_reference("llama").dir);
  auto const gpt2 = load_model(load_reference("gpt2").dir);
  EXPECT_ERROR(all_logits(*llama, {{5, 96}}), "token id 96 (the model's vocabulary has 96 tokens)");
  EXPECT_ERROR(all_logits(*llama, {{5, -1}}), "token id -1");
  EXPECT_ERROR(all_logits(*llama, {{}}), "a batch of 0 tokens in 1 rows");
  EXPECT_ERROR(all_logits(*llama, {}), "a batch of 0 tokens in 0 rows");
  EXPECT_ERROR(all_logits(*llama, {{5}, {}, {6}}), "a batch of 2 tokens in 3 rows (every row needs a token)");
  EXPECT_ERROR(all_logits(*gpt2, {std::vector<int64_t>(41, 7)}),
               "a row of 41 tokens (the model has 40 positions)");
}

}  // namespace
}  // namespace fsllm::test
