// SPDX-License-Identifier: Apache-2.0
// Where models may lie, what is not finite in them, and adapters of head and embedding, through the programs.
#include <ATen/ops/full_like.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class ModelForms : public testing::Test {
 protected:
  /// A copy of the llama fixture.
  fs::path model(fs::path const& place) {
    fs::copy(reference_dir("llama"), dir_ / place);
    return dir_ / place;
  }
  Outcome train(SmallRun const& small, std::vector<std::string> const& more, int np = 1) {
    std::vector<std::string> arguments{"fsllm_hpc", "--cfg",
                                       write_config(dir_.path(), small.yaml(dir_.path())).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(dir_.path(), np, arguments);
  }
  void expect_refused(Outcome const& outcome, std::string const& message) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.out;
    EXPECT_NE((outcome.err + outcome.out).find(message), std::string::npos) << outcome.err << outcome.out;
  }
  /// Puts a value into one tensor of a file.
  static void spoil(fs::path const& file, std::string const& name, float value) {
    TensorMap tensors = clone(SafetensorsReader(file).tensors());
    tensors.at(name).flatten()[3] = value;
    write_safetensors(file, tensors);
  }
  TempDir dir_;
};

std::string const kDown = "model.layers.1.mlp.down_proj.weight";

TEST_F(ModelForms, AreFoundInAHubCache) {
  auto const hub = dir_ / "hub/models--acme--tiny";
  fs::create_directories(hub / "snapshots");
  fs::create_directories(hub / "refs");
  fs::copy(reference_dir("llama"), hub / "snapshots/0123abcd");
  std::ofstream(hub / "refs/main") << "0123abcd\n";
  std::vector<std::string> const by_name{"--check", "model.type", "acme/tiny@huggingface_llm"};
  auto with_cache = by_name;
  with_cache.insert(with_cache.end(), {"llm.cache.model", (dir_ / "hub").string()});
  auto const found = train({}, with_cache);
  EXPECT_EQ(found.exit_code, 0) << found.err << found.out;
  EXPECT_NE(found.out.find("snapshots/0123abcd"), std::string::npos) << found.out;
  setenv("HF_HUB_CACHE", (dir_ / "hub").c_str(), 1);
  EXPECT_EQ(train({}, by_name).exit_code, 0);
  unsetenv("HF_HUB_CACHE");
  setenv("HF_HOME", dir_.path().c_str(), 1);
  EXPECT_EQ(train({}, by_name).exit_code, 0);
  unsetenv("HF_HOME");
  std::ofstream(hub / "refs/main") << "ffff";
  expect_refused(train({}, with_cache), "names the snapshot 'ffff', which is not in");
  fs::remove(hub / "refs/main");
  EXPECT_EQ(train({}, with_cache).exit_code, 0) << "the only snapshot";
  fs::create_directories(hub / "snapshots/other");
  expect_refused(train({}, with_cache), "holds 2 snapshots, and there is no refs/main");
}

TEST_F(ModelForms, PathsHaveHomeAndVariables) {
  setenv("FSLLM_TEST_PLACE", dir_.path().c_str(), 1);
  auto const trained = train({}, {"outdir", "$FSLLM_TEST_PLACE/runs", "expname", "r"});
  EXPECT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  EXPECT_TRUE(fs::exists(dir_ / "runs/r/adapter/adapter_model.safetensors"));
  unsetenv("FSLLM_TEST_PLACE");
  expect_refused(train({}, {"outdir", "$FSLLM_TEST_PLACE/runs"}), "the environment has no variable");
  for (auto const* name : {"/tmp/fsllm_test_other", "../other", "a/../../b", "~/other", "."})
    expect_refused(train({}, {"expname", name}), "(it leaves outdir, '");
}

