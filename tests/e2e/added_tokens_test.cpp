// SPDX-License-Identifier: Apache-2.0
// llm.added_tokens.* through the programs: training, resume, evaluation, export, and transformers + peft.
#include <ATen/core/Tensor.h>
#include <fmt/core.h>

#include <cstdlib>
#include <fstream>

#include "bad_input.hpp"
#include "fsllm/io/safetensors.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kVocabulary = 96;  ///< of the reference models

/// small_tokenizer() without an end-of-text token, and with as many tokens as the models have rows.
json endless_tokenizer() {
  auto document = small_tokenizer();
  auto& vocab = document["model"]["vocab"];
  for (auto const* name : {"<s>", "</s>"}) {
    vocab[std::string("old ") + name] = vocab[name];
    vocab.erase(name);
  }
  document["added_tokens"].erase(2);
  document["added_tokens"].erase(1);
  for (int id = static_cast<int>(vocab.size()); id < kVocabulary; ++id)
    vocab["word " + std::to_string(id)] = id;
  return document;
}

class AddedTokens : public testing::Test {
 protected:
  AddedTokens() {
    use_model("llama");
    write_data_sets(dir_ / "data");
  }

  void use_model(std::string const& name) {
    fs::remove_all(base_);
    fs::create_directories(base_);
    fs::copy_file(reference_dir(name) / "model.safetensors", base_ / "model.safetensors");
    auto config = json::parse(read_text(reference_dir(name) / "config.json"));
    for (auto const* role : {"bos_token_id", "eos_token_id", "pad_token_id"}) config.erase(role);
    std::ofstream(base_ / "config.json") << config;
    std::ofstream(base_ / "tokenizer.json") << endless_tokenizer();
  }

