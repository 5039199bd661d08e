// SPDX-License-Identifier: Apache-2.0
// Every type of rope_parameters against transformers (make_rope_goldens.py).
#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/generate.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

nlohmann::json facts() {
  return read_json(source_file("tests/reference/rope/rope.json"));
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  auto const all = facts();
  for (auto const& [name, unused] : all.at("cases").items()) names.push_back(name);
  return names;
}

/// A fixture's weights with another config.json.
class EveryRope : public testing::TestWithParam<std::string> {
 protected:
  EveryRope() {
    auto const dir = load_reference(case_.at("fixture")).dir;
    copy_model(dir, dir_.path());
    auto config = read_json(dir / "config.json");
    for (auto const& [key, value] : case_.at("changes").items()) config[key] = value;
    std::ofstream(dir_ / "config.json") << config;
  }
  std::unique_ptr<CausalLM> load(std::string const& type) const {
    return load_model(dir_.path(), {.compute_dtype = type});
  }

  nlohmann::json const case_ = facts().at("cases").at(GetParam());
  std::vector<std::vector<int64_t>> const rows_ = facts().at("rows");

 private:
  TempDir dir_;
};
INSTANTIATE_TEST_SUITE_P(Model, EveryRope, testing::ValuesIn(case_names()),
                         [](auto const& test) { return test.param; });

/// All rows in one call, some of them beyond the original length and some not.
TEST_P(EveryRope, LogitsAgreeWithTransformers) {
  SafetensorsReader const golden(source_file("tests/reference/rope/rope.safetensors"));
  for (auto const& [type, bound] : {std::pair("fp64", 2e-5), std::pair("fp32", 1e-4)}) {
    auto const logits = all_logits(*load(type), rows_);
    int64_t start = 0;
    double worst = 0;
    for (size_t row = 0; row < rows_.size(); ++row) {
      auto const want = golden.tensor(GetParam() + ".row" + std::to_string(row) + ".logits");
      auto const mine = logits.narrow(0, start, want.size(0));
      EXPECT_TRUE(tensors_near(mine, want, bound)) << type << ", row " << row;
      worst = std::max(worst, mine.to(at::kDouble).sub(want.to(at::kDouble)).abs().max().item<double>());
      start += want.size(0);
    }
    std::printf("%s in %s: largest logit error %.2e\n", GetParam().c_str(), type, worst);
  }
}

/// From one to twelve times the tokens of the prompt: LongRoPE's rows pass their original length on the way.
TEST_P(EveryRope, CachedGreedyEqualsTransformers) {
  std::vector<GenerateRow> rows;
  for (auto const& ids : rows_) rows.push_back({.prompt = {ids.begin(), ids.end()}, .max_tokens = 40});
  std::vector<std::vector<int32_t>> const golden = case_.at("greedy");
  auto const model = load("fp32");
  EXPECT_EQ(generate(*model, rows), golden);
  EXPECT_EQ(generate(*model, {rows[0]}).front(), golden[0]) << "alone";
}

/// A cache that a row outgrows is refused rather than mixed with keys turned another way.
TEST(LongRope, TheCacheOfARowThatOutgrowsItIsRefused) {
  auto const source = load_reference("phi3").dir;
  TempDir dir;
  copy_model(source, dir.path());
  auto config = read_json(source / "config.json");
  config.merge_patch(facts().at("cases").at("longrope").at("changes"));
  std::ofstream(dir / "config.json") << config;
  auto const model = load_model(dir.path());
  KvCache cache(2, 1);
  auto const feed = [&](std::vector<int64_t> const& ids) {
    auto const input = ragged({ids});
    auto const pass = model->pass(input, {}, &cache);
    model->hidden_states(input.ids, pass);
    pass.advance_cache();
  };
  feed({5, 6, 7, 8, 9, 10, 11, 12, 13, 14});
  feed({15, 16});
  EXPECT_ERROR(feed({17}), "12 cached tokens and 1 more (LongRoPE turns all tokens anew beyond 12)");
  cache.restart(0);
  feed(std::vector<int64_t>(13, 5));
  EXPECT_EQ(cache.past(0), 13);
  EXPECT_NO_THROW(feed({17}));
}

}  // namespace
}  // namespace fsllm::test
