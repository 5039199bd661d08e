// SPDX-License-Identifier: Apache-2.0
// What a rank of a group takes (hpc.zero_stage), against the formulas of docs/RANK_GROUPS.md; and a model of
// a billion parameters that four ranks train where one has no room (tests/stress.sh billion).
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <fmt/core.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <thread>

#include "federation.hpp"
#include "fsllm/io/safetensors_writer.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
constexpr double kMiB = 1 << 20;

struct Shape {
  int64_t hidden, intermediate, layers, heads, kv_heads, vocab = 96;
  int64_t of_block() const {
    return 2 * hidden * hidden + 2 * hidden * hidden / heads * kv_heads + 3 * hidden * intermediate +
           2 * hidden;
  }
  int64_t parameters() const { return layers * of_block() + 2 * vocab * hidden + hidden; }
};

/// A LLaMA of that shape in bf16 with random weights, a tensor at a time.
void write_random_llama(fs::path const& dir, Shape const& shape) {
  fs::create_directory(dir);
  std::ofstream(dir / "config.json") << fmt::format(
      R"({{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {}, "intermediate_size": {},
"num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {}, "vocab_size": {},
"max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false,
"bos_token_id": 1, "eos_token_id": 2}})",
      shape.hidden, shape.intermediate, shape.layers, shape.heads, shape.kv_heads, shape.vocab);
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors{
      {"model.embed_tokens.weight", {shape.vocab, shape.hidden}},
      {"model.norm.weight", {shape.hidden}},
      {"lm_head.weight", {shape.vocab, shape.hidden}}};
  int64_t const kv = shape.hidden / shape.heads * shape.kv_heads;
  for (int64_t i = 0; i < shape.layers; ++i)
    for (auto const& [name, size] : std::vector<std::pair<std::string, std::vector<int64_t>>>{
             {"self_attn.q_proj", {shape.hidden, shape.hidden}},
             {"self_attn.k_proj", {kv, shape.hidden}},
             {"self_attn.v_proj", {kv, shape.hidden}},
             {"self_attn.o_proj", {shape.hidden, shape.hidden}},
             {"mlp.gate_proj", {shape.intermediate, shape.hidden}},
             {"mlp.up_proj", {shape.intermediate, shape.hidden}},
             {"mlp.down_proj", {shape.hidden, shape.intermediate}},
             {"input_layernorm", {shape.hidden}},
             {"post_attention_layernorm", {shape.hidden}}})
      tensors.emplace_back(fmt::format("model.layers.{}.{}.weight", i, name), size);
  std::vector<SafetensorsWriter::Entry> entries;
  for (auto const& [name, size] : tensors) entries.push_back({name, at::kBFloat16, size});
  SafetensorsWriter writer(dir / "model.safetensors", entries, {}, 8);
  for (auto const& entry : writer.order())
    writer.write(
        (entry.shape.size() == 1 ? at::ones(entry.shape) : at::randn(entry.shape).mul_(0.02)).to(entry.type));
  writer.commit();
}

/// Largest proportional set size of the programs whose command line has a word, in MiB, while it runs.
double largest_pss(Background& launcher, std::string const& word) {
  double largest = 0;
  for (; launcher.running(); std::this_thread::sleep_for(std::chrono::milliseconds(40)))
    for (auto const& entry : fs::directory_iterator("/proc")) {
      if (read_text(entry.path() / "comm") != "fsllm_hpc\n" ||
          read_text(entry.path() / "cmdline").find(word) == std::string::npos)
        continue;
      auto const text = read_text(entry.path() / "smaps_rollup");
      if (auto const at = text.find("\nPss:"); at != std::string::npos)
        largest = std::max(largest, std::atof(text.c_str() + at + 5) / 1024);
    }
  return largest;
}

