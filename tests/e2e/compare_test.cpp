// SPDX-License-Identifier: Apache-2.0
// fsllm_inspect --compare, against dense matrices and against fsllm_eval's losses.
#include <fmt/core.h>

#include <cmath>
#include <fstream>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class Compare : public testing::Test {
 protected:
  nlohmann::json compared(std::vector<std::string> words) {
    words.insert(words.begin(), "fsllm_inspect");
    words.emplace_back("--json");
    auto const outcome = run(dir_.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out);
  }
  void expect_refused(std::vector<std::string> words, std::string const& message) {
    words.insert(words.begin(), "fsllm_inspect");
    auto const outcome = run(dir_.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  }
  /// B A of a module in float64, times s.
  at::Tensor product(std::string const& adapter, std::string const& module, double s) {
    SafetensorsReader const file(dir_ / adapter / "adapter/adapter_model.safetensors");
    auto const factor = [&](char const* name) {
      return file.tensor("base_model.model." + module + name).to(at::kDouble);
    };
    return factor(".lora_B.weight").matmul(factor(".lora_A.weight")).mul(s);
  }
  TempDir dir_;
};

TEST_F(Compare, TwoRunsOfOneModel) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  auto const model = test_data("models/stories260K").string();
  fs::create_directories(dir_ / "data");
  fs::create_symlink(test_data("datasets/gsm8k/train.jsonl"), dir_ / "data/gsm8k_train.jsonl");
  auto const config = write_config(
      dir_.path(),
      fmt::format("outdir: {0}\nmodel: {{type: {1}}}\n"
                  "data: {{root: {0}/data, type: gsm8k@llm, splitter: iid, subsample: 0.02}}\n"
                  "llm: {{tok_len: 64, adapter: {{use: True, args: [{{r: 4, lora_alpha: 8, "
                  "target_modules: [q_proj, v_proj]}}]}}}}\n"
                  "federate: {{client_num: 2, total_round_num: 2}}\ndataloader: {{batch_size: 2}}\n"
                  "train: {{local_update_steps: 3, optimizer: {{type: AdamW, lr: 0.01}}}}\n",
                  dir_.path().string(), model));
  for (auto const& [name, rank] : {std::pair("a", "4"), {"b", "2"}}) {
    auto const trained =
        run(dir_.path(), 1,
            {"fsllm_hpc", "--cfg", config.string(), "expname", name, "seed", rank, "llm.adapter.args",
             fmt::format("[{{r: {}, lora_alpha: 8, target_modules: [q_proj, v_proj]}}]", rank)});
    ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  }
  auto const a = (dir_ / "a/adapter").string(), b = (dir_ / "b/adapter").string();
  std::string const text = "Tom has 3 apples and buys 4 more. How many has he?";
  auto const facts = compared({a, "--compare", b, "--model", model, "--text", text});
  double between = 0, size = 0, of_layer = 0;
  for (int layer = 0; layer < 5; ++layer)
    for (auto const* projection : {"q_proj", "v_proj"}) {
      auto const module = fmt::format("model.layers.{}.self_attn.{}", layer, projection);
      auto const of_a = product("a", module, 2), of_b = product("b", module, 4);
      double const distance = std::pow(of_a.sub(of_b).norm().item<double>(), 2);
      between += distance;
      size += std::pow(of_a.norm().item<double>(), 2);
      if (layer == 3) of_layer += distance;
    }
  EXPECT_NEAR(facts.at("distance").get<double>(), std::sqrt(between), 1e-9 * std::sqrt(between));
  EXPECT_NEAR(facts.at("relative_distance").get<double>(), std::sqrt(between / size),
              1e-9 * std::sqrt(between / size));
  EXPECT_NEAR(facts.at("layers").at("3").at("distance").get<double>(), std::sqrt(of_layer),
              1e-9 * std::sqrt(between));
  EXPECT_EQ(facts.at("layers").size(), 5U);
  EXPECT_EQ(facts.at("matched"), 0) << "ranks differ, so no factor has the other's shape";
  EXPECT_GT(facts.at("norm_of_lora_B").at("a").get<double>(), 0);

  std::ofstream(dir_ / "in.jsonl") << nlohmann::json{{"id", 1},
                                                     {"type", "loglikelihood_rolling"},
                                                     {"text", text}}
                                   << "\n";
  std::ofstream(dir_ / "texts.jsonl")
      << nlohmann::json{{"text", text}, {"add_special_tokens", false}} << "\n";
  for (auto const& [name, adapter] : {std::pair("model alone", ""), {"a", a.c_str()}, {"b", b.c_str()}}) {
    std::vector<std::string> words{"fsllm_eval",  "--model",         model, "--requests", dir_ / "in.jsonl",
                                   "--responses", dir_ / "out.jsonl"};
    if (*adapter != 0) words.insert(words.end(), {"--adapter", adapter});
    ASSERT_EQ(run(dir_.path(), 0, words).exit_code, 0);
    auto const answer = nlohmann::json::parse(read_text(dir_ / "out.jsonl"));
    auto const ids = nlohmann::json::parse(
        run(dir_.path(), 0, {"fsllm_inspect", model, "--tokenize", dir_ / "texts.jsonl"}).out);
    auto const count = static_cast<double>(ids.at("ids").size());
    EXPECT_NEAR(facts.at("loss_per_token").at(name).get<double>(),
                -answer.at("loglikelihood").get<double>() / count, 1e-5)
        << name;
  }

  auto const same = compared({a, "--compare", a});
  EXPECT_NEAR(same.at("distance").get<double>(), 0, 1e-12);
  EXPECT_EQ(same.at("only_in_a").size() + same.at("only_in_b").size(), 0U);
  EXPECT_EQ(same.at("matched"), 20);
  expect_refused({a, "--compare", dir_ / "data"}, "data holds no adapter_model.safetensors");
  expect_refused({a, "--compare", b, "--text", text}, "--model and --text (they go together");
  expect_refused({a, "--compare", b, "--model", model, "--text", ""}, "--text");
}

TEST_F(Compare, MethodsWithoutProductsAreComparedTensorByTensor) {
  auto const a = (reference_dir("adapters") / "ia3_llama").string();
  auto const facts = compared({a, "--compare", a});
  EXPECT_EQ(facts.at("compared"), "tensors");
  EXPECT_EQ(facts.at("distance"), 0);
  EXPECT_GT(facts.at("norm_a").get<double>(), 0);
  auto const other = compared({a, "--compare", (reference_dir("adapters") / "gaussian_llama").string()});
  EXPECT_EQ(other.at("matched"), 0);
  EXPECT_FALSE(other.at("only_in_a").empty());
}

}  // namespace
}  // namespace fsllm::test
