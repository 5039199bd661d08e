// SPDX-License-Identifier: Apache-2.0
#include "federation.hpp"

#include <ATen/ATen.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {

std::filesystem::path reference_dir(std::string const& name) {
  return source_file("tests/reference/" + name);
}

std::string SmallRun::yaml(std::filesystem::path const& outdir) const {
  auto const args = init_from.empty() ? "args: [" + adapter + "]" : "init_from: " + init_from;
  return fmt::format(
      "outdir: {}\nexpname: run\nseed: 1\nmodel: {{type: {}}}\n"
      "data: {{root: {}, type: rows.jsonl, splitter: natural, splitter_args: [{{field: client}}], splits: "
      "{}}}\n"
      "dataloader: {{batch_size: {}, shuffle: {}, packing: {}}}\n"
      "federate: {{client_num: 3, total_round_num: {}, method: fedavg}}\n"
      "train: {{local_update_steps: {}, batch_or_epoch: batch, optimizer: {}}}\n"
      "llm: {{tok_len: 64, adapter: {{use: True, {}}}}}\n"
      "{}",
      outdir.string(), reference_dir(model).string(), reference_dir("federated").string(), splits, batch,
      shuffle, packing, rounds, steps, optimizer, args, more);
}

std::string stories_on_gsm8k(std::filesystem::path const& outdir, int tok_len, int rank,
                             std::string const& rest) {
  std::filesystem::create_directories(outdir / "data");
  auto const rows = outdir / "data/gsm8k_train.jsonl";
  if (!std::filesystem::exists(rows))
    std::filesystem::create_symlink(test_data("datasets/gsm8k/train.jsonl"), rows);
  return fmt::format(
      "outdir: {0}\nmodel: {{type: {1}}}\n"
      "data: {{root: {0}/data, type: gsm8k@llm, splitter: iid, splits: [0.99, 0.005, 0.005]}}\n"
      "llm: {{tok_len: {2}, adapter: {{use: True, args: [{{r: {3}, lora_alpha: {4}, target_modules: "
      "all-linear}}]}}}}\n"
      "dataloader: {{batch_size: 4}}\n{5}",
      outdir.string(), test_data("models/stories260K").string(), tok_len, rank, 2 * rank, rest);
}

SmallRun golden_run(nlohmann::json const& golden) {
  SmallRun small;
  small.model = golden.at("model");
  small.init_from = (reference_dir(small.model) / "adapter").string();
  small.optimizer = fmt::format("{{type: {}, lr: {}{}}}", golden.at("optimizer").get<std::string>(),
                                golden.at("lr").get<double>(),
                                golden.at("optimizer") == "AdamW" ? ", weight_decay: 0.01" : "");
  small.rounds = golden.at("rounds");
  small.steps = golden.at("steps");
  small.batch = golden.at("batch");
  small.more = fmt::format("grad: {{grad_accum_count: {}, grad_clip: {}}}\n",
                           golden.at("accumulation").get<int>(), golden.at("clip").get<double>());
  return small;
}

void expect_golden_adapter(std::filesystem::path const& folder, std::string const& name,
                           SmallRun const& golden, std::filesystem::path const& actual_folder) {
  SafetensorsReader const expected(folder / (name + ".safetensors"));
  SafetensorsReader const start(golden.init_from, "adapter_model");
  SafetensorsReader const actual(actual_folder, "adapter_model");
  ASSERT_EQ(actual.names(), expected.names());
  double worst = 0;
  for (auto const& tensor : expected.names()) {
    auto const want = expected.tensor(tensor).to(at::kDouble), got = actual.tensor(tensor).to(at::kDouble);
    auto const moved = (want - start.tensor(tensor).to(at::kDouble)).norm().item<double>();
    EXPECT_GT(moved, 0) << tensor;
    auto const off = (got - want).norm().item<double>();
    EXPECT_LE(off, 1e-4 * moved) << tensor << " moved by " << moved;
    worst = std::max(worst, off / moved);
  }
  fmt::print("{}: largest error {:.1e} of a tensor's way\n", name, worst);
}

namespace {

/// Id requests over the fixtures' vocabulary.
void write_id_requests(std::filesystem::path const& path) {
  std::ofstream out(path);
  for (int id = 0; id < 8; ++id) {
    std::vector<int> context, continuation;
    for (int i = 0; i < 3 + id; ++i) context.push_back(3 + (7 * id + 5 * i) % 90);
    for (int i = 0; i < 1 + id % 4; ++i) continuation.push_back(4 + (11 * id + 3 * i) % 90);
    out << nlohmann::json{{"id", id},
                          {"type", "loglikelihood"},
                          {"context_ids", context},
                          {"continuation_ids", continuation}}
               .dump()
        << "\n";
  }
}

}  // namespace

ScoredByPeft::ScoredByPeft() {
  if (char const* python = std::getenv("FSLLM_TEST_PYTHON")) python_ = python;
  write_id_requests(dir_ / "requests.jsonl");
}

std::string ScoredByPeft::file(std::string const& whose, size_t pair) const {
  return (dir_ / fmt::format("{}_{}.jsonl", whose, pair)).string();
}

void ScoredByPeft::add(std::filesystem::path const& model, std::filesystem::path const& adapter) {
  pairs_.emplace_back(model.string(), adapter.string());
}

void ScoredByPeft::expect_equal(double tolerance) {
  auto const requests = (dir_ / "requests.jsonl").string();
  auto command = fmt::format("{} {} {}", python_, source_file("tests/e2e/peft_scores.py").string(), requests);
  for (size_t i = 0; i < pairs_.size(); ++i) {
    auto const& [model, adapter] = pairs_[i];
    std::vector<std::string> words{"fsllm_eval", "--model",     model,          "--requests",
                                   requests,     "--responses", file("ours", i)};
    if (!adapter.empty()) words.insert(words.end(), {"--adapter", adapter});
    auto const outcome = run(dir_.path(), 0, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    command += fmt::format(" {} {} {}", model, adapter.empty() ? "-" : adapter, file("theirs", i));
  }
  auto const log = (dir_ / "python.txt").string();
  ASSERT_EQ(std::system(fmt::format("{} > {} 2>&1", command, log).c_str()), 0) << read_text(log);
  for (size_t i = 0; i < pairs_.size(); ++i) {
    auto const ours = read_events(file("ours", i)), theirs = read_events(file("theirs", i));
    ASSERT_EQ(ours.size(), theirs.size());
    ASSERT_FALSE(ours.empty());
    for (size_t row = 0; row < ours.size(); ++row)
      EXPECT_NEAR(ours[row].at("loglikelihood").get<double>(), theirs[row].at("loglikelihood").get<double>(),
                  tolerance)
          << pairs_[i].first << ' ' << pairs_[i].second << ' ' << row;
  }
}

}  // namespace fsllm::test
