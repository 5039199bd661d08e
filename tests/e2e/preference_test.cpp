// SPDX-License-Identifier: Apache-2.0
// Pairs of answers through the whole program: DPO and the pairwise reward loss.
#include "preference.hpp"

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "bad_input.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

class Preference : public testing::Test {
 protected:
  /// On the token pairs, a third of them held out.
  Outcome train_on_pairs(std::string const& name, std::vector<std::string> more, int np = 0) {
    more.insert(more.end(), {"expname", name});
    return train_in(dir_.path(), small_, on_pairs(std::move(more)), np);
  }
  nlohmann::json val(std::string const& name, size_t event) { return event_of(dir_ / name, event).at("val"); }
  std::string adapter(std::string const& name) {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  }
  Preference() {
    small_.splits = "[0.7, 0.3, 0.0]";
    small_.optimizer = "{type: AdamW, lr: 0.01}";
    small_.shuffle = true;
    small_.more = "early_stop: {patience: 0}\n";
  }
  TempDir dir_;
  SmallRun small_;
};

/// 24 pairs of questions whose better answer is polite, in three forms.
std::string text_pairs() {
  std::string text;
  auto const user = [](std::string const& words) {
    return nlohmann::json{{{"role", "user"}, {"content", words}}};
  };
  auto const assistant = [](std::string const& words) {
    return nlohmann::json{{{"role", "assistant"}, {"content", words}}};
  };
  for (int i = 0; i < 24; ++i) {
    auto const question = fmt::format("Say {}.", i), good = fmt::format("Yes, {}.", i),
               bad = fmt::format("No {}", i);
    nlohmann::json row{{"chosen", good}, {"rejected", bad}};
    if (i % 3 == 0) row.update({{"prompt", question}});
    if (i % 3 == 1) row.update({{"instruction", question}, {"input", "please"}});
    if (i % 3 == 2)
      row = {{"prompt", user(question)}, {"chosen", assistant(good)}, {"rejected", assistant(bad)}};
    text += row.dump() + "\n";
  }
  return text;
}

