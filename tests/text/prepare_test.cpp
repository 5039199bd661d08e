// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/prepare.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/template.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using Ids = std::vector<int32_t>;
using Marks = std::vector<uint8_t>;

Sample text_sample(std::string const& instruction, std::string const& input, std::string const& output) {
  Sample sample;
  sample.instruction = instruction;
  sample.input = input;
  sample.output = output;
  sample.place = "x.jsonl:1";
  return sample;
}

Sample token_sample(Ids const& ids, Marks const& marks, std::string const& category = "") {
  Sample sample;
  sample.ids = ids;
  sample.is_target = marks;
  sample.is_tokens = true;
  sample.category = category;
  sample.place = "x.jsonl:1";
  return sample;
}

std::unique_ptr<Tokenizer> golden_tokenizer(std::string const& name) {
  return load_tokenizer(test::source_file("tests/text/golden/" + name));
}

TEST(Encode, GivesTheIdsAndMasksOfHuggingFace) {
  for (auto const* name : {"llama3", "mistral"}) {
    test::TempDir folder;
    auto const golden = test::source_file(std::string("tests/text/golden/") + name);
    std::filesystem::copy_file(golden / "tokenizer.json", folder / "tokenizer.json");
    if (std::string(name) == "llama3")
      write_file_atomic(folder / "tokenizer_config.json", R"({"eos_token":"<|end|>"})");
    auto const tokenizer = load_tokenizer(folder.path());
    for_each_json_record(golden / "prompts.jsonl", [&](nlohmann::json const& row, RecordPlace const& place) {
      SCOPED_TRACE(place.file + ":" + std::to_string(place.line));
      auto const encoded =
          encode_sample(text_sample(row.at("instruction"), row.at("input"), row.at("output")), DataConfig{},
                        tokenizer.get());
      EXPECT_EQ(encoded.ids, row.at("ids").get<Ids>());
      auto const scored = std::count(encoded.is_target.begin(), encoded.is_target.end(), 1);
      EXPECT_EQ(static_cast<int64_t>(encoded.ids.size()) - scored, row.at("prompt_tokens"));
      EXPECT_TRUE(std::is_sorted(encoded.is_target.begin(), encoded.is_target.end()));
    });
  }
}

TEST(Encode, ThePromptIsMaskedAndEosEndsTheAnswer) {
  for (auto const* name : {"llama2", "falcon", "sentencepiece_bpe"}) {
    auto const tokenizer = golden_tokenizer(name);
    auto const sample = text_sample("Count the sheep.", "12 sheep", " Twelve.");
    auto const prompt = find_prompt_template("alpaca")(sample);
    auto const encoded = encode_sample(sample, DataConfig{}, tokenizer.get());
    EXPECT_EQ(encoded.ids, tokenizer->encode(prompt + " Twelve.</s>")) << name;
    auto const scored = std::count(encoded.is_target.begin(), encoded.is_target.end(), 1);
    EXPECT_EQ(encoded.ids.size() - static_cast<size_t>(scored), tokenizer->encode(prompt).size()) << name;
    EXPECT_TRUE(std::is_sorted(encoded.is_target.begin(), encoded.is_target.end()));
  }
}

TEST(Encode, TextNeedsATokenizerWithEos) {
  EXPECT_ERROR(encode_sample(text_sample("i", "", "o"), DataConfig{}, nullptr),
               "x.jsonl:1: a text row (the model folder has no tokenizer.json");
  EXPECT_ERROR(encode_sample(text_sample("i", "", "o"), DataConfig{}, golden_tokenizer("gpt2").get()),
               "the tokenizer has no end-of-text token");
}

struct Cut {
  std::string policy;
  Ids before;
  Marks marks;
  Ids after;
  Marks marks_after;
};

