// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/prepare.hpp"

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
  sample.kind = SampleKind::tokens;
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
          encode_sample(text_sample(row.at("instruction"), row.at("input"), row.at("output")),
                        make_prompt_template({}), tokenizer.get());
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
    auto const prompt = prompt_text(make_prompt_template({}), sample);
    auto const encoded = encode_sample(sample, make_prompt_template({}), tokenizer.get());
    EXPECT_EQ(encoded.ids, tokenizer->encode_beginning(prompt + " Twelve.</s>")) << name;
    auto const scored = std::count(encoded.is_target.begin(), encoded.is_target.end(), 1);
    EXPECT_EQ(encoded.ids.size() - static_cast<size_t>(scored), tokenizer->encode_beginning(prompt).size())
        << name;
    EXPECT_TRUE(std::is_sorted(encoded.is_target.begin(), encoded.is_target.end()));
  }
}

TEST(Encode, TextNeedsATokenizerWithEos) {
  EXPECT_ERROR(encode_sample(text_sample("i", "", "o"), make_prompt_template({}), nullptr),
               "x.jsonl:1: a text row (the model folder has no tokenizer.json");
  EXPECT_ERROR(
      encode_sample(text_sample("i", "", "o"), make_prompt_template({}), golden_tokenizer("gpt2").get()),
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

TEST(PrepareSample, CutsCountsAndDrops) {
  PrepareJob job;
  job.data.tok_len = 4;
  job.data.truncate = "answer_right";
  job.vocab_size = 10;
  PrepareCounts counts;
  EXPECT_EQ(prepare_sample(token_sample({1, 2, 3}, {0, 1, 1}), job, counts)->ids, (Ids{1, 2, 3}));
  auto const cut = prepare_sample(token_sample({1, 2, 3, 4, 5}, {0, 0, 1, 1, 1}), job, counts);
  EXPECT_EQ(cut->ids, (Ids{1, 2, 3, 4}));
  EXPECT_EQ(cut->is_target, (Marks{0, 0, 1, 1}));
  EXPECT_FALSE(prepare_sample(token_sample({1, 2, 3, 4, 5}, {0, 0, 0, 0, 1}), job, counts));
  EXPECT_FALSE(prepare_sample(token_sample({}, {}), job, counts));
  EXPECT_FALSE(prepare_sample(token_sample({5}, {1}), job, counts));
  EXPECT_EQ(counts.rows, 2);
  EXPECT_EQ(counts.truncated, 1);
  EXPECT_EQ(counts.dropped_without_target, 3);
  job.data.truncate = "drop";
  EXPECT_FALSE(prepare_sample(token_sample({1, 2, 3, 4, 5}, {0, 0, 0, 0, 1}), job, counts));
  EXPECT_EQ(counts.dropped_too_long, 1);
  EXPECT_ERROR(prepare_sample(token_sample({1, 10}, {0, 1}), job, counts),
               "x.jsonl:1: token id 10 (the model's vocabulary has 10)");
}

Sample token_pair(Ids const& prompt, Ids const& chosen, Ids const& rejected) {
  auto const with = [&](Ids const& answer) {
    auto ids = prompt;
    ids.insert(ids.end(), answer.begin(), answer.end());
    return ids;
  };
  Marks marks(prompt.size(), 0), rejected_marks = marks;
  marks.resize(prompt.size() + chosen.size(), 1);
  rejected_marks.resize(prompt.size() + rejected.size(), 1);
  auto sample = token_sample(with(chosen), marks);
  sample.rejected_ids = with(rejected);
  sample.rejected_is_target = rejected_marks;
  return sample;
}

/// Both answers of a pair follow the same tokens, however long they are.
TEST(PrepareRows, APairIsCutAsOne) {
  PrepareJob job;
  job.data.pairs = true;
  job.data.tok_len = 5;
  job.vocab_size = 20;
  PrepareCounts counts;
  auto const ids_of = [&](Sample const& sample) {
    std::vector<Ids> ids;
    for (auto const& row : prepare_rows(sample, job, counts)) ids.push_back(row.ids);
    return ids;
  };
  using Rows = std::vector<Ids>;
  EXPECT_EQ(ids_of(token_pair({1, 2}, {3}, {4, 5})), (Rows{{1, 2, 3}, {1, 2, 4, 5}}));
  EXPECT_EQ(counts.truncated, 0);
  EXPECT_EQ(ids_of(token_pair({1, 2, 3, 4}, {5}, {6, 7, 8})), (Rows{{3, 4, 5}, {3, 4, 6, 7, 8}}));
  EXPECT_EQ(ids_of(token_pair({1, 2}, {5}, {6, 7, 8, 9, 10})), (Rows{{2, 5}, {2, 6, 7, 8, 9}}));
  EXPECT_EQ(ids_of(token_pair({1, 2}, {5, 5, 5, 5, 6}, {5, 5, 5, 5, 7})), Rows{}) << "alike once cut";
  EXPECT_EQ(ids_of(token_pair({}, {5}, {6, 7})), Rows{}) << "nothing before the first token";
  EXPECT_EQ(std::tie(counts.rows, counts.truncated, counts.dropped_alike, counts.dropped_without_target),
            std::make_tuple(3, 2, 1, 1));
  job.data.truncate = "answer_right";
  EXPECT_EQ(ids_of(token_pair({1, 2, 3, 4}, {5}, {6, 7, 8})), (Rows{{1, 2, 3, 4, 5}, {1, 2, 3, 4, 6}}));
  EXPECT_EQ(ids_of(token_pair({1, 2, 3, 4, 5}, {5}, {6, 7, 8})), Rows{}) << "no answer left";
  job.data.truncate = "drop";
  EXPECT_EQ(ids_of(token_pair({1, 2, 3, 4}, {5}, {6, 7, 8})), Rows{});
  EXPECT_EQ(counts.dropped_too_long, 1);
}

/// 60 token rows of lengths 2 to 8 in a file, three categories, one row that is dropped.
class WriteShards : public testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 60; ++i) {
      std::vector<int> ids(static_cast<size_t>(2 + i % 7), i % 50), labels = ids;
      labels[0] = -100;
      if (i == 7) labels.assign(labels.size(), -100);
      nlohmann::json row{{"input_ids", ids}, {"labels", labels}};
      if (i % 4 > 0) row["category"] = "c" + std::to_string(i % 4);
      text += row.dump() + "\n";
    }
    write_file_atomic(dir_ / "rows.jsonl", text);
    job_.data.root = dir_.path().string();
    job_.data.types = {"rows.jsonl"};
    job_.data.splitter = "lda";
    job_.data.tok_len = 6;
    job_.data.truncate = "answer_right";
    job_.vocab_size = 50;
    job_.seed = 3;
    job_.prompt = make_prompt_template(job_.data.prompt);
    table_ = row_table(read_samples(job_.data));
    plan_ = plan_split(table_, job_.data, 4, 3);
    server_ = {{}, plan_.server.val, plan_.server.test};
  }
  std::vector<ShardTask> tasks(std::filesystem::path const& out) const {
    std::filesystem::create_directories(out);
    std::vector<ShardTask> all{{shard_path(out, 0), 0, &server_}};
    for (size_t k = 0; k < 4; ++k)
      all.push_back(
          {shard_path(out, static_cast<int64_t>(k) + 1), static_cast<int64_t>(k) + 1, &plan_.clients[k]});
    return all;
  }
  test::TempDir dir_;
  PrepareJob job_;
  RowTable table_;
  SplitPlan plan_;
  SplitPlan::Parts server_;
};