  /// Trains two rounds of LoRA in run directory `name`.
  Outcome train(std::string const& name, int np, std::vector<std::string> const& more) const {
    auto const config = write_config(
        dir_.path(),
        fmt::format("outdir: {0}\nseed: 1\nmodel: {{type: {1}}}\n"
                    "data: {{root: {0}/data, type: gsm8k@llm, splitter: iid, splits: [0.8, 0.2, 0.0], "
                    "prompt_template: plain}}\n"
                    "federate: {{client_num: 3, total_round_num: 2}}\ndataloader: {{batch_size: 4}}\n"
                    "train: {{local_update_steps: 4, optimizer: {{type: AdamW, lr: 0.02}}}}\n"
                    "llm: {{tok_len: 64, adapter: {{use: True}}}}\n",
                    dir_.path().string(), base_.string()));
    std::vector<std::string> words{"fsllm_hpc", "--cfg", config.string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }

  fs::path trained(std::string const& name, int np, std::vector<std::string> const& more = kTokens) const {
    auto const outcome = train(name, np, more);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return dir_ / name / "adapter";
  }

  /// Answers of fsllm_eval for texts that hold the new tokens.
  std::vector<json> scores(fs::path const& model, fs::path const& adapter, int np = 0) const {
    std::ofstream requests(dir_ / "requests.jsonl");
    for (int id = 0; id < 6; ++id)
      requests << json{{"id", id},
                       {"type", "loglikelihood"},
                       {"context", "<user>What is " + std::to_string(7 * id) + "?"},
                       {"continuation", "Count.</s>"}}
               << "\n";
    requests.close();
    std::vector<std::string> words{"fsllm_eval",
                                   "--model",
                                   model,
                                   "--requests",
                                   dir_ / "requests.jsonl",
                                   "--responses",
                                   dir_ / "responses.jsonl"};
    if (!adapter.empty()) words.insert(words.end(), {"--adapter", adapter});
    auto const outcome = run(dir_.path(), np, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return read_events(dir_ / "responses.jsonl");
  }

  static void expect_near(std::vector<json> const& a, std::vector<json> const& b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_NEAR(a[i].at("loglikelihood").get<double>(), b[i].at("loglikelihood").get<double>(), tolerance)
          << i;
  }

  std::vector<json> ids_of(fs::path const& folder, std::vector<std::string> const& texts) const {
    std::ofstream in(dir_ / "texts.jsonl");
    for (auto const& text : texts) in << json{{"text", text}} << "\n";
    in.close();
    auto const outcome = run(dir_.path(), 0, {"fsllm_inspect", folder, "--tokenize", dir_ / "texts.jsonl"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    std::vector<json> rows;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line).at("ids"));
    return rows;
  }

  inline static std::vector<std::string> const kTokens{
      "llm.added_tokens", "{eos_token: </s>, pad_token: '[PAD]', additional: [<user>]}"};
  TempDir dir_;
  fs::path base_ = dir_ / "model";
};

TEST_F(AddedTokens, WithoutAnEndOfTextTheKeyIsNamed) {
  expect_message(train("run", 0, {}),
                 "the tokenizer has no end-of-text token (answers must end with one). Set "
                 "llm.added_tokens.eos_token");
  EXPECT_EQ(train("run", 0, {"llm.added_tokens.eos_token", "Z"}).exit_code, 0) << "one that it has";
  EXPECT_EQ(SafetensorsReader(dir_ / "run/adapter", "adapter_model").names().size(), 8U)
      << "needs no new row";
}

TEST_F(AddedTokens, TrainTheSameBitsOnTwoRanksAndAfterAResume) {
  auto const one = trained("one", 0), two = trained("two", 2);
  auto const weights = read_text(one / "adapter_model.safetensors");
  EXPECT_EQ(read_text(two / "adapter_model.safetensors"), weights);
  SafetensorsReader const file(one, "adapter_model");
  for (auto const* name : {"base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"})
    EXPECT_EQ(file.shape(name), (std::vector<int64_t>{kVocabulary + 3, 32})) << name;
  auto const ids = ids_of(one, {"[PAD]</s><user>", "a</s>"});
  EXPECT_EQ(ids.at(0), json({kVocabulary, kVocabulary + 1, kVocabulary + 2}));
  EXPECT_EQ(ids.at(1).at(1), kVocabulary + 1);
  fs::resize_file(dir_ / "two/checkpoints/round_000002/state.h5", 1000);
  fs::remove_all(two);
  auto const resumed = run(dir_.path(), 0, {"fsllm_hpc", "--resume", dir_ / "two"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err << resumed.out;
  EXPECT_EQ(read_text(two / "adapter_model.safetensors"), weights);
  expect_message(train("two", 0, {"--resume", "llm.added_tokens.eos_token", "<end>"}),
                 "llm.added_tokens.eos_token (</s> before, <end> now)");
}

TEST_F(AddedTokens, ScoresAgreeInEvaluationExportAndPeft) {
  for (std::string const name : {"llama", "gpt2"}) {
    SCOPED_TRACE(name);
    use_model(name);
    auto const adapter = trained(name, 2);
    auto const ours = scores(base_, adapter, 2);
    auto const merged = dir_ / (name + "_merged");
    auto const exported =
        run(dir_.path(), 0,
            {"fsllm_export", "--model", base_, "--adapter", adapter, "--to", "merged", "--out", merged});
    ASSERT_EQ(exported.exit_code, 0) << exported.err;
    expect_near(scores(merged, {}), ours, 1e-4);
    auto const ids = ids_of(merged, {"<user>a</s>"});
    EXPECT_EQ(ids, ids_of(adapter, {"<user>a</s>"}));
    EXPECT_EQ(json::parse(read_text(fs::path(merged) / "config.json")).at("eos_token_id"), ids.at(0).back());
    char const* python = std::getenv("FSLLM_TEST_PYTHON");
    if (python == nullptr || *python == '\0')
      GTEST_SKIP() << "no Python with transformers and peft (FSLLM_TEST_PYTHON)";
    auto const again = dir_ / (name + "_again"), theirs = dir_ / "theirs.jsonl", log = dir_ / "python.txt";
    auto const command =
        fmt::format("HF_HUB_OFFLINE=1 {} {} {} {} {} {} > {} 2> {}", python,
                    source_file("tests/e2e/added_tokens.py").string(), base_.string(), adapter.string(),
                    (dir_ / "requests.jsonl").string(), again.string(), theirs.string(), log.string());
    ASSERT_EQ(std::system(command.c_str()), 0) << read_text(log);
    auto const rows = read_events(theirs);
    expect_near(ours, rows, 1e-4);
    std::vector<std::string> texts;
    for (auto const& request : read_events(dir_ / "requests.jsonl"))
      texts.push_back(request.at("context").get<std::string>() +
                      request.at("continuation").get<std::string>());
    auto const our_ids = ids_of(adapter, texts);
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(our_ids.at(i), rows[i].at("ids"));
    expect_near(scores(base_, again), ours, 1e-5);
  }
}

TEST_F(AddedTokens, AreSetAgainFromTheAdapterThatARunStartsFrom) {
  auto const first = trained("first", 0);
  auto const more = std::vector<std::string>{"llm.adapter.init_from", first};
  auto const alone = trained("alone", 2, more);
  auto with_keys = more;
  with_keys.insert(with_keys.end(), kTokens.begin(), kTokens.end());
  auto const keyed = trained("keyed", 0, with_keys);
  EXPECT_EQ(read_text(alone / "adapter_model.safetensors"), read_text(keyed / "adapter_model.safetensors"));
  EXPECT_NE(read_text(alone / "adapter_model.safetensors"), read_text(first / "adapter_model.safetensors"));
  EXPECT_EQ(ids_of(alone, {"[PAD]</s><user>"}), ids_of(first, {"[PAD]</s><user>"}));
  auto other = more;
  other.insert(other.end(), {"llm.added_tokens", "{eos_token: <user>, pad_token: </s>}"});
  expect_message(train("other", 2, other),
                 "llm.added_tokens: '<user>' has the id 97 (in " + first.string() + ": 98)");
  for (auto const* file : {"tokenizer.json", "tokenizer_config.json"}) fs::remove(first / file);
  other.back() = "{eos_token: </s>, additional: [a1, a2, a3]}";
  expect_message(train("other", 0, other),
                 "its embedding has 99 rows (the tokenizer with llm.added_tokens has 100");
}

TEST_F(AddedTokens, AreRowsThatFullTrainingLearns) {
  auto const outcome = train("full", 2,
                             {"llm.adapter", "{use: False}", "llm.added_tokens.eos_token", "</s>",
                              "llm.added_tokens.additional", "[<user>]"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const model = dir_ / "full/model";
  auto const config = json::parse(read_text(model / "config.json"));
  EXPECT_EQ(config.at("vocab_size"), kVocabulary + 2);
  EXPECT_EQ(config.at("eos_token_id"), kVocabulary);
  EXPECT_EQ(ids_of(model, {"</s><user>"}).at(0), json({kVocabulary, kVocabulary + 1}));
  auto const head = SafetensorsReader(model).tensor("lm_head.weight");
  EXPECT_FALSE(tensors_near(head.select(0, kVocabulary), head.select(0, kVocabulary + 1), 1e-3))
      << "both were the mean";
  EXPECT_EQ(scores(model, {}).size(), 6U);
}

TEST_F(AddedTokens, OfFsLlmAndQuantisedWeights) {
  auto const adapter = trained("compat", 2, {"compat.fsllm", "True", "train.storage_dtype", "nf4"});
  EXPECT_EQ(ids_of(adapter, {"[PAD]</s><s><unk>"}).at(0),
            json({kVocabulary, kVocabulary + 1, kVocabulary + 2, 0}))
      << "the order of FS-LLM's get_tokenizer; <unk> is there";
  EXPECT_EQ(SafetensorsReader(adapter, "adapter_model").shape("base_model.model.lm_head.weight").at(0),
            kVocabulary + 3);
}

TEST_F(AddedTokens, AnswerTasksBesideTheBaseModel) {
  auto const adapter = trained("run", 0);
  std::ofstream(dir_ / "data/tasks.jsonl")
      << json{{"instruction", "What is 1?"}, {"input", ""}, {"output", "Count."}};
  auto tokenizer = endless_tokenizer();
  tokenizer["added_tokens"].push_back(tokenizer["added_tokens"][0]);
  tokenizer["added_tokens"][1]["id"] = 2;
  tokenizer["added_tokens"][1]["content"] = "old </s>";
  std::ofstream(base_ / "tokenizer.json") << tokenizer;
  std::ofstream(base_ / "tokenizer_config.json") << json{{"eos_token", "old </s>"}};
  auto const tasks = [&](std::vector<std::string> const& candidates) {
    std::vector<std::string> words{"fsllm_eval", "--model",     base_,   "--tasks",      "tasks.jsonl",
                                   "--data",     dir_ / "data", "--out", dir_ / "tasks", "--prompt_template",
                                   "plain"};
    words.insert(words.end(), candidates.begin(), candidates.end());
    auto const outcome = run(dir_.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return json::parse(read_text(dir_ / "tasks/results.json"));
  };
  auto const plain = trained("plain", 0, {"llm.added_tokens.eos_token", "old </s>"});
  auto const base = tasks({"--base", "--adapter", "plain=" + plain.string()}),
             both = tasks({"--base", "--adapter", "first=" + adapter.string(), "--adapter",
                           "second=" + adapter.string(), "--adapter", "plain=" + plain.string()});
  EXPECT_EQ(both.at("base"), base.at("base"));
  EXPECT_EQ(both.at("first"), both.at("second"));
  EXPECT_NE(both.at("first"), both.at("base"));
  EXPECT_EQ(both.at("plain"), base.at("plain")) << "the model's own embeddings and tokenizer are back";
}

TEST_F(AddedTokens, NeedATokenizer) {
  fs::remove(base_ / "tokenizer.json");
  expect_message(train("run", 2, kTokens),
                 "llm.added_tokens (" + base_.string() + " holds no tokenizer to add them to)");
}

}  // namespace
}  // namespace fsllm::test
