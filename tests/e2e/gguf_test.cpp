// SPDX-License-Identifier: Apache-2.0
// GGUF models through the programs: training, the place of converted weights, scoring, export.
#include <fstream>

#include "federation.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

fs::path tiny_gguf() {
  return source_file("tests/reference/gguf/llama.gguf");
}

/// The converted weights in a folder.
std::vector<fs::path> copies_in(fs::path const& folder) {
  std::vector<fs::path> copies;
  if (fs::exists(folder))
    for (auto const& entry : fs::directory_iterator(folder))
      if (fs::exists(entry.path() / "model.safetensors")) copies.push_back(entry.path());
  return copies;
}

std::string adapter(fs::path const& run) {
  return read_text(run / "adapter/adapter_model.safetensors");
}

TEST(Gguf, TrainsToTheAdapterOfTheHuggingFaceFiles) {
  TempDir dir;
  SmallRun const small;
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const folder = run(dir.path(), 1, {"fsllm_hpc", "--cfg", config, "expname", "folder"});
  ASSERT_EQ(folder.exit_code, 0) << folder.err << folder.out;
  for (int const ranks : {1, 2}) {
    auto const name = "gguf" + std::to_string(ranks);
    auto const gguf =
        run(dir.path(), ranks,
            {"fsllm_hpc", "--cfg", config, "model.type", tiny_gguf().string(), "expname", name});
    ASSERT_EQ(gguf.exit_code, 0) << gguf.err << gguf.out;
    EXPECT_EQ(adapter(dir / name), adapter(dir / "folder")) << ranks << " ranks";
    EXPECT_EQ(copies_in(dir / "converted_weights").size(), 1U) << "one for all runs";
  }
}

TEST(Gguf, StageDirHoldsOneCopyForAllRuns) {
  TempDir dir;
  SmallRun small;
  small.more = "hpc: {stage_dir: " + (dir / "stage").string() + "}\n";
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  std::vector<fs::file_time_type> made;
  for (auto const* name : {"a", "b"}) {
    auto const outcome = run(
        dir.path(), 2, {"fsllm_hpc", "--cfg", config, "model.type", tiny_gguf().string(), "expname", name});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    ASSERT_EQ(copies_in(dir / "stage").size(), 1U);
    made.push_back(fs::last_write_time(copies_in(dir / "stage").front() / "model.safetensors"));
  }
  EXPECT_EQ(made[0], made[1]) << "the second run uses the copy of the first";
  EXPECT_TRUE(copies_in(dir / "converted_weights").empty());
  EXPECT_TRUE(copies_in(dir / "a/weights").empty());
}

TEST(Gguf, AnotherStorageTypeIsConvertedOnce) {
  TempDir dir;
  SmallRun const small;
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const outcome =
      run(dir.path(), 2, {"fsllm_hpc", "--cfg", config, "train.storage_dtype", "bf16", "expname", "half"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_EQ(copies_in(dir / "converted_weights").size(), 1U);
}

TEST(Gguf, IsCheckedWithoutConverting) {
  TempDir dir;
  SmallRun const small;
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const outcome =
      run(dir.path(), 1,
          {"fsllm_hpc", "--cfg", config, "model.type", tiny_gguf().string(), "expname", "a", "--check"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_FALSE(fs::exists(dir / "a"));
}

TEST(Gguf, BrokenFilesAreRefusedByTheProgram) {
  TempDir dir;
  SmallRun const small;
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const content = read_text(tiny_gguf());
  auto const refused = [&](std::string const& bytes, char const* message) {
    std::ofstream(dir / "broken.gguf", std::ios::binary) << bytes;
    auto const outcome =
        run(dir.path(), 2, {"fsllm_hpc", "--cfg", config, "model.type", (dir / "broken.gguf").string()});
    EXPECT_EQ(outcome.exit_code, 2) << message;
    EXPECT_THAT(outcome.err + outcome.out, testing::HasSubstr(message));
  };
  refused(content.substr(0, content.size() - 200), "ends beyond the file's");
  refused(content.substr(0, 300), "broken.gguf is not a valid GGUF file");
  refused("PK\x03\x04", "it does not begin with GGUF");
  auto renamed = content;
  renamed.replace(renamed.find("blk.0.ffn_up"), 12, "blk.0.ffn_xx");
  refused(renamed, "missing: model.layers.0.mlp.up_proj.weight; unexpected: blk.0.ffn_xx.weight");
}

TEST(GgufSmolLm2, TrainsAStepIsScoredAndExported) {
  auto const model = source_file(".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!fs::exists(model))
    GTEST_SKIP() << "no test data: " << model.string() << " (tools/bootstrap.sh --with-demo-model)";
  TempDir dir;
  std::ofstream rows(dir / "rows.jsonl");
  for (int i = 0; i < 6; ++i)
    rows << R"({"instruction": "What is the sum of 1 and )" << i
         << R"(?", "input": "", "output": "The sum of 1 and )" << i << " is " << i + 1 << ".\"}\n";
  rows.close();
  auto const config = write_config(
      dir.path(),
      "outdir: " + dir.path().string() + "\nexpname: run\nmodel: {type: " + model.string() +
          "}\ndata: {root: " + dir.path().string() +
          ", type: rows.jsonl@llm, splitter: iid, splits: [1.0, 0.0, 0.0]}\n"
          "federate: {client_num: 2, total_round_num: 1}\ndataloader: {batch_size: 1}\n"
          "llm: {tok_len: 128, adapter: {use: True, args: [{adapter_method: lora, r: 2}]}}\n"
          "train: {local_update_steps: 1, batch_or_epoch: batch, optimizer: {type: SGD, lr: 0.1}}\n"
          "hpc: {stage_dir: " +
          (dir / "stage").string() + "}\n");
  auto const trained = run(dir.path(), 2, {"fsllm_hpc", "--cfg", config.string()});
  ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  auto const events = read_events(dir.path() / "run" / "metrics.jsonl");
  ASSERT_FALSE(events.empty());
  EXPECT_LT(events.front().at("train").at("loss_per_token").get<double>(), 4);
  EXPECT_EQ(copies_in(dir / "stage").size(), 1U);

  auto const merged =
      run(dir.path(), 0,
          {"fsllm_export", "--model", model.string(), "--adapter", (dir.path() / "run" / "adapter").string(),
           "--to", "merged", "--out", (dir / "merged").string()});
  ASSERT_EQ(merged.exit_code, 0) << merged.err << merged.out;
  std::ofstream(dir / "in.jsonl")
      << R"({"id": 1, "type": "generate_until", "context": "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", "until": ["."], "max_tokens": 12, "temperature": 0})"
      << "\n";
  auto const scored = run(dir.path(), 0,
                          {"fsllm_eval", "--model", (dir / "merged").string(), "--requests",
                           (dir / "in.jsonl").string(), "--responses", (dir / "out.jsonl").string()});
  ASSERT_EQ(scored.exit_code, 0) << scored.err << scored.out;
  EXPECT_THAT(read_events(dir / "out.jsonl").front().at("text").get<std::string>(),
              testing::HasSubstr("Paris"));
}

}  // namespace
}  // namespace fsllm::test