/// Texts through fsllm_shard, its preview and fsllm_inspect; a run on the shards is the run that shards by
/// itself; a fresh adapter is the reference (log 2), and learns.
TEST_F(Preference, TextsAreShardedAndLearnt) {
  write_text_model(dir_ / "model");
  std::ofstream(dir_ / "pairs.jsonl") << text_pairs();
  auto const config =
      write_config(
          dir_.path(),
          fmt::format("outdir: {0}\nmodel: {{type: {0}/model}}\n"
                      "data: {{root: {0}, type: pairs.jsonl, prompt_template: chatml, splits: [0.75, 0.25, "
                      "0.0]}}\nfederate: {{client_num: 2, total_round_num: 6}}\n"
                      "train: {{loss: dpo, local_update_steps: 6, optimizer: {{type: AdamW, lr: 0.02}}}}\n"
                      "dataloader: {{batch_size: 4}}\n"
                      "llm: {{tok_len: 64, adapter: {{use: True, args: [{{r: 8, target_modules: "
                      "all-linear}}]}}}}\n",
                      dir_.path().string()))
          .string();
  auto const shown = run(dir_.path(), 0, {"fsllm_shard", "--cfg", config, "--preview", "3"});
  ASSERT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, testing::ContainsRegex("pairs.jsonl:1, chosen: [0-9]+ tokens, [0-9]+ scored"));
  EXPECT_THAT(shown.out, testing::ContainsRegex("pairs.jsonl:3, rejected: [0-9]+ tokens, [0-9]+ scored"));
  for (auto const* scored : {"«Yes, 0.", "«No 0", "«Yes, 2."})
    EXPECT_THAT(shown.out, testing::HasSubstr(scored));

  auto const shards = (dir_ / "shards").string();
  auto const sharded = run(dir_.path(), 2, {"fsllm_shard", "--cfg", config, "--out", shards});
  ASSERT_EQ(sharded.exit_code, 0) << sharded.err;
  EXPECT_THAT(sharded.err + sharded.out, testing::HasSubstr("24 pairs tokenised"));
  auto const facts = nlohmann::json::parse(run(dir_.path(), 0, {"fsllm_inspect", shards, "--json"}).out);
  EXPECT_EQ(facts.at("pairs"), true);
  int64_t pairs = 0;
  for (auto const& client : facts.at("clients"))
    for (auto const* split : {"train", "val"}) pairs += client.at(split).at("rows").get<int64_t>();
  EXPECT_EQ(pairs, 24);

  for (auto const& [name, more] : std::map<std::string, std::vector<std::string>>{
           {"rows", {}}, {"shards_ready", {"data.shards", shards}}}) {
    std::vector<std::string> words{"fsllm_hpc", "--cfg", config, "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir_.path(), 2, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  EXPECT_TRUE(adapter("rows") == adapter("shards_ready"));
  EXPECT_DOUBLE_EQ(val("rows", 0).at("loss_per_pair").get<double>(), std::log(2.0));
  EXPECT_EQ(val("rows", 0).at("reward_accuracy"), 0) << "neither answer has the larger reward";
  EXPECT_LT(val("rows", 6).at("loss_per_pair").get<double>(), 0.5);
  EXPECT_GT(val("rows", 6).at("reward_accuracy").get<double>(), 0.8);
  EXPECT_GT(val("rows", 6).at("reward_margin").get<double>(), 0.3);
  EXPECT_EQ(event_of(dir_ / "rows", 1).at("train").at("samples"), 2 * 2 * 9) << "two epochs of nine";
  EXPECT_THAT(read_text(dir_ / "rows/eval_results.log"), testing::HasSubstr("'val_acc': "));
}

/// Rows with one answer are learnt as before, whatever stands in `rejected`.
TEST_F(Preference, CrossEntropyLearnsTheChosenAnswer) {
  write_text_model(dir_ / "model");
  std::string pairs, answers;
  for (int i = 0; i < 12; ++i) {
    auto const prompt = fmt::format("Say {}.", i), answer = fmt::format("Yes, {}.", i);
    pairs += nlohmann::json{{"prompt", prompt}, {"chosen", answer}, {"rejected", "No"}}.dump() + "\n";
    answers += nlohmann::json{{"instruction", prompt}, {"output", answer}}.dump() + "\n";
  }
  std::ofstream(dir_ / "pairs.jsonl") << pairs;
  std::ofstream(dir_ / "answers.jsonl") << answers;
  for (std::string const name : {"pairs", "answers"}) {
    auto const outcome =
        train_in(dir_.path(), small_,
                 {"data.root", dir_.path().string(), "data.type", name + ".jsonl", "data.splitter", "iid",
                  "data.splitter_args", "[]", "model.type", (dir_ / "model").string(), "data.prompt_template",
                  "plain", "expname", name});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  EXPECT_TRUE(adapter("pairs") == adapter("answers"));
}

/// One client and one round: W + s BA with a fresh adapter is the model of W with (A, B), and is judged
/// against the same W.
TEST_F(Preference, ReferenceStaysTheModelThatTrainingBeganWith) {
  std::vector<std::string> const one{
      "train.loss",         "dpo", "federate.client_num",      "1", "data.splitter",    "iid",
      "data.splitter_args", "[]",  "federate.total_round_num", "1", "llm.reward_coeff", "1"};
  auto const rule = [&](std::string const& name) {
    auto words = one;
    words.insert(words.end(), {"federate.lora_aggregation", name});
    auto const outcome = train_on_pairs(name, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    // FRLoRA's W - s B0 A0 + s B0 A0 is W up to rounding.
    EXPECT_NEAR(val(name, 0).at("loss_per_pair").get<double>(), std::log(2.0),
                name == "frlora" ? 1e-5 : 1e-15);
    return val(name, 1);
  };
  auto const expected = rule("fedavg");
  EXPECT_GT(std::abs(expected.at("reward_margin").get<double>()), 0.01);
  for (auto const* name : {"flora", "fedex"})
    EXPECT_NEAR(rule(name).at("reward_margin").get<double>(), expected.at("reward_margin").get<double>(),
                1e-4)
        << name;
  EXPECT_GT(std::abs(rule("frlora").at("reward_margin").get<double>()), 0.01);
}

/// Taken off and put on again, every kind of adapter is what it was: judged by the reference's own loss
/// where it begins as nothing, learnt in all.
TEST_F(Preference, EveryAdapterIsTakenOff) {
  int runs = 0;
  for (auto const& [args, begins_as_nothing] :
       std::map<std::string, bool>{{"r: 4, use_dora: True, target_modules: all-linear", true},
                                   {"r: 4, bias: all", true},
                                   {"adapter_method: bitfit", true},
                                   {"adapter_method: ia3", true},
                                   {"adapter_method: prompt, num_virtual_tokens: 4", false},
                                   {"adapter_method: prefix, num_virtual_tokens: 4", false},
                                   {"adapter_method: p-tuning, num_virtual_tokens: 4", false},
                                   {"adapter_method: bottleneck, reduction_factor: 4", false},
                                   {"adapter_package: adapterhub, adapter_method: lang", false},
                                   {"adapter_package: adapterhub, adapter_method: union", false}}) {
    SCOPED_TRACE(args);
    auto small = small_;
    small.model = "gpt2";
    small.adapter = "{" + args + "}";
    small.rounds = 1;
    auto const name = fmt::format("run{}", ++runs);
    auto const outcome = train_in(dir_.path(), small,
                                  on_pairs({"train.loss", "dpo", "llm.reward_coeff", "1", "expname", name}));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    auto const before = val(name, 0), after = val(name, 1);
    if (begins_as_nothing) {
      EXPECT_NEAR(before.at("loss_per_pair").get<double>(), std::log(2.0), 1e-5);
    }
    EXPECT_NE(after.at("reward_margin"), before.at("reward_margin"));
    EXPECT_LT(event_of(dir_ / name, 1).at("train").at("loss_per_pair").get<double>(), 5);
  }
}

TEST_F(Preference, GoesOnAfterAKillWithTheSameBits) {
  small_.rounds = 5;
  small_.steps = 30;
  small_.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: [q_proj, v_proj]}";
  std::vector<std::string> const loss{"train.loss", "dpo"};
  ASSERT_EQ(train_on_pairs("whole", loss, 2).exit_code, 0);
  std::vector<std::string> words{"fsllm_hpc", "--cfg",
                                 write_config(dir_.path(), small_.yaml(dir_.path())).string()};
  auto const more = on_pairs({"train.loss", "dpo", "expname", "killed"});
  words.insert(words.end(), more.begin(), more.end());
  {
    Background running(dir_.path(), 2, words);
    while (running.running() && !std::filesystem::exists(dir_ / "killed/checkpoints/round_000002"))
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ASSERT_TRUE(running.running()) << "the run ended before it could be killed";
    running.kill_hard();
  }
  ASSERT_FALSE(std::filesystem::exists(dir_ / "killed/adapter")) << "killed too late";
  auto const outcome = run(dir_.path(), 3, {"fsllm_hpc", "--resume", (dir_ / "killed").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(adapter("killed") == adapter("whole"));
  EXPECT_EQ(training_record(dir_ / "killed/metrics.jsonl"), training_record(dir_ / "whole/metrics.jsonl"));
}

TEST_F(Preference, MistakesSayWhatToDo) {
  struct Mistake {
    std::vector<std::string> words;
    std::string message;
    std::string rows = {};  ///< of a file of its own
  };
  auto const token_shards = (dir_ / "rows_shards").string(), pair_shards = (dir_ / "pair_shards").string();
  auto const config = write_config(dir_.path(), small_.yaml(dir_.path())).string();
  auto const shard = [&](std::string const& out, std::vector<std::string> const& more) {
    std::vector<std::string> words{"fsllm_shard", "--cfg", config, "--out", out};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir_.path(), 0, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  };
  shard(token_shards, {});
  shard(pair_shards, on_pairs({"train.loss", "dpo"}));
  std::string const one =
      R"("client":"a","prompt_input_ids":[3],"chosen_input_ids":[4],"rejected_input_ids":)";
  for (auto const& mistake : std::vector<Mistake>{
           {{"train.loss", "dpo"}, "rows.jsonl:1: field 'chosen' is missing"},
           {{"train.loss", "dpo"}, "train.loss learns from pairs: prompt, chosen, rejected"},
           {{"train.loss", "dpo", "data.type", "gsm8k@llm"},
            "data.type = gsm8k@llm (train.loss = dpo learns from pairs"},
           {{"train.loss", "dpo"},
            "field 'rejected' is missing",
            R"({"client":"a","prompt":"p","chosen":"c"})"},
           {{"train.loss", "dpo"}, "chosen and rejected are the same", "{" + one + "[4]}"},
           {{"train.loss", "reward"},
            "rejected_input_ids holds \"x\", which is no token id",
            "{" + one + "[\"x\"]}"},
           {{"train.loss", "causal_lm", "data.shards", pair_shards},
            "hold pairs of answers). Set it to dpo or reward"},
           {{"train.loss", "dpo", "data.shards", token_shards}, "hold rows with one answer). Shard again"},
           {on_pairs({"train.loss", "dpo", "llm.adapter.use", "False"}), "Set llm.adapter.use: True"},
           {on_pairs({"train.loss", "dpo", "hpc.clients_per_pass", "2"}),
            "hpc.clients_per_pass = 2 with train.loss = dpo"},
           {{"trainer.type", "llmpporewardtrainer"}, "trainer.type = llmpporewardtrainer (it trains a head"},
           {{"trainer.type", "llmdporewardtrainer", "train.loss", "reward"}, "Leave one of them out"},
           {on_pairs({"train.loss", "dpo", "llm.reward_coeff", "0"}), "llm.reward_coeff = 0"}}) {
    SCOPED_TRACE(mistake.message);
    auto words = mistake.words;
    if (!mistake.rows.empty()) {
      std::ofstream(dir_ / "bad.jsonl") << mistake.rows << "\n";
      words.insert(words.end(), {"data.root", dir_.path().string(), "data.type", "bad.jsonl"});
    }
    expect_message(train_in(dir_.path(), small_, words), mistake.message);
  }
  std::ofstream(dir_ / "clients.yaml") << "client_2: {train: {loss: reward}}\n";
  expect_message(train_in(dir_.path(), small_,
                          on_pairs({"--client_cfg", (dir_ / "clients.yaml").string(), "train.loss", "dpo"})),
                 "client 2 has train.loss = reward");
}

/// A run's test split, where the chosen answer is the expected one; and the example configuration.
TEST_F(Preference, EvaluationScoresTheChosenAnswer) {
  write_text_model(dir_ / "model", 256);
  std::string pairs;
  for (int i = 0; i < 20; ++i)
    pairs += nlohmann::json{{"prompt", "Say it."}, {"chosen", "Yes."}, {"rejected", "No"}}.dump() + "\n";
  std::ofstream(dir_ / "pairs.jsonl") << pairs;
  std::vector<std::string> words{"fsllm_hpc", "--cfg", source_file("configs/preference.yaml").string()};
  std::vector<std::string> const here{"model.type",
                                      (dir_ / "model").string(),
                                      "data.root",
                                      dir_.path().string(),
                                      "data.prompt_template",
                                      "plain",
                                      "outdir",
                                      dir_.path().string(),
                                      "data.splits",
                                      "[0.6, 0.2, 0.2]",
                                      "train.optimizer.lr",
                                      "0.02"};
  words.insert(words.end(), here.begin(), here.end());
  auto const outcome = run(dir_.path(), 2, words);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  auto const scored =
      run(dir_.path(), 0,
          {"fsllm_eval", "--run", (dir_ / "preference").string(), "--out", (dir_ / "scores").string()});
  ASSERT_EQ(scored.exit_code, 0) << scored.err;
  auto const results = nlohmann::json::parse(read_text(dir_ / "scores/results.json"));
  std::ifstream lines(dir_ / "scores/predictions.jsonl");
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_THAT(line, testing::HasSubstr("\"Yes.\"")) << results.dump();
  EXPECT_EQ(line.find("\"No\""), std::string::npos);
}

/// FedBiOT's name of the trainer.
TEST_F(Preference, TrainersNameAsksForDpo) {
  small_.rounds = 1;
  ASSERT_EQ(train_on_pairs("loss", {"train.loss", "dpo"}).exit_code, 0);
  ASSERT_EQ(train_on_pairs("trainer", {"trainer.type", "llmrewardtrainer"}).exit_code, 0);
  EXPECT_TRUE(adapter("loss") == adapter("trainer"));
}

}  // namespace
}  // namespace fsllm::test
