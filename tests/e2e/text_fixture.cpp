// SPDX-License-Identifier: Apache-2.0
#include "text_fixture.hpp"

#include <fmt/core.h>

#include <fstream>

#include "federation.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

constexpr int kRows = 60;

void write_lines(std::filesystem::path const& path, json const& rows) {
  std::ofstream file(path);
  for (auto const& row : rows) file << row.dump() << "\n";
}

/// `kRows` rows; `fill` gives row i.
template <class Fill>
json rows_of(Fill const& fill) {
  auto rows = json::array();
  for (int i = 0; i < kRows; ++i) rows.push_back(fill(i));
  return rows;
}

}  // namespace

json small_tokenizer() {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>", "\u0120", "\u010a"};
  for (char const c : std::string("#:.,'?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))
    tokens.emplace_back(1, c);
  json vocab;
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  auto const special = [&](int id) {
    return json{{"id", id},
                {"content", tokens[static_cast<size_t>(id)]},
                {"single_word", false},
                {"lstrip", false},
                {"rstrip", false},
                {"normalized", false},
                {"special", true}};
  };
  json const byte_level{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  return {{"version", "1.0"},
          {"added_tokens", {special(0), special(1), special(2)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
}

void write_text_model(std::filesystem::path const& dir, int positions) {
  std::filesystem::create_directories(dir);
  for (auto const* name : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(reference_dir("llama") / name, dir / name);
  std::ofstream(dir / "tokenizer.json") << small_tokenizer().dump();
  if (positions == 0) return;
  auto config = nlohmann::json::parse(read_text(dir / "config.json"));
  config["max_position_embeddings"] = positions;
  std::ofstream(dir / "config.json") << config.dump();
}

void write_data_sets(std::filesystem::path const& dir) {
  std::filesystem::create_directories(dir);
  auto const question = [](int i) { return "What is " + std::to_string(i) + "?"; };
  auto const answer = [](int i) { return "It is " + std::to_string(i) + "."; };
  std::ofstream(dir / "alpaca_data.json") << rows_of([&](int i) {
    return json{{"instruction", question(i)}, {"input", i % 2 == 0 ? "" : "now"}, {"output", answer(i)}};
  });
  write_lines(dir / "databricks-dolly-15k.jsonl", rows_of([&](int i) {
                return json{{"instruction", question(i)},
                            {"context", ""},
                            {"response", answer(i)},
                            {"category", "kind " + std::to_string(i % 8)}};
              }));
  write_lines(dir / "gsm8k_train.jsonl", rows_of([&](int i) {
                return json{{"question", question(i)}, {"answer", "Count.\n#### " + std::to_string(i)}};
              }));
  for (std::string const language : {"python", "javascript", "java", "ruby", "php", "go"}) {
    auto const folder = dir / language / "final/jsonl/train";
    std::filesystem::create_directories(folder);
    write_lines(folder / (language + "_train_0.jsonl"), rows_of([&](int i) {
                  return json{{"docstring", question(i)}, {"code", answer(i)}, {"language", language}};
                }));
  }
  std::ofstream(dir / "rosetta_alpaca.json") << rows_of([&](int i) {
    return json{
        {"instruction", question(i)}, {"input", "Language " + std::to_string(i % 9)}, {"output", answer(i)}};
  });
}

void write_mmlu(std::filesystem::path const& data) {
  for (std::string const split : {"dev", "test"}) {
    std::filesystem::create_directories(data / "mmlu" / split);
    std::ofstream anatomy(data / "mmlu" / split / ("anatomy_" + split + ".csv"));
    std::ofstream law(data / "mmlu" / split / ("international_law_" + split + ".csv"));
    law << "question,choice0,choice1,choice2,choice3,answer\n";
    for (int i = 0; i < 7; ++i) {
      anatomy << fmt::format("what is {0},one,{0},three,four,{1}\n", i, "ABCD"[i % 3]);
      law << fmt::format("\"who, or what,\nis {0}\",a,\"b \"\"{0}\"\"\",c,d,{1}\n", i, i % 4);
    }
  }
}

void write_other_tasks(std::filesystem::path const& data) {
  for (auto const* folder : {"gsm8k", "text", "humaneval", "dolly"})
    std::filesystem::create_directories(data / folder);
  std::ofstream gsm(data / "gsm8k/test.jsonl"), words(data / "text/lambada_test.jsonl"),
      code(data / "humaneval/HumanEval.jsonl"), dolly(data / "dolly/test.jsonl"), own(data / "own.jsonl"),
      prompts(data / "prompts.jsonl"), net(data / "csn_test.jsonl");
  for (int i = 0; i < 9; ++i) {
    auto const n = std::to_string(i);
    gsm << json{{"question", "how many are " + n}, {"answer", "so\n#### " + n}}.dump() << "\n";
    words << json{{"text", "one two " + n + " four"}}.dump() << "\n";
    // What the model writes stands in a text that nobody reads.
    code << json{{"task_id", "T/" + n},
                 {"prompt", "def f():\n    return " + n + "\n\nignored = r\"\"\"\n"},
                 {"test", "\"\"\"\ndef check(f):\n    assert f() == " + std::to_string(i % 3) + "\n"},
                 {"entry_point", "f"}}
                .dump()
         << "\n";
    dolly << json{{"instruction", "say " + n},
                  {"context", ""},
                  {"response", n + " it is"},
                  {"category", i % 2 == 0 ? "open_qa" : "brainstorming"}}
                 .dump()
          << "\n";
    own << json{{"question", "is " + n}, {"choices", {"yes", "no"}}, {"answer", i % 2}}.dump() << "\n";
    prompts << json{{"prompt", "say " + n}, {"targets", n}, {"max_tokens", 5 + i}}.dump() << "\n";
    net << json{{"instruction", "say"}, {"input", n}, {"output", i % 2}, {"category", "go"}}.dump() << "\n";
  }
  std::ofstream(data / "notes.txt") << std::string(3000, 'x') << " and so on\n";
}

}  // namespace fsllm::test