TEST_F(ModelForms, WeightsThatAreNotFiniteAreNamed) {
  auto const place = model("m");
  auto const nan = std::numeric_limits<float>::quiet_NaN();
  spoil(place / "model.safetensors", kDown, nan);
  SmallRun small;
  for (auto const* splits : {"[1.0, 0.0, 0.0]", "[0.5, 0.5, 0.0]"}) {
    small.splits = splits;
    for (int const np : {1, 2})
      expect_refused(
          train(small,
                {"model.type", place.string(), "expname", "a" + std::to_string(np) + splits[1] + splits[3]},
                np),
          kDown + " holds values that are not finite");
  }
  for (auto const* type : {"bf16", "int8"})
    expect_refused(train(small, {"model.type", place.string(), "train.storage_dtype", type, "expname", type}),
                   kDown + " holds values that are not finite");
  expect_refused(train(small, {"model.type", place.string(), "llm.adapter.use", "False", "expname", "full"}),
                 kDown + " holds values that are not finite");
  std::ofstream(dir_ / "in.jsonl")
      << R"({"id": 0, "type": "loglikelihood", "context_ids": [5, 6], "continuation_ids": [7]})"
      << "\n";
  std::ofstream(dir_ / "texts.jsonl")
      << R"({"id": 0, "type": "generate_until", "context_ids": [5, 6], "max_tokens": 3})"
      << "\n";
  for (auto const* requests : {"in.jsonl", "texts.jsonl"})
    expect_refused(run(dir_.path(), 1,
                       {"fsllm_eval", "--model", place.string(), "--requests", (dir_ / requests).string(),
                        "--responses", (dir_ / "out.jsonl").string()}),
                   kDown + " holds values that are not finite");
}

TEST_F(ModelForms, AdaptersAndMergesThatAreNotFiniteAreNamed) {
  auto const base = reference_dir("llama").string();
  fs::copy(reference_dir("llama") / "adapter", dir_ / "adapter");
  auto const file = dir_ / "adapter/adapter_model.safetensors";
  auto const b = SafetensorsReader(file).names().at(1);
  auto const merge = [&](std::string const& type) {
    return run(dir_.path(), 1,
               {"fsllm_export", "--model", base, "--adapter", (dir_ / "adapter").string(), "--to", "merged",
                "--dtype", type, "--out", (dir_ / type).string()});
  };
  spoil(file, b, 3e6F);
  expect_refused(merge("fp16"), "holds less: they would become infinite). Write another type");
  EXPECT_FALSE(fs::exists(dir_ / "fp16/model.safetensors"));
  EXPECT_EQ(merge("bf16").exit_code, 0);
  spoil(file, b, std::numeric_limits<float>::infinity());
  expect_refused(merge("fp32"), b + " holds values that are not finite");
}

TEST_F(ModelForms, TrainingThatDivergesIsNamed) {
  SmallRun small;
  small.optimizer = "{type: SGD, lr: 1e38}";
  auto const outcome = train(small, {});
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
  EXPECT_NE(outcome.err.find("base_model.model.model.layers.0.self_attn"), std::string::npos) << outcome.err;
}

/// Two ranks give the bits of one, and the merged model is the adapted one.
TEST_F(ModelForms, HeadAndEmbeddingLearn) {
  for (auto const* name : {"llama", "gpt2"}) {
    SCOPED_TRACE(name);
    SmallRun small;
    small.model = name;
    small.adapter = name == std::string("gpt2")
                        ? "{r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: [wte, lm_head, c_attn]}"
                        : "{r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: [embed_tokens, lm_head]}";
    std::vector<std::string> adapters;
    for (int const np : {1, 2}) {
      auto const place = name + std::to_string(np);
      auto const outcome = train(small, {"expname", place}, np);
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
      adapters.push_back(read_text(dir_.path() / place / "adapter/adapter_model.safetensors"));
    }
    EXPECT_EQ(adapters[0], adapters[1]);
    auto const adapter = (dir_.path() / (std::string(name) + "1") / "adapter").string();
    auto const merged = (dir_.path() / (std::string(name) + "_merged")).string();
    auto const exported = run(dir_.path(), 1,
                              {"fsllm_export", "--model", reference_dir(name).string(), "--adapter", adapter,
                               "--to", "merged", "--out", merged});
    ASSERT_EQ(exported.exit_code, 0) << exported.err;
    std::ofstream(dir_ / "in.jsonl")
        << R"({"id": 0, "type": "loglikelihood", "context_ids": [5, 6], "continuation_ids": [7, 9, 11]})"
        << "\n";
    std::vector<double> scores;
    for (auto const& more : std::vector<std::vector<std::string>>{
             {"--model", reference_dir(name).string(), "--adapter", adapter}, {"--model", merged}}) {
      std::vector<std::string> arguments{"fsllm_eval", "--requests", (dir_ / "in.jsonl").string(),
                                         "--responses", (dir_ / "out.jsonl").string()};
      arguments.insert(arguments.end(), more.begin(), more.end());
      auto const outcome = run(dir_.path(), 1, arguments);
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
      scores.push_back(nlohmann::json::parse(read_text(dir_ / "out.jsonl")).at("loglikelihood"));
    }
    EXPECT_NEAR(scores[0], scores[1], 1e-4);
  }
}

}  // namespace
}  // namespace fsllm::test
