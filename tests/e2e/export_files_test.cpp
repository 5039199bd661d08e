// SPDX-License-Identifier: Apache-2.0
// What fsllm_export refuses, and GGUF files of other vocabularies and bases.
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/core.h>

#include "export_fixture.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/io/safetensors_writer.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

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

/// The reference models of three families, without what GGUF files cannot say of them: each is refused first.
TEST_F(Export, FamiliesAreWhatLlamaCppComputes) {
  TempDir temp;
  std::ofstream(temp / "in.jsonl")
      << R"({"id": 1, "type": "generate_until", "context_ids": [5, 9, 20, 33, 47, 11],)"
      << R"( "until": [], "max_tokens": 12, "temperature": 0})"
      << "\n";
  auto const ours = [&](fs::path const& model, fs::path const& adapter) {
    std::vector<std::string> words{"fsllm_eval",
                                   "--model",
                                   model.string(),
                                   "--requests",
                                   (temp / "in.jsonl").string(),
                                   "--responses",
                                   (temp / "out.jsonl").string()};
    if (!adapter.empty()) words.insert(words.end(), {"--adapter", adapter.string()});
    auto const outcome = test::run(temp.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return ids_in(temp / "out.jsonl");
  };
  auto const tried = [&](std::string const& form, std::string const& out, std::string const& model,
                         fs::path const& adapter) {
    std::vector<std::string> words{"--model", (temp / model).string()};
    if (!adapter.empty()) words.insert(words.end(), {"--adapter", adapter.string()});
    if (form == "gguf") words.insert(words.end(), {"--dtype", "fp32"});
    return export_to(form, temp / out, words);
  };
  for (std::string const name : {"llama3", "qwen2", "mistral"}) {
    SCOPED_TRACE(name);
    write_text_model(temp / name, 0);
    for (auto const* file : {"config.json", "model.safetensors"})
      fs::copy_file(reference_dir(name) / file, temp / name / file, fs::copy_options::overwrite_existing);
    auto const adapter = reference_dir(name) / "adapter";
    expect_message(tried("gguf", name + "_gguf", name, adapter),
                   name == "llama3" ? "position scaling llama3 of other numbers than Llama 3.1 has"
                                    : "layers attend to a sliding window");
    auto config = json::parse(read_text(temp / name / "config.json"));
    if (name == "llama3") config["rope_scaling"]["original_max_position_embeddings"] = 8192;
    for (auto const* key : {"sliding_window", "use_sliding_window", "layer_types"}) config.erase(key);
    if (name == "mistral") config["sliding_window"] = nullptr;
    std::ofstream(temp / name / "config.json") << config;
    for (auto const& [form, out, with] :
         {std::tuple{"gguf", "_gguf", true}, {"gguf-adapter", "_lora", true}, {"gguf", "_base", false}}) {
      auto const outcome = tried(form, name + out, name, with ? adapter : fs::path());
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    }
    auto const wanted = ours(temp / name, adapter);
    EXPECT_NE(wanted, Texts());
    EXPECT_EQ(ours(temp / (name + "_gguf") / "model.gguf", {}), wanted);
    auto const whole = temp / "whole.jsonl", lora = temp / "lora.jsonl";
    auto const status =
        script(llama_python(), "llama_texts.py",
               {temp / "in.jsonl", temp / (name + "_gguf") / "model.gguf", "-", whole,
                temp / (name + "_base") / "model.gguf", temp / (name + "_lora") / "adapter.gguf", lora});
    if (llama_python().empty() || status == 77) continue;  // another test says that it is not there
    ASSERT_EQ(status, 0) << log();
    EXPECT_EQ(ids_in(whole), wanted);
    EXPECT_EQ(ids_in(lora), wanted);
  }
}

/// One large value a row of the head, which meets a hidden value that is always 0, takes the steps of Q8_0
/// from the other 31.
TEST_F(Export, AFileThatComputesSomethingElseIsNotKept) {
  TempDir temp;
  write_text_model(temp / "model", 0);
  TensorMap tensors;
  for (auto const& [name, values] : SafetensorsReader(temp / "model").tensors())
    tensors.emplace(name, values.to(at::kFloat).clone());
  tensors.at("model.norm.weight").select(0, 0).fill_(0);
  tensors.at("lm_head.weight").select(1, 0).fill_(1000);
  write_safetensors(temp / "model/model.safetensors", tensors);
  std::vector<std::string> const words{"--model", (temp / "model").string()};
  auto const good = export_to("gguf", temp / "good", words);
  EXPECT_EQ(good.exit_code, 0) << good.err;
  auto q8 = words;
  q8.insert(q8.end(), {"--dtype", "q8_0"});
  expect_message(export_to("gguf", temp / "bad", q8), "read back, the logits are off by ");
  EXPECT_FALSE(fs::exists(temp / "bad"));
}

TEST_F(Export, AGgufBaseKeepsItsNameAndVocabulary) {
  TempDir temp;
  write_text_model(temp / "model", 0);
  std::ofstream(temp / "model/chat_template.jinja") << "{{ messages[0]['content'] }}";
  auto const base =
      export_to("gguf", temp / "base",
                {"--model", (temp / "model").string(), "--dtype", "fp32", "--base_model_name", "acme/tiny"});
  ASSERT_EQ(base.exit_code, 0) << base.err;
  auto const file = (temp / "base/model.gguf").string();
  SmallRun small;
  small.rounds = 1;
  auto const trained =
      test::run(temp.path(), 1,
                {"fsllm_hpc", "--cfg", write_config(temp.path(), small.yaml(temp.path())).string(),
                 "model.type=" + file});
  ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  auto const config = json::parse(read_text(temp / "run/adapter/adapter_config.json"));
  EXPECT_EQ(config.at("base_model_name_or_path"), "acme/tiny");
  EXPECT_EQ(read_text(temp / "run/adapter/chat_template.jinja"), "{{ messages[0]['content'] }}");
  for (auto const* form : {"merged", "gguf", "gguf-adapter"}) {
    auto const outcome = export_to(form, temp / form, {"--run", (temp / "run").string()});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  if (python().empty()) GTEST_SKIP() << "no Python with gguf (FSLLM_TEST_PYTHON)";
  std::vector<json> facts;
  for (auto const* name : {"base/model.gguf", "gguf/model.gguf"}) {
    auto const status = script(python(), "read_gguf.py", {temp / name, temp / "facts.json"});
    if (status == 77) GTEST_SKIP() << "no gguf in the Python of FSLLM_TEST_PYTHON";
    ASSERT_EQ(status, 0) << log();
    facts.push_back(json::parse(read_text(temp / "facts.json")));
  }
  for (auto const& [key, value] : facts[0].at("keys").items())
    if (key.starts_with("tokenizer.")) {
      EXPECT_EQ(facts[1].at("keys").at(key), value) << key;
    }
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