TEST_F(WriteShards, HoldTheRowsOfThePlanInTheOrderOfTheFile) {
  PrepareCounts counts;
  auto const summaries = write_shards(tasks(dir_ / "a"), table_, job_, counts);
  auto const samples = read_samples(job_.data);
  ASSERT_EQ(summaries.size(), 5U);
  for (size_t k = 0; k < 4; ++k) {
    auto const shard = read_shard(shard_path(dir_ / "a", static_cast<int64_t>(k) + 1));
    EXPECT_EQ(shard.client_id, static_cast<int64_t>(k) + 1);
    EXPECT_EQ(shard.splitter + shard.dataset, "ldarows.jsonl");
    Ids expected;
    std::vector<std::string> groups;
    PrepareCounts ignored;
    for (int64_t const row : plan_.clients[k].train) {
      auto const prepared = prepare_sample(samples[static_cast<size_t>(row)], job_, ignored);
      if (!prepared) continue;
      expected.insert(expected.end(), prepared->ids.begin(), prepared->ids.end());
      groups.push_back(samples[static_cast<size_t>(row)].category);
    }
    EXPECT_EQ(shard.train.tokens, expected);
    ASSERT_EQ(shard.train.group.size(), groups.size());
    for (size_t i = 0; i < groups.size(); ++i)
      EXPECT_EQ(shard.train.group[i] < 0 ? "" : shard.group_names[static_cast<size_t>(shard.train.group[i])],
                groups[i]);
    EXPECT_EQ(summaries[k + 1].train.rows, shard.train.rows());
    EXPECT_EQ(summaries[k + 1].sha256, sha256_file(shard_path(dir_ / "a", static_cast<int64_t>(k) + 1)));
  }
  EXPECT_EQ(counts.rows, 59);
  EXPECT_EQ(counts.dropped_without_target, 1);
  EXPECT_EQ(counts.truncated, 16);
}

TEST_F(WriteShards, BytesDependOnNeitherThreadsNorCompany) {
  PrepareCounts counts;
  auto const together = write_shards(tasks(dir_ / "a"), table_, job_, counts);
  job_.threads = 3;
  auto const all = tasks(dir_ / "b");
  for (size_t i = 0; i < all.size(); ++i)
    EXPECT_EQ(write_shards({all[i]}, table_, job_, counts).at(0).sha256, together[i].sha256) << i;
}

TEST_F(WriteShards, CompatKeepsTheOrderOfTheSplit) {
  job_.data.compat = true;
  plan_ = plan_split(table_, job_.data, 4, 3);
  PrepareCounts counts;
  write_shards(tasks(dir_ / "a"), table_, job_, counts);
  auto const samples = read_samples(job_.data);
  Ids first;
  for (int64_t const row : plan_.clients[0].train)
    if (row != 7) first.push_back(samples[static_cast<size_t>(row)].ids[0]);
  auto const shard = read_shard(shard_path(dir_ / "a", 1));
  Ids found;
  for (int64_t i = 0; i < shard.train.rows(); ++i)
    found.push_back(shard.train.tokens[static_cast<size_t>(shard.train.offsets[static_cast<size_t>(i)])]);
  EXPECT_EQ(found, first);
  EXPECT_FALSE(std::is_sorted(plan_.clients[0].train.begin(), plan_.clients[0].train.end()));
}

}  // namespace
}  // namespace fsllm
