// SPDX-License-Identifier: Apache-2.0
// What a run and fsllm_export hand over: names, cards and tokenizers, and whether transformers, peft, gguf
// and llama.cpp read of it what this program computes.
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/core.h>

#include <cstdlib>
#include <fstream>

#include "bad_input.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/io/safetensors_writer.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Texts = std::vector<std::vector<int>>;

constexpr int kPrompts = 20, kTokens = 24;

std::string python() {
  char const* found = std::getenv("FSLLM_TEST_PYTHON");
  return found == nullptr ? "" : found;
}

/// An interpreter with llama-cpp-python; another one than that of the other packages by FSLLM_LLAMA_PYTHON.
std::string llama_python() {
  char const* found = std::getenv("FSLLM_LLAMA_PYTHON");
  return found == nullptr ? python() : found;
}

/// Stories260K trained a little on GSM8K: one run for all tests of this file.
class Export : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (test_data("models/stories260K").empty()) return;
    place_ = std::make_unique<TempDir>();
    auto const config = write_config(
        dir(), stories_on_gsm8k(dir(), 96, 4,
                                "expname: run\nseed: 1\nfederate: {client_num: 3, total_round_num: 2}\n"
                                "train: {local_update_steps: 8, batch_or_epoch: batch, optimizer: {type: "
                                "AdamW, lr: 0.01}}\n"));
    trained_ = test::run(dir(), 2, {"fsllm_hpc", "--cfg", config.string()});
    std::ofstream prompts(dir() / "prompts.jsonl");
    for (int i = 0; i < kPrompts; ++i)
      prompts << json{{"id", i},
                      {"type", "generate_until"},
                      {"context", kBeginnings[i % 5] + std::string(kNames[i / 5]) + " had"},
                      {"until", json::array()},
                      {"max_tokens", kTokens},
                      {"temperature", 0}}
                     .dump()
              << "\n";
  }
  static void TearDownTestSuite() { place_.reset(); }
  void SetUp() override {
    FSLLM_NEED_TEST_DATA("models/stories260K");
    ASSERT_EQ(trained_.exit_code, 0) << trained_.err << trained_.out;
  }

  static fs::path dir() { return place_->path(); }
  static std::string model() { return test_data("models/stories260K").string(); }
  static fs::path adapter() { return dir() / "run/adapter"; }
  static Outcome export_to(std::string const& form, fs::path const& out,
                           std::vector<std::string> const& more = {}) {
    std::vector<std::string> words{"fsllm_export", "--to", form, "--out", out.string()};
    if (more.empty()) words.insert(words.end(), {"--run", (dir() / "run").string()});
    words.insert(words.end(), more.begin(), more.end());
    return test::run(dir(), 0, words);
  }
  static void must_export(std::string const& form, std::string const& name,
                          std::vector<std::string> const& more = {}) {
    auto words = more;
    words.insert(words.end(), {"--run", (dir() / "run").string()});
    auto const outcome = export_to(form, dir() / name, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  }

  /// The ids that a program of ours answers with.
  static Texts ours(fs::path const& model, fs::path const& adapter = {}) {
    std::vector<std::string> words{"fsllm_eval",
                                   "--model",
                                   model.string(),
                                   "--requests",
                                   (dir() / "prompts.jsonl").string(),
                                   "--responses",
                                   (dir() / "ours.jsonl").string()};
    if (!adapter.empty()) words.insert(words.end(), {"--adapter", adapter.string()});
    auto const outcome = test::run(dir(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return ids_in(dir() / "ours.jsonl");
  }
  static Texts ids_in(fs::path const& file) {
    Texts texts;
    for (auto const& line : read_events(file)) texts.push_back(line.at("ids").get<std::vector<int>>());
    return texts;
  }
  /// Exit code of a script in tests/e2e, whose output goes into `log`.
  static int script(std::string const& interpreter, std::string const& name,
                    std::vector<fs::path> const& words) {
    auto command = interpreter + " " + source_file("tests/e2e/" + name).string();
    for (auto const& word : words) command += " " + word.string();
    auto const status = std::system((command + " > " + (dir() / "log").string() + " 2>&1").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  static std::string log() { return read_text(dir() / "log"); }

  static constexpr char const* kBeginnings[] = {"Once upon a time, ", "One day, ", "In the park, ",
                                                "There was a time when ", "At night, "};
  static constexpr char const* kNames[] = {"Tom", "Lily", "a dog", "the cat"};
  static inline std::unique_ptr<TempDir> place_;
  static inline Outcome trained_;
};

TEST_F(Export, ARunsAdapterHasAPublicNameATokenizerAndACard) {
  auto const config = json::parse(read_text(adapter() / "adapter_config.json"));
  EXPECT_EQ(config.at("base_model_name_or_path"), "stories260K");
  EXPECT_EQ(read_text(adapter() / "tokenizer.model"), read_text(fs::path(model()) / "tokenizer.model"));
  auto const card = read_text(adapter() / "README.md");
  EXPECT_TRUE(card.starts_with("---\nbase_model: stories260K\nlibrary_name: peft\n")) << card;
  for (auto const* part : {"gsm8k", "`iid`", "| clients | 3 |", "`fedavg`", "| rounds | 2 |",
                           "| loss a token, val | ", "PeftModel.from_pretrained", "tags:\n- federated"})
    EXPECT_THAT(card, testing::HasSubstr(part));
  for (auto const* folder : {"adapter", "best"})
    for (auto const* file : {"README.md", "adapter_config.json"})
      EXPECT_THAT(read_text(dir() / "run" / folder / file), testing::Not(testing::HasSubstr(model())))
          << file;
}

TEST_F(Export, TheNameMayBeChosenButIsNoPath) {
  TempDir temp;
  SmallRun small;
  small.rounds = 1;
  auto const config = write_config(temp.path(), small.yaml(temp.path())).string();
  auto const named =
      test::run(temp.path(), 1, {"fsllm_hpc", "--cfg", config, "llm.adapter.base_model_name=acme/tiny"});
  ASSERT_EQ(named.exit_code, 0) << named.err << named.out;
  auto const adapter = temp / "run/adapter";
  EXPECT_EQ(json::parse(read_text(adapter / "adapter_config.json")).at("base_model_name_or_path"),
            "acme/tiny");
  EXPECT_THAT(read_text(adapter / "README.md"), testing::HasSubstr("base_model: acme/tiny\n"));
  expect_message(
      test::run(temp.path(), 1,
                {"fsllm_hpc", "--cfg", config, "expname=b", "llm.adapter.base_model_name=/models/x"}),
      "llm.adapter.base_model_name = '/models/x' (a name of the form OWNER/NAME or NAME is needed");
}

TEST_F(Export, NameAndLicenceComeFromTheModelsFiles) {
  TempDir temp;
  write_text_model(temp / "model", 0);
  auto config = json::parse(read_text(temp / "model/config.json"));
  config["_name_or_path"] = "acme/tiny-chat";
  std::ofstream(temp / "model/config.json") << config;
  std::ofstream(temp / "model/README.md") << "---\nlicense: apache-2.0\n---\n# Tiny\n";
  std::ofstream(temp / "model/chat_template.jinja") << "{{ messages[0]['content'] }}";
  SmallRun small;
  small.rounds = 1;
  auto const yaml = write_config(temp.path(), small.yaml(temp.path())).string();
  auto const run_of = [&](std::string const& name) {
    return test::run(
        temp.path(), 1,
        {"fsllm_hpc", "--cfg", yaml, "expname=" + name, "model.type=" + (temp / "model").string()});
  };
  auto const trained = run_of("hub");
  ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  auto const card = read_text(temp / "hub/adapter/README.md");
  EXPECT_THAT(card, testing::HasSubstr("base_model: acme/tiny-chat\n"));
  EXPECT_THAT(card, testing::HasSubstr("license: apache-2.0\n"));
  for (auto const* file : {"tokenizer.json", "chat_template.jinja"})
    EXPECT_EQ(read_text(temp / "hub/adapter" / file), read_text(temp / "model" / file));
  config["_name_or_path"] = (temp / "elsewhere").string();
  std::ofstream(temp / "model/config.json") << config;
  ASSERT_EQ(run_of("path").exit_code, 0);
  EXPECT_EQ(json::parse(read_text(temp / "path/adapter/adapter_config.json")).at("base_model_name_or_path"),
            "model");
}

TEST_F(Export, OtherProgramsGiveTheSameGreedyTexts) {
  must_export("peft", "peft");
  must_export("merged", "merged");
  must_export("gguf", "gguf", {"--dtype", "fp32"});
  must_export("gguf-adapter", "lora");
  auto const base = export_to("gguf", dir() / "base", {"--model", model(), "--dtype", "fp32"});
  ASSERT_EQ(base.exit_code, 0) << base.err << base.out;
  auto const wanted = ours(model(), adapter());
  ASSERT_EQ(wanted.size(), size_t{kPrompts});
  EXPECT_NE(wanted, ours(model())) << "the adapter must matter";
  EXPECT_EQ(ours(model(), dir() / "peft"), wanted);
  EXPECT_EQ(ours(dir() / "merged"), wanted);
  EXPECT_EQ(ours(dir() / "gguf/model.gguf"), wanted);
  auto const place = fs::path(model()).parent_path().string();
  for (auto const* name : {"peft", "merged", "gguf", "lora"})
    for (auto const& [file, checksum] : file_checksums(dir() / name))
      EXPECT_EQ(read_text(dir() / name / file).find(place), std::string::npos) << name << '/' << file;
  if (python().empty()) GTEST_SKIP() << "no Python with transformers and peft (FSLLM_TEST_PYTHON)";
  auto const peft = dir() / "peft.jsonl", merged = dir() / "merged.jsonl";
  ASSERT_EQ(script(python(), "greedy_texts.py",
                   {dir() / "prompts.jsonl", model(), dir() / "peft", peft, dir() / "merged", "-", merged}),
            0)
      << log();
  EXPECT_EQ(ids_in(peft), wanted);
  EXPECT_EQ(ids_in(merged), wanted);
  auto const whole = dir() / "whole.jsonl", with_lora = dir() / "with_lora.jsonl";
  auto const status = script(llama_python(), "llama_texts.py",
                             {dir() / "prompts.jsonl", dir() / "gguf/model.gguf", "-", whole,
                              dir() / "base/model.gguf", dir() / "lora/adapter.gguf", with_lora});
  if (status == 77) GTEST_SKIP() << "no Python with llama_cpp (FSLLM_LLAMA_PYTHON): " << log();
  ASSERT_EQ(status, 0) << log();
  EXPECT_EQ(ids_in(whole), wanted);
  EXPECT_EQ(ids_in(with_lora), wanted);
}

TEST_F(Export, GgufFilesAreReadByLlamaCppsOwnPackage) {
  if (python().empty()) GTEST_SKIP() << "no Python with gguf (FSLLM_TEST_PYTHON)";
  must_export("gguf", "q8", {"--dtype", "q8_0", "--base_model_name", "acme/stories"});
  auto const status = script(python(), "read_gguf.py", {dir() / "q8/model.gguf", dir() / "facts.json"});
  if (status == 77) GTEST_SKIP() << "no gguf in the Python of FSLLM_TEST_PYTHON";
  ASSERT_EQ(status, 0) << log();
  auto const facts = json::parse(read_text(dir() / "facts.json"));
  auto const& keys = facts.at("keys");
  EXPECT_EQ(keys.at("general.architecture"), "llama");
  EXPECT_EQ(keys.at("general.base_model.0.repo_url"), "https://huggingface.co/acme/stories");
  EXPECT_EQ(keys.at("llama.block_count"), 5);
  EXPECT_EQ(keys.at("llama.attention.head_count_kv"), 4);
  EXPECT_EQ(keys.at("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(keys.at("tokenizer.ggml.tokens"), 512);
  auto const& tensors = facts.at("tensors");
  EXPECT_EQ(tensors.at("token_embd.weight").at("type"), "Q8_0");
  EXPECT_EQ(tensors.at("token_embd.weight").at("shape"), json({64, 512}));
  EXPECT_EQ(tensors.at("blk.0.ffn_down.weight").at("type"), "F16") << "172 values a row are no whole blocks";
  EXPECT_EQ(tensors.at("output_norm.weight").at("type"), "F32");
  EXPECT_EQ(tensors.size(), size_t{5 * 9 + 2});
  must_export("merged", "merged_for_q8");
  auto const values = SafetensorsReader(dir() / "merged_for_q8").tensor("model.embed_tokens.weight");
  EXPECT_NEAR(tensors.at("token_embd.weight").at("largest").get<double>(), values.abs().max().item<double>(),
              1e-2);
}

TEST_F(Export, EveryTypeIsWrittenAndReadBack) {
  for (auto const& [form, dtype] : {std::pair{"merged", "bf16"},
                                    {"merged", "fp16"},
                                    {"gguf", "fp16"},
                                    {"gguf", "q8_0"},
                                    {"gguf-adapter", "fp16"}})
    must_export(form, fmt::format("{}_{}", form, dtype), {"--dtype", dtype});
}

TEST_F(Export, WhatWouldBeUselessIsRefusedAndNothingIsLeft) {
  auto const out = dir() / "refused";
  auto const refused = [&](std::string const& form, std::vector<std::string> const& words,
                           std::string const& message) {
    expect_message(export_to(form, out, words), message);
    EXPECT_FALSE(fs::exists(out)) << message;
  };
  auto const run = (dir() / "run").string();
  refused("onnx", {"--run", run}, "--to = 'onnx' (not a known form: peft, merged, gguf, gguf-adapter)");
  refused("gguf", {"--run", run, "--dtype", "bf16"},
          "--dtype = 'bf16' with --to gguf (it is written as fp16");
  refused("peft", {"--run", run, "--dtype", "fp16"}, "--dtype fp16 with --to peft (an adapter keeps its own");
  refused("peft", {"--run", run, "--model", model()}, "--run with --model (the run names its own)");
  refused("merged", {"--model", model()}, "--adapter is missing");
  refused("peft", {"--run", run, "--base_model_name", "/models/x"}, "--base_model_name = '/models/x'");

  auto const broken = dir() / "broken";
  auto const break_adapter = [&](auto const& change) {
    fs::remove_all(broken);
    fs::create_directories(broken);
    for (auto const* file : {"adapter_config.json", "adapter_model.safetensors"})
      fs::copy_file(adapter() / file, broken / file);
    TensorMap tensors;
    for (auto const& [name, values] : SafetensorsReader(adapter(), "adapter_model").tensors())
      tensors.emplace(name, values.clone());
    change(tensors);
    write_safetensors(broken / "adapter_model.safetensors", tensors);
  };
  break_adapter([](TensorMap& tensors) {
    for (auto& [name, values] : tensors)
      if (name.find("lora_B") != std::string::npos) values = at::zeros_like(values);
  });
  std::vector<std::string> const words{"--model", model(), "--adapter", broken.string()};
  for (auto const* form : {"peft", "merged", "gguf", "gguf-adapter"})
    refused(form, words, "changes nothing (B is zero in each of its");
  break_adapter([](TensorMap& tensors) {
    tensors.emplace("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight",
                    tensors.begin()->second);
  });
  refused("peft", words, "unexpected tensor base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight");

  auto const reference = [&](char const* name) {
    return std::vector<std::string>{"--model", reference_dir(name).string(), "--adapter",
                                    (reference_dir(name) / "adapter").string()};
  };
  refused("gguf", reference("bloom"), "a model of the family bloom, not llama, mistral or qwen2");
  refused("gguf", reference("llama"), "llama has no tokenizer");
  refused("gguf-adapter",
          {"--model", reference_dir("llama").string(), "--adapter",
           reference_dir("adapters/dora_llama").string()},
          "which is no LoRA, or one with use_dora");

  TempDir temp;
  write_text_model(temp / "model", 0);
  auto tokenizer = json::parse(read_text(temp / "model/tokenizer.json"));
  tokenizer["pre_tokenizer"] = json{{"type", "Whitespace"}};
  std::ofstream(temp / "model/tokenizer.json") << tokenizer;
  refused("gguf", {"--model", (temp / "model").string()}, "Whitespace");
}

TEST_F(Export, ByteLevelVocabulariesAndPatternsOfRanksReachGguf) {
  TempDir temp;
  write_text_model(temp / "model", 0);
  auto const patterns = reference_dir("adapters/patterns_llama").string();
  auto const whole =
      export_to("gguf", temp / "whole", {"--model", (temp / "model").string(), "--adapter", patterns});
  ASSERT_EQ(whole.exit_code, 0) << whole.err << whole.out;
  auto const lora =
      export_to("gguf-adapter", temp / "lora", {"--model", (temp / "model").string(), "--adapter", patterns});
  ASSERT_EQ(lora.exit_code, 0) << lora.err << lora.out;
  std::ofstream(temp / "in.jsonl")
      << R"({"id": 1, "type": "loglikelihood", "context": "What is 1?", "continuation": " It is 2."})"
      << "\n";
  std::vector<std::string> const scored{"fsllm_eval", "--requests", (temp / "in.jsonl").string()};
  auto const score = [&](std::vector<std::string> const& more) {
    auto words = scored;
    words.insert(words.end(), {"--responses", (temp / "out.jsonl").string()});
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = test::run(temp.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return read_events(temp / "out.jsonl").front().at("loglikelihood").get<double>();
  };
  auto const ours = score({"--model", (temp / "model").string(), "--adapter", patterns});
  EXPECT_NEAR(score({"--model", (temp / "whole/model.gguf").string()}), ours, 5e-3 * std::abs(ours));
}

TEST_F(Export, AnExportedAdapterGoesOnInARun) {
  must_export("peft", "to_go_on");
  auto const config = write_config(
      dir(),
      fmt::format("outdir: {0}\nexpname: on\nmodel: {{type: {1}}}\n"
                  "data: {{root: {0}/data, type: gsm8k@llm, splitter: iid, splits: [1, 0, 0]}}\n"
                  "llm: {{tok_len: 64, adapter: {{use: True, init_from: {0}/to_go_on}}}}\n"
                  "federate: {{client_num: 2, total_round_num: 1}}\n"
                  "train: {{local_update_steps: 1, batch_or_epoch: batch, optimizer: {{lr: 0.001}}}}\n",
                  dir().string(), model()));
  auto const outcome = test::run(dir(), 1, {"fsllm_hpc", "--cfg", config.string()});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
}

}  // namespace
}  // namespace fsllm::test