class GroupMemory : public testing::Test {
 protected:
  /// Three rows a step, one client.
  std::vector<std::string> words(fs::path const& model, std::vector<std::string> const& more) const {
    auto const yaml = fmt::format(
        "outdir: {0}\nmodel: {{type: {1}}}\ndata: {{root: {2}, type: rows.jsonl, splitter: iid, splits: "
        "[0.8, 0.2, "
        "0.0]}}\ndataloader: {{batch_size: 3, shuffle: False}}\nfederate: {{client_num: 1, total_round_num: "
        "2}}\n"
        "train: {{local_update_steps: 2, compute_dtype: fp32, optimizer: {{type: AdamW, lr: 0.001}}}}\n"
        "llm: {{tok_len: 64, adapter: {{use: False}}}}\neval: {{split: [val]}}\ncheckpoint: {{every_rounds: "
        "0}}\n"
        "early_stop: {{patience: 0}}\n",
        dir_.path().string(), model.string(), reference_dir("federated").string());
    std::vector<std::string> all{"fsllm_hpc", "--cfg", write_config(dir_.path(), yaml).string(),
                                 "--overwrite"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  double measured(fs::path const& model, int ranks, int stage) {
    auto const run = "run_" + model.filename().string();
    Background launcher(dir_.path(), ranks,
                        words(model, {"expname", run, "hpc.ranks_per_client", std::to_string(ranks),
                                      "hpc.zero_stage", std::to_string(stage)}));
    double const pss = largest_pss(launcher, dir_.path().string());
    EXPECT_FALSE(read_events(dir_ / run / "metrics.jsonl").empty()) << read_text(dir_ / "stderr.txt");
    EXPECT_EQ(read_events(dir_ / run / "metrics.jsonl").back().at("event"), "end");
    return pss;
  }
  TempDir dir_;
};

/// docs/RANK_GROUPS.md in MiB for fp32, beside the process: the stage's state, what the client starts from,
/// the best model so far, at stage 1 the gradients of parts, and blocks on their way.
double formula(Shape const& shape, double ranks, int stage) {
  double const whole = 4 * static_cast<double>(shape.parameters()) / kMiB, part = whole / ranks;
  double const block = 4 * static_cast<double>(shape.of_block()) / kMiB;
  double const states[] = {0, 2 * whole + 2 * part + part, whole + 3 * part, 4 * part},
               blocks[] = {0, 2, 5, 7};
  return states[stage] + 2 * part + blocks[stage] * block;
}

TEST_F(GroupMemory, IsThatOfTheFormulas) {
  if (!fs::exists("/proc/self/smaps_rollup")) GTEST_SKIP() << "no smaps_rollup here";
  Shape const shape{512, 2048, 24, 8, 8};  // 100.8 million parameters
  write_random_llama(dir_ / "model", shape);
  for (int const ranks : {2, 4}) {
    double const process = measured(reference_dir("llama"), ranks, 3);  // with a model of nothing
    for (int const stage : {1, 2, 3}) {
      double const pss = measured(dir_ / "model", ranks, stage),
                   wanted = process + formula(shape, ranks, stage);
      std::cout << fmt::format("np {}, stage {}: {:.0f} MiB, formula {:.0f} (process {:.0f}): {:+.1f} %\n",
                               ranks, stage, pss, wanted, process, 100 * (pss / wanted - 1));
      EXPECT_LT(pss, 1.1 * wanted) << ranks << " " << stage;
      EXPECT_GT(pss, 0.85 * wanted) << "the formula is too generous to find anything";
    }
  }
}

/// 968 million parameters in TinyLlama's blocks (2,048 wide, 22 of them), one step of SGD in bf16.
TEST(Billion, IsTrainedWhereOneRankHasNoRoom) {
  TempDir dir;
  Shape const shape{2048, 5632, 22, 32, 4};
  write_random_llama(dir / "model", shape);
  auto const yaml = fmt::format(
      "outdir: {0}\nexpname: run\nmodel: {{type: {0}/model}}\ndata: {{root: {1}, type: rows.jsonl, splitter: "
      "iid, "
      "splits: [1.0, 0.0, 0.0]}}\ndataloader: {{batch_size: 4, shuffle: False}}\nfederate: {{client_num: 1, "
      "total_round_num: 1}}\ntrain: {{local_update_steps: 1, compute_dtype: bf16, optimizer: {{type: SGD, "
      "lr: "
      "0.01}}}}\nllm: {{tok_len: 64, adapter: {{use: False}}}}\ncheckpoint: {{every_rounds: 0}}\n",
      dir.path().string(), reference_dir("federated").string());
  uint64_t const limit = uint64_t{4608} << 20;
  auto const config = write_config(dir.path(), yaml).string();
  auto const alone =
      run_limited(dir.path(), 1, {"fsllm_hpc", "--cfg", config, "--ignore-plan"}, RLIMIT_DATA, limit);
  std::cout << alone.err.substr(0, 500) << "\n";
  EXPECT_NE(alone.exit_code, 0) << "one rank fits under the limit: it shows nothing";
  EXPECT_THAT(alone.err, testing::HasSubstr("memory"));
  auto const together = run_limited(
      dir.path(), 4,
      {"fsllm_hpc", "--cfg", config, "--overwrite", "hpc.ranks_per_client", "4", "hpc.zero_stage", "3"},
      RLIMIT_DATA, limit);
  ASSERT_EQ(together.exit_code, 0) << together.err << together.out;
  auto const events = read_events(dir / "run/metrics.jsonl");
  EXPECT_EQ(events.back().at("event"), "end");
  for (auto const& event : events)
    if (event.at("event") == "round") std::cout << event.dump() << "\n";
  EXPECT_TRUE(fs::exists(dir / "run/model"));
}

}  // namespace
}  // namespace fsllm::test
