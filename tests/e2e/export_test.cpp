// SPDX-License-Identifier: Apache-2.0
// What a run and fsllm_export hand over: names, cards and tokenizers, and whether transformers, peft, gguf
// and llama.cpp read of it what this program computes.
#include <ATen/core/Tensor.h>
#include <fmt/core.h>

#include "export_fixture.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

TEST_F(Export, ARunsAdapterHasAPublicNameATokenizerAndACard) {
  auto const config = json::parse(read_text(adapter() / "adapter_config.json"));
  EXPECT_EQ(config.at("base_model_name_or_path"), "stories260K");
  EXPECT_EQ(read_text(adapter() / "tokenizer.model"), read_text(fs::path(model()) / "tokenizer.model"));
  auto const card = read_text(adapter() / "README.md");
  EXPECT_TRUE(card.starts_with("---\nbase_model: stories260K\nlibrary_name: peft\n")) << card;
  for (auto const* part : {"gsm8k", "`iid`", "| clients | 3 |", "`fedavg`", "| rounds | 2 |",
                           "| loss a token, val | ", "PeftModel.from_pretrained", "- federated-learning\n"})
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
  if (status == 77) GTEST_SKIP() << "no Python with llama_cpp or xllamacpp (FSLLM_LLAMA_PYTHON): " << log();
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

}  // namespace
}  // namespace fsllm::test
