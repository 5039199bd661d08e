// SPDX-License-Identifier: Apache-2.0
// Data sets and prompt templates as a user meets them: fsllm_shard --cfg, --preview, and fsllm_hpc --check.
#include <zip.h>

#include <fstream>

#include "federation.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class DataSets : public testing::Test {
 protected:
  DataSets() {
    write_text_model(dir_ / "model");
    fs::create_directories(dir_ / "data");
  }

  void write(std::string const& name, std::string const& text) const {
    std::ofstream(dir_ / "data" / name) << text;
  }

  /// Runs a program on a configuration of these `data` lines.
  Outcome with(std::string const& data, std::vector<std::string> const& words, int clients = 2) const {
    auto const config = write_config(
        dir_.path(), "model: {type: " + (dir_ / "model").string() +
                         "}\nfederate: {client_num: " + std::to_string(clients) +
                         "}\nllm: {tok_len: 200}\nuse_gpu: False\noutdir: " + (dir_ / "exp").string() +
                         "\ndata:\n  root: " + root_ + "\n  splits: [1.0, 0.0, 0.0]\n" + data);
    auto all = words;
    all.insert(all.begin() + 1, {"--cfg", config.string()});
    return run(dir_.path(), 0, all);
  }

  /// The clients' groups and rows as fsllm_inspect tells them.
  json sharded(std::string const& data, int clients = 2) {
    auto const out = dir_ / ("shards" + std::to_string(++shards_));
    auto const made = with(data, {"fsllm_shard", "--out", out.string()}, clients);
    EXPECT_EQ(made.exit_code, 0) << made.err;
    auto const shown = run(dir_.path(), 0, {"fsllm_inspect", out.string(), "--json"});
    EXPECT_EQ(shown.exit_code, 0) << shown.err;
    return shown.exit_code == 0 ? json::parse(shown.out).at("clients") : json::array();
  }

  std::string preview(std::string const& data) const {
    auto const shown = with(data, {"fsllm_shard", "--preview", "1", "--out", (dir_ / "no").string()});
    EXPECT_EQ(shown.exit_code, 0) << shown.err;
    return shown.out;
  }

  TempDir dir_;
  std::string root_ = (dir_ / "data").string();
  int shards_ = 0;
};

int64_t rows_in(json const& clients) {
  int64_t rows = 0;
  for (auto const& client : clients) rows += client.at("train").at("rows").get<int64_t>();
  return rows;
}

void write_zip(fs::path const& path, std::string const& name, std::string const& content) {
  int code = 0;
  auto* const archive = zip_open(path.c_str(), ZIP_CREATE, &code);
  zip_file_add(archive, name.c_str(), zip_source_buffer(archive, content.data(), content.size(), 0), 0);
  ASSERT_EQ(zip_close(archive), 0);
}

TEST_F(DataSets, CodeSearchNetFromItsArchives) {
  for (std::string const language : {"go", "ruby"}) {
    std::string rows;
    for (int i = 0; i < 40; ++i)
      rows +=
          json{{"docstring", "Does it."}, {"code", "f" + std::to_string(i)}, {"language", language}}.dump() +
          "\n";
    write_zip(dir_ / "data" / (language + ".zip"),
              language + "/final/jsonl/train/" + language + "_train_0.jsonl", rows);
  }
  std::string const data = "  type: code_search_net@llm\n  splitter: meta\n  subsample: 0.5\n";
  auto const clients = sharded(data);
  ASSERT_EQ(clients.size(), 2U);
  for (auto const& client : clients) {
    EXPECT_EQ(client.at("train").at("rows"), 20);
    EXPECT_EQ(client.at("train").at("groups").size(), 1U);
  }
  auto const checked = with(data, {"fsllm_hpc", "--check", "llm.tok_len", "60"});
  EXPECT_EQ(checked.exit_code, 0) << checked.err;
  EXPECT_THAT(checked.err + checked.out,
              testing::HasSubstr("code_search_net@llm: without python, javascript, java, php"));
  EXPECT_THAT(preview(data), testing::HasSubstr("ruby Does it."));
}

TEST_F(DataSets, RosettaByLanguage) {
  auto rows = json::array();
  for (int i = 0; i < 30; ++i)
    rows.push_back({{"instruction", "Sort."},
                    {"input", i % 3 == 0   ? "X86-64 Assembly"
                              : i % 3 == 1 ? "Go"
                                           : "Ruby"},
                    {"output", "ok"}});
  write("rosetta_alpaca.json", rows.dump());
  EXPECT_EQ(rows_in(sharded("  type: rosetta_alpaca@llm\n  splitter: meta\n")), 20);
  EXPECT_EQ(rows_in(sharded("  type: rosetta_alpaca@llm\n  splitter: iid\n")), 30);
}

TEST_F(DataSets, ChatsByNameAndByTheModelsTemplate) {
  write("x.jsonl", R"({"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes."}]}
{"conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"No."}]})");
  std::string const data = "  type: x.jsonl\n  prompt_template: ";
  EXPECT_THAT(preview(data + "llama-3\n"), testing::HasSubstr("«Yes."));
  auto const none = with(data + "model\n", {"fsllm_hpc", "--check"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err,
              testing::HasSubstr("has no chat template). Give a Jinja file with data.chat_template"));
  std::ofstream(dir_ / "model" / "tokenizer_config.json")
      << json{{"eos_token", "</s>"},
              {"chat_template",
               "{%- for m in messages %}{{ m.role + ': ' + m.content }}{% if m.role == 'assistant' %}{{ "
               "eos_token }}{% endif %}"
               "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"}};
  EXPECT_THAT(preview(data + "model\n"), testing::HasSubstr("user: Hi\nassistant:« Yes.</s>»\n"));
  EXPECT_EQ(rows_in(sharded(data + "model\n")), 2);
  auto const alpaca = with(data + "alpaca\n", {"fsllm_hpc", "--check"});
  EXPECT_EQ(alpaca.exit_code, 2);
  EXPECT_THAT(alpaca.err, testing::HasSubstr("x.jsonl:1: a chat (data.prompt_template = alpaca"));
}

TEST_F(DataSets, UsersTemplate) {
  write("x.jsonl", R"({"instruction":"Add","input":"1, 2","output":"3"})");
  EXPECT_THAT(
      preview("  type: x.jsonl\n  custom_template: {prompt: 'Task: {instruction}, {input}. Answer:'}\n"),
      testing::HasSubstr("Task: Add, 1, 2. Answer:«3</s>»"));
}

TEST_F(DataSets, PlainTextIsScoredAsAWhole) {
  write("x.txt", "Once upon\na time.\n\nThe end.\n");
  EXPECT_THAT(preview("  type: x.txt\n"), testing::HasSubstr("Once upon\na time.</s>»"));
  EXPECT_EQ(rows_in(sharded("  type: x.txt\n")), 2);
}

TEST_F(DataSets, Gsm8kAsPublished) {
  FSLLM_NEED_TEST_DATA("datasets/gsm8k/train.jsonl");
  root_ = test_data("datasets/gsm8k").string();
  auto const clients = sharded("  type: gsm8k@llm\n", 3);
  EXPECT_EQ(rows_in(clients), 7473);
  EXPECT_EQ(clients[0].at("train").at("rows"), 2491);
}

TEST_F(DataSets, ShakespeareAsPublished) {
  FSLLM_NEED_TEST_DATA("datasets/text/tiny_shakespeare.txt");
  root_ = test_data("datasets/text").string();
  EXPECT_EQ(rows_in(sharded("  type: tiny_shakespeare.txt\n")), 7222);
}

}  // namespace
}  // namespace fsllm::test
