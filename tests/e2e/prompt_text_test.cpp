// SPDX-License-Identifier: Apache-2.0
// prompt_tuning_init: TEXT through fsllm_hpc.
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <fmt/core.h>

#include <fstream>

#include "bad_input.hpp"
#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class PromptText : public testing::Test {
 protected:
  PromptText() {
    write_text_model(base_);
    write_data_sets(dir_ / "data");
  }

  /// One round of prompt tuning with these arguments; the rate is too small to move a number of fp32.
  Outcome train(int np, std::string const& arguments) const {
    auto const config = write_config(
        dir_.path(),
        fmt::format("outdir: {0}\nexpname: run\nmodel: {{type: {1}}}\n"
                    "data: {{root: {0}/data, type: gsm8k@llm, splitter: iid, splits: [1.0, 0.0, 0.0], "
                    "prompt_template: plain}}\n"
                    "federate: {{client_num: 2, total_round_num: 1}}\n"
                    "train: {{local_update_steps: 1, optimizer: {{type: SGD, lr: 1.0e-30}}}}\n"
                    "llm: {{tok_len: 64, adapter: {{use: True, args: [{{adapter_method: prompt, {2}}}]}}}}\n",
                    dir_.path().string(), base_.string(), arguments));
    return run(dir_.path(), np, {"fsllm_hpc", "--cfg", config.string(), "--overwrite"});
  }

  TempDir dir_;
  fs::path base_ = dir_ / "base";
};

TEST_F(PromptText, StartsFromTheEmbeddingsOfItsTokensRepeatedAndCut) {
  std::ofstream(dir_ / "text.jsonl") << R"({"text": "Count."})"
                                     << "\n";
  auto const told =
      run(dir_.path(), 0, {"fsllm_inspect", base_.string(), "--tokenize", (dir_ / "text.jsonl").string()});
  ASSERT_EQ(told.exit_code, 0) << told.err;
  auto const ids = nlohmann::json::parse(told.out).at("ids").get<std::vector<int64_t>>();
  auto const table = SafetensorsReader(base_ / "model.safetensors").tensor("model.embed_tokens.weight");
  for (int const tokens : {static_cast<int>(ids.size()) + 3, 2})
    for (int const np : {0, 2}) {
      auto const outcome = train(np, fmt::format("num_virtual_tokens: {}, prompt_tuning_init: TEXT, "
                                                 "prompt_tuning_init_text: Count.",
                                                 tokens));
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
      auto const learned =
          SafetensorsReader(dir_ / "run/adapter/adapter_model.safetensors").tensor("prompt_embeddings");
      ASSERT_EQ(learned.size(0), tokens);
      for (int i = 0; i < tokens; ++i)
        EXPECT_TRUE(at::equal(learned[i], table[ids[static_cast<size_t>(i) % ids.size()]])) << i;
      auto const config = nlohmann::json::parse(read_text(dir_ / "run/adapter/adapter_config.json"));
      EXPECT_EQ(config.at("prompt_tuning_init_text"), "Count.");
    }
}

TEST_F(PromptText, MissingTextAndTokenizerAreNamed) {
  auto const no_text = train(2, "prompt_tuning_init: TEXT");
  EXPECT_EQ(no_text.exit_code, 2);
  EXPECT_THAT(no_text.err,
              testing::HasSubstr("prompt_tuning_init_text = '' (prompt_tuning_init: TEXT needs a text"));
  SmallRun rows;
  rows.adapter = "{adapter_method: prompt, prompt_tuning_init: TEXT, prompt_tuning_init_text: Count.}";
  auto const config = write_config(dir_.path(), rows.yaml(dir_.path()));
  auto const no_tokenizer = run(dir_.path(), 2, {"fsllm_hpc", "--cfg", config.string()});
  EXPECT_EQ(no_tokenizer.exit_code, 2);
  EXPECT_THAT(no_tokenizer.err, testing::HasSubstr("prompt_tuning_init_text = 'Count.' ("));
  EXPECT_THAT(no_tokenizer.err, testing::HasSubstr("holds no tokenizer"));
}

}  // namespace
}  // namespace fsllm::test
