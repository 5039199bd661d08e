// SPDX-License-Identifier: Apache-2.0
// Every mistake ends in seconds with exit code 2 and one message of ours, on one rank or several. The
// commonest stand in docs/TROUBLESHOOTING.md (mistakes_test.cpp).
#include "bad_input.hpp"

#include <algorithm>
#include <fstream>
#include <iostream>

namespace fsllm::test {
namespace {

size_t count_of(std::string const& text, std::string const& word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

}  // namespace

void expect_message(Outcome const& outcome, std::string const& message) {
  std::cout << outcome.err;
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
  EXPECT_THAT(outcome.err, testing::HasSubstr(message)) << outcome.out;
  EXPECT_EQ(count_of(outcome.err, "error: "), 1U) << outcome.err;
}

namespace {

struct Mistake {
  std::string name;
  std::vector<std::string> overrides;
  std::string message;
  int np = 0;
};

class BadInput : public testing::TestWithParam<Mistake> {};

TEST_P(BadInput, EndsWithOneMessage) {
  auto const& mistake = GetParam();
  TempDir dir;
  SmallRun small;
  std::vector<std::string> words{"fsllm_hpc", "--cfg",
                                 write_config(dir.path(), small.yaml(dir.path())).string()};
  words.insert(words.end(), mistake.overrides.begin(), mistake.overrides.end());
  expect_message(run(dir.path(), mistake.np, words), mistake.message);
}

INSTANTIATE_TEST_SUITE_P(
    Command, BadInput,
    testing::Values(
        Mistake{"unknown_key_np2", {"trian.lr", "3"}, "trian.lr (unknown key)", 2},
        Mistake{"section_as_value", {"train", "5"}, "train is given as a value (it is a section"},
        Mistake{"wrong_type",
                {"federate.total_round_num", "many"},
                "federate.total_round_num = 'many' (a whole number is needed)",
                2},
        Mistake{"wrong_bool", {"dataloader.shuffle", "maybe"}, "must be True or False"},
        Mistake{"list_for_number", {"train.optimizer.lr", "[0.1, 0.2]"}, "train.optimizer.lr is a list"},
        Mistake{"unknown_method",
                {"federate.method", "fedsgd"},
                "federate.method = 'fedsgd' (not a known method)",
                2},
        Mistake{"unknown_optimizer", {"train.optimizer", "{type: AdmW}"}, "Did you mean 'AdamW'?"},
        Mistake{"prefix_too_long",
                {"llm.adapter.args", "[{adapter_method: prefix, num_virtual_tokens: 4000}]"},
                "num_virtual_tokens = 4000"},
        Mistake{"prompt_without_text",
                {"llm.adapter.args", "[{adapter_method: prompt, prompt_tuning_init: TEXT}]"},
                "prompt_tuning_init: TEXT needs a text with tokens"},
        Mistake{"unknown_encoder",
                {"llm.adapter.args", "[{adapter_method: p-tuning, encoder_reparameterization_type: MPL}]"},
                "Did you mean 'MLP'?"},
        Mistake{"unavailable_feature",
                {"vertical.use", "True"},
                "vertical.use = True is not available in this version"},
        Mistake{"sampler_without_losses",
                {"federate.sampler", "power_of_choice", "federate.sample_client_num", "2"},
                "federate.sampler = power_of_choice (no validation or test rows",
                2},
        Mistake{"real_time_of_a_sample",
                {"asyn.use", "True", "asyn.clock", "real", "federate.sample_client_num", "2"},
                "as many are at work as ranks train",
                2},
        Mistake{"too_many_awaited",
                {"asyn.use", "True", "asyn.min_received_num", "4"},
                "asyn.min_received_num = 4 (only 3 clients are at work at a time)",
                2},
        Mistake{"rank_zero", {"llm.adapter.args", "[{adapter_method: lora, r: 0}]"}, "r = 0", 2},
        Mistake{"targets_match_nothing",
                {"llm.adapter.args", "[{adapter_method: lora, target_modules: [q_porj]}]"},
                "q_porj",
                2},
        Mistake{"more_clients_than_rows",
                {"data.splitter", "iid", "data.splitter_args", "[]", "federate.client_num", "40"},
                "federate.client_num",
                2},
        Mistake{"more_clients_than_values", {"federate.client_num", "4"}, "federate.client_num"},
        Mistake{"no_such_client",
                {"federate.client_idx_for_local_train", "9"},
                "federate.client_idx_for_local_train = 9"},
        Mistake{"shards_missing", {"data.shards", "/nonexistent/shards"}, "/nonexistent/shards", 2},
        Mistake{"init_from_missing",
                {"llm.adapter.init_from", "/nonexistent/adapter"},
                "/nonexistent/adapter",
                2},
        Mistake{"outdir_unwritable", {"outdir", "/proc/nowhere"}, "/proc/nowhere", 2},
        Mistake{"tok_len_zero", {"llm.tok_len", "0"}, "llm.tok_len = 0"},
        Mistake{"bad_fixed_point",
                {"hpc.fixed_point_bits", "80"},
                "hpc.fixed_point_bits = 80 (must be in [2, 60])"},
        Mistake{"bad_threads", {"hpc.threads", "lots"}, "hpc.threads = 'lots'"},
        Mistake{"momentum_of_adamw",
                {"train.optimizer", "{type: AdamW, momentum: 0.9}"},
                "AdamW has no such argument"}),
    [](auto const& instance) { return instance.param.name; });

TEST(BadFiles, BrokenYamlNamesTheLine) {
  TempDir dir;
  auto const config = write_config(dir.path(), "seed: 1\nmodel: {type: x\ndata: ]\n");
  expect_message(run(dir.path(), 2, {"fsllm_hpc", "--cfg", config.string()}), "run.yaml:3 is not valid YAML");
}

class BrokenModel : public testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(BrokenModel, IsNamed) {
  auto const [what, message] = GetParam();
  TempDir dir;
  std::filesystem::copy(reference_dir("llama"), dir / "model");
  auto const weights = dir / "model/model.safetensors", config = dir / "model/config.json";
  if (what == "truncated") std::filesystem::resize_file(weights, 5000);
  if (what == "empty") std::filesystem::resize_file(weights, 0);
  if (what == "absent") std::filesystem::remove(weights);
  if (what == "config_absent") std::filesystem::remove(config);
  if (what == "config_broken") std::ofstream(config) << "{\"model_type\": ";
  if (what == "family") std::ofstream(config) << "{\"model_type\": \"perceiver\"}";
  if (what == "shape") {
    auto text = read_text(config);
    text.replace(text.find("\"vocab_size\": 96"), 16, "\"vocab_size\": 97");
    std::ofstream(config) << text;
  }
  auto const run_yaml = write_config(dir.path(), SmallRun{}.yaml(dir.path()));
  for (int const np : {0, 2})
    expect_message(run(dir.path(), np,
                       {"fsllm_hpc", "--cfg", run_yaml.string(), "model.type", (dir / "model").string()}),
                   message);
}

INSTANTIATE_TEST_SUITE_P(
    Files, BrokenModel,
    testing::Values(std::pair{"truncated", "model.safetensors"}, std::pair{"empty", "model.safetensors"},
                    std::pair{"absent", "model.safetensors"}, std::pair{"config_absent", "config.json"},
                    std::pair{"config_broken", "config.json"}, std::pair{"family", "perceiver"},
                    std::pair{"shape", "embed_tokens"}),
    [](auto const& instance) { return std::string(instance.param.first); });

TEST(BadFiles, BadRowsNameFileAndLine) {
  TempDir dir;
  std::ofstream(dir / "rows.jsonl")
      << "{\"input_ids\": [3, 4, 5], \"labels\": [-100, 4, 5], \"client\": \"a\"}\n{\"input_ids\": [3, 4\n";
  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path()));
  expect_message(
      run(dir.path(), 2, {"fsllm_hpc", "--cfg", config.string(), "data.root", dir.path().string()}),
      "rows.jsonl:2");
}

TEST(BadFiles, TokenBeyondTheVocabulary) {
  TempDir dir;
  std::ofstream(dir / "rows.jsonl")
      << "{\"input_ids\": [3, 400, 5], \"labels\": [-100, 400, 5], \"client\": \"a\"}\n";
  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path()));
  expect_message(run(dir.path(), 0,
                     {"fsllm_hpc", "--cfg", config.string(), "data.root", dir.path().string(),
                      "federate.client_num", "1"}),
                 "400");
}