TEST(Truncate, EachPolicyKeepsWhatItPromises) {
  // BOS is 1; four tokens are allowed.
  for (auto const& cut : std::vector<Cut>{
           {"prompt_left", {1, 2, 3, 4, 5, 6}, {0, 0, 0, 0, 1, 1}, {1, 4, 5, 6}, {0, 0, 1, 1}},
           {"prompt_left", {2, 3, 4, 5, 6}, {0, 0, 0, 1, 1}, {3, 4, 5, 6}, {0, 0, 1, 1}},
           {"prompt_left", {1, 2, 3, 4, 5, 6}, {0, 0, 1, 1, 1, 1}, {1, 3, 4, 5}, {0, 1, 1, 1}},
           {"prompt_left", {2, 3, 4, 5, 6, 7}, {0, 0, 1, 1, 1, 1}, {3, 4, 5, 6}, {0, 1, 1, 1}},
           {"prompt_left", {2, 3, 4, 5, 6}, {1, 1, 1, 1, 1}, {2, 3, 4, 5}, {1, 1, 1, 1}},
           {"prompt_left", {1, 2, 3, 4}, {0, 0, 0, 1}, {1, 2, 3, 4}, {0, 0, 0, 1}},
           {"answer_right", {1, 2, 3, 4, 5, 6}, {0, 0, 0, 1, 1, 1}, {1, 2, 3, 4}, {0, 0, 0, 1}},
           {"drop", {1, 2, 3, 4, 5, 6}, {0, 0, 0, 1, 1, 1}, {1, 2, 3, 4, 5, 6}, {0, 0, 0, 1, 1, 1}}}) {
    EncodedSample sample{cut.before, cut.marks};
    EXPECT_EQ(truncate_sample(sample, 4, cut.policy, 1), cut.before.size() > 4);
    EXPECT_EQ(sample.ids, cut.after) << cut.policy;
    EXPECT_EQ(sample.is_target, cut.marks_after) << cut.policy;
  }
}

TEST(MakeShard, CollectsPartsGroupsAndCounts) {
  DataConfig config;
  config.type = "x.jsonl";
  config.splitter = "iid";
  config.tok_len = 4;
  config.truncate = "answer_right";
  std::vector<Sample> const samples{token_sample({1, 2, 3}, {0, 1, 1}, "b"),
                                    token_sample({1, 2, 3, 4, 5}, {0, 0, 1, 1, 1}, "a"),
                                    token_sample({1, 2, 3, 4, 5}, {0, 0, 0, 0, 1}),
                                    token_sample({7, 8}, {1, 1}),
                                    token_sample({}, {}),
                                    token_sample({5}, {1})};
  PrepareCounts counts;
  auto const shard = make_shard(samples, {{0, 1, 2}, {3}, {4, 5}}, 3, config, nullptr, 10, 42, counts);
  EXPECT_EQ(shard.client_id, 3);
  EXPECT_EQ(shard.seed, 42);
  EXPECT_EQ(shard.dataset + shard.splitter + shard.prompt_template + shard.tokenizer_sha256, "x.jsonliid");
  EXPECT_EQ(shard.group_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(shard.train.tokens, (Ids{1, 2, 3, 1, 2, 3, 4}));
  EXPECT_EQ(shard.train.target, (Marks{0, 1, 1, 0, 0, 1, 1}));
  EXPECT_EQ(shard.train.offsets, (std::vector<int64_t>{0, 3, 7}));
  EXPECT_EQ(shard.train.group, (Ids{1, 0}));
  EXPECT_EQ(shard.val.group, (Ids{-1}));
  EXPECT_EQ(shard.test.rows(), 0);
  EXPECT_EQ(counts.rows, 3);
  EXPECT_EQ(counts.truncated, 1);
  EXPECT_EQ(counts.dropped_without_target, 3);
  config.truncate = "drop";
  make_shard(samples, {{0, 1, 2}, {}, {}}, 3, config, nullptr, 10, 42, counts);
  EXPECT_EQ(counts.dropped_too_long, 2);
  EXPECT_EQ(counts.rows, 4);
}

TEST(MakeShard, IdsBeyondTheModelsVocabularyAreRefused) {
  PrepareCounts counts;
  EXPECT_ERROR(
      make_shard({token_sample({1, 10}, {0, 1})}, {{0}, {}, {}}, 1, DataConfig{}, nullptr, 10, 0, counts),
      "x.jsonl:1: token id 10 (the model's vocabulary has 10)");
}

TEST(MakeShard, TextRowsNameTheirTokenizer) {
  auto const tokenizer = golden_tokenizer("llama2");
  DataConfig config;
  config.tok_len = 1000;
  PrepareCounts counts;
  auto const shard =
      make_shard({text_sample("i", "", "o")}, {{0}, {}, {}}, 1, config, tokenizer.get(), 1000, 0, counts);
  EXPECT_EQ(shard.tokenizer_sha256, tokenizer->sha256());
  EXPECT_EQ(shard.prompt_template, "alpaca");
  EXPECT_EQ(shard.tok_len, 1000);
  EXPECT_EQ(shard.train.tokens.front(), 1);
  EXPECT_EQ(shard.train.tokens.back(), 2);
}

}  // namespace
}  // namespace fsllm
