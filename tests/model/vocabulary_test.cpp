// SPDX-License-Identifier: Apache-2.0
// Rows for added tokens: the mean of the old rows, in every family and storage type.
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

constexpr int64_t kNew = 3;

class Grown : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Vocabulary, Grown, testing::ValuesIn(reference_names()),
                         [](auto const& test) { return test.param; });

TEST_P(Grown, NewRowsAreTheMeanOfTheOld) {
  auto const model = load_model(load_reference(GetParam()).dir);
  int64_t const old_size = model->config().vocab_size;
  auto const before = model->vocabulary();
  EXPECT_EQ(before.count(model->config().embedding + ".weight"), 1U);
  EXPECT_EQ(before.count(model->config().head + ".weight"), model->config().tied_embeddings ? 0U : 1U);
  model->set_vocabulary(grown_vocabulary(before, old_size + kNew));
  EXPECT_EQ(model->config().vocab_size, old_size + kNew);
  for (auto const& [name, tensor] : model->vocabulary()) {
    auto const& old = before.at(name);
    EXPECT_TRUE(at::equal(tensor.narrow(0, 0, old_size), old)) << name;
    EXPECT_FALSE(tensor.is_alias_of(old)) << name;
    auto const mean = old.to(at::kDouble).mean(0).to(tensor.scalar_type());
    for (int64_t row = old_size; row < old_size + kNew; ++row)
      EXPECT_TRUE(tensors_near(tensor.select(0, row), mean, 1e-7)) << name;
  }
}

TEST_P(Grown, OldTokensScoreAsBeforeAndNewOnesCanBeRead) {
  auto const reference = load_reference(GetParam());
  auto const model = load_model(reference.dir);
  int64_t const old_size = model->config().vocab_size;
  auto const before = all_logits(*model, reference.rows);
  model->set_vocabulary(grown_vocabulary(model->vocabulary(), old_size + kNew));
  auto const after = all_logits(*model, reference.rows);
  EXPECT_TRUE(tensors_near(after.narrow(1, 0, old_size), before, 1e-5));
  if (model->config().logit_softcap == 0) {
    EXPECT_TRUE(tensors_near(after.select(1, old_size + 1), before.mean(1), 1e-5));
  }
  EXPECT_EQ(all_logits(*model, {{1, old_size + kNew - 1}}).size(0), 2);
  EXPECT_ERROR(all_logits(*model, {{old_size + kNew}}), "the model's vocabulary has");
}

TEST_P(Grown, IsSavedAndLoadedAgain) {
  auto const reference = load_reference(GetParam());
  auto const model = load_model(reference.dir);
  model->set_vocabulary(grown_vocabulary(model->vocabulary(), model->config().vocab_size + kNew));
  model->make_trainable("fp32");
  TempDir out;
  save_model(out.path(), *model, reference.dir, "fp32");
  auto const loaded = load_model(out.path());
  EXPECT_TRUE(at::equal(all_logits(*loaded, reference.rows), all_logits(*model, reference.rows)));
}

class GrownStorage : public testing::TestWithParam<char const*> {};
INSTANTIATE_TEST_SUITE_P(Vocabulary, GrownStorage, testing::Values("fp32", "bf16", "fp16", "int8", "nf4"),
                         [](auto const& test) { return std::string(test.param); });

TEST_P(GrownStorage, KeepsTheTypeAndTheMappedWeights) {
  TempDir cache;
  for (auto const* name : {"llama", "gpt2"}) {
    auto const reference = load_reference(name);
    auto const model = load_model(reference.dir, {.storage_dtype = GetParam(), .cache_dir = cache.path()});
    int64_t const old_size = model->config().vocab_size;
    auto const mapped = model->parameters();
    auto const before = all_logits(*model, reference.rows);
    model->set_vocabulary(grown_vocabulary(model->vocabulary(), old_size + kNew));
    for (auto const& [tensor_name, tensor] : model->parameters()) {
      auto const& old = mapped.at(tensor_name);
      EXPECT_EQ(tensor.scalar_type(), old.scalar_type()) << tensor_name;
      EXPECT_EQ(tensor.is_alias_of(old), tensor.sizes() == old.sizes()) << tensor_name;
    }
    EXPECT_TRUE(tensors_near(all_logits(*model, reference.rows).narrow(1, 0, old_size), before, 1e-5))
        << name;
  }
}

TEST(Vocabulary, TheMeanHasTheSameBitsOnAnyNumberOfThreads) {
  auto const model = load_model(load_reference("llama").dir);
  int const threads = at::get_num_threads();
  TensorMap grown[2];
  for (int i = 0; i < 2; ++i) {
    at::set_num_threads(1 + 3 * i);
    grown[i] = grown_vocabulary(model->vocabulary(), 200);
  }
  at::set_num_threads(threads);
  for (auto const& [name, tensor] : grown[0]) EXPECT_TRUE(at::equal(tensor, grown[1].at(name))) << name;
}

}  // namespace
}  // namespace fsllm::test
