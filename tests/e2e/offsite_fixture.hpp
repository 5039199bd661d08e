// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "damage.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/model/config.hpp"
#include "process.hpp"

namespace fsllm::test {

/// A fixture's model of six blocks, of which the emulator has 0, 1, 3, 4, 5 and clients train 0, 4 and 5.
class Offsite : public testing::Test {
 protected:
  void SetUp() override { make_model("llama"); }
  void make_model(std::string const& name) {
    auto const source = reference_dir(name);
    auto const own = load_model_config(source).num_layers;
    std::vector<int64_t> blocks;
    for (int64_t i = 0; i < 6; ++i) blocks.push_back(i % own);
    fs::remove_all(model());
    copy_blocks(source, blocks, {}, model());
  }
  fs::path model() const { return dir_ / "model"; }
  std::string config() const {
    SmallRun small;
    small.splits = "[0.6, 0.2, 0.2]";
    small.optimizer = "{type: SGD, lr: 0.1}";
    auto yaml = small.yaml(dir_.path());
    auto const at = yaml.find("llm: {tok_len: 64, adapter: {use: True,");
    yaml.replace(at, std::string("llm: {tok_len: 64, adapter: {use: True,").size(),
                 "llm: {tok_len: 64, offsite_tuning: {use: True, emu_l: 1, emu_r: 4, kwargs: [{drop_ratio: "
                 "0.4}]}, adapter: {use: False,");
    return write_config(dir_.path(), yaml).string();
  }
  static std::vector<std::string> lora() {
    return {"llm.adapter.use", "True", "llm.adapter.args",
            "[{r: 4, lora_alpha: 8, target_modules: all-linear, lora_dropout: 0.1}]"};
  }
  Outcome start(std::string const& name, std::vector<std::string> const& more = {}, int np = 0) {
    std::vector<std::string> words{"fsllm_hpc",      "--cfg",   config(), "model.type",
                                   model().string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  void train(std::string const& name, std::vector<std::string> const& more = {}, int np = 0) {
    auto const outcome = start(name, more, np);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  }
  std::string result(std::string const& file) const { return read_text(dir_ / file); }
  json event(std::string const& name, size_t number) const {
    return read_events(dir_ / name / "metrics.jsonl").at(number);
  }
  /// The loss of a model before anything is trained in it.
  double val_loss_of(fs::path const& folder, std::string const& name) {
    std::vector<std::string> const plain{
        "llm.offsite_tuning.use",   "False", "model.type", folder.string(), "train.optimizer.lr", "0",
        "federate.total_round_num", "1"};
    train(name, plain);
    return event(name, 0).at("val").at("loss_per_token");
  }
  static std::vector<std::string> align(std::vector<std::string> const& more = {}) {
    std::string const key = "llm.offsite_tuning.emu_align.";
    std::vector<std::string> words{key + "use",
                                   "True",
                                   key + "train.local_update_steps",
                                   "40",
                                   key + "train.optimizer",
                                   "{type: Adam, lr: 0.003}",
                                   key + "train.lm_loss_weight",
                                   "0.0",
                                   key + "train.kd_loss_weight",
                                   "1.0"};
    for (size_t i = 0; i < more.size(); i += 2) {
      words.push_back(key + more[i]);
      words.push_back(more[i + 1]);
    }
    return words;
  }
  /// Rows of the server's own.
  std::vector<std::string> own_rows() {
    fs::create_directories(dir_ / "own");
    fs::copy_file(reference_dir("federated") / "rows.jsonl", dir_ / "own/server.jsonl",
                  fs::copy_options::overwrite_existing);
    return {"data.root",    (dir_ / "own").string(), "data.type",
            "server.jsonl", "data.splits",           "[0.7, 0.3, 0.0]"};
  }
  /// Runs with `words`, whose result is `file`, have the same bits on 1, 2 and 3 ranks, and after a resume.
  void expect_same_bits(std::string const& tag, std::vector<std::string> const& words,
                        std::string const& file) {
    train(tag + "1", words);
    for (int const np : {2, 3}) {
      auto const name = tag + std::to_string(np);
      train(name, words, np);
      EXPECT_EQ(result(name + file) == result(tag + "1" + file), true) << np << " ranks";
      EXPECT_EQ(training_record(dir_ / name / "metrics.jsonl"),
                training_record(dir_ / (tag + "1/metrics.jsonl")));
    }
    auto short_run = words;
    short_run.insert(short_run.end(), {"federate.total_round_num", "1"});
    train(tag + "short", short_run, 2);
    auto const resumed =
        run(dir_.path(), 3,
            {"fsllm_hpc", "--resume", (dir_ / (tag + "short")).string(), "federate.total_round_num", "3"});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err << resumed.out;
    EXPECT_EQ(result(tag + "short" + file) == result(tag + "1" + file), true);
  }
  TempDir dir_;
};

}  // namespace fsllm::test