TEST(BadFiles, DamagedShard) {
  TempDir dir;
  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path())).string();
  auto const shards = (dir / "shards").string();
  ASSERT_EQ(run(dir.path(), 2, {"fsllm_shard", "--cfg", config, "--out", shards}).exit_code, 0);
  std::filesystem::resize_file(dir / "shards/client_00002.h5", 700);
  expect_message(run(dir.path(), 2, {"fsllm_hpc", "--cfg", config, "data.shards", shards}),
                 "client_00002.h5");
}

TEST(BadFiles, SecondRunInTheSameDirectory) {
  TempDir dir;
  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path())).string();
  ASSERT_EQ(run(dir.path(), 0, {"fsllm_hpc", "--cfg", config}).exit_code, 0);
  expect_message(run(dir.path(), 2, {"fsllm_hpc", "--cfg", config}),
                 "already holds a run. Continue it with --resume");
  EXPECT_EQ(run(dir.path(), 0, {"fsllm_hpc", "--cfg", config, "--overwrite"}).exit_code, 0);
}

TEST(BadFiles, DivergingTrainingIsReportedAndLeavesNothingBroken) {
  TempDir dir;
  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path())).string();
  auto const outcome = run(dir.path(), 2, {"fsllm_hpc", "--cfg", config, "train.optimizer.lr", "1e30"});
  EXPECT_TRUE(outcome.exit_code == 2 || outcome.exit_code == 0) << outcome.err;
  EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr("train.optimizer.lr"));
}

}  // namespace
}  // namespace fsllm::test
