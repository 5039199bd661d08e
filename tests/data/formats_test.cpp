// SPDX-License-Identifier: Apache-2.0
// Every data set as it is published, and every form that a user's own rows may have.
#include <nlohmann/json.hpp>

#include "data_fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/data/splitter.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/parquet.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

class Formats : public testing::Test {
 protected:
  Formats() { config_.root = folder_.path().string(); }
  void write(std::string const& name, std::string const& bytes) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    write_file_atomic(folder_ / name, bytes);
  }
  std::vector<Sample> read(std::string const& type) {
    config_.types = {type};
    return read_samples(config_);
  }
  /// The one row of a file that holds it.
  Sample read_row(std::string const& row) {
    write("x.jsonl", row);
    return read("x.jsonl").at(0);
  }
  test::TempDir folder_;
  DataConfig config_;
};

/// `count` functions of CodeSearchNet, with the fields that it has.
std::string functions(std::string const& language, int first, int count) {
  std::string text;
  for (int i = first; i < first + count; ++i)
    text += json{{"repo", "a/b"},
                 {"path", "f"},
                 {"func_name", "f"},
                 {"original_string", "f() {}"},
                 {"language", language},
                 {"code", "f" + std::to_string(i) + "() {}"},
                 {"code_tokens", {"f"}},
                 {"docstring", "Does " + std::to_string(i) + "."},
                 {"docstring_tokens", {"Does"}},
                 {"sha", "0"},
                 {"url", ""},
                 {"partition", "train"}}
                .dump() +
            "\n";
  return text;
}

/// LANG.zip as published: parts 0 to 10 of one function each, validation and test rows.
std::string archive(std::string const& language) {
  std::vector<std::pair<std::string, std::string>> files{
      {language + "/final/jsonl/valid/" + language + "_valid_0.jsonl.gz", test::gzip("broken")},
      {language + "/final/jsonl/test/" + language + "_test_0.jsonl.gz", test::gzip("broken")},
      {language + "_licenses.pkl", "x"}};
  for (int part = 0; part <= 10; ++part)
    files.emplace_back(
        language + "/final/jsonl/train/" + language + "_train_" + std::to_string(part) + ".jsonl.gz",
        test::gzip(functions(language, part, 1)));
  return test::zip(files);
}

TEST_F(Formats, CodeSearchNetIsReadInItsArchives) {
  for (auto const* language : {"python", "javascript", "java", "ruby", "php", "go"})
    write(std::string(language) + ".zip", archive(language));
  auto const rows = read("code_search_net@llm");
  ASSERT_EQ(rows.size(), 66U);
  EXPECT_EQ(rows[10].instruction, "python Does 10.");
  EXPECT_EQ(rows[10].input + rows[10].category, "pythonpython");
  EXPECT_EQ(rows[10].output, "f10() {}");
  EXPECT_THAT(rows[10].place,
              testing::EndsWith("python.zip:python/final/jsonl/train/python_train_10.jsonl.gz:1"));
  EXPECT_EQ(rows[11].category, "javascript");
  EXPECT_EQ(rows[65].category + std::to_string(rows[65].record), "go65");
}

TEST_F(Formats, CodeSearchNetUnpackedAsFsLlmHasIt) {
  write("python/final/jsonl/train/python_train_0.jsonl.gz", test::gzip(functions("python", 0, 3)));
  write("ruby/final/jsonl/train/ruby_train_0.jsonl", functions("ruby", 0, 2));
  write("ruby.zip", "not looked at");
  EXPECT_EQ(read("code_search_net@llm").size(), 5U);
}

TEST_F(Formats, SubsampleTakesAShareOfEachLanguage) {
  write("python/final/jsonl/train/python_train_0.jsonl", functions("python", 0, 200));
  write("go/final/jsonl/train/go_train_0.jsonl", functions("go", 0, 41));
  config_.subsample = 0.05;
  config_.splitter = "meta";
  config_.splits = {1.0, 0.0, 0.0};
  auto const plan = plan_split(row_table(read("code_search_net@llm")), config_, 2, 1);
  std::vector<size_t> const sizes{plan.clients[0].train.size(), plan.clients[1].train.size()};
  EXPECT_THAT(sizes, testing::UnorderedElementsAre(2U, 10U));
}

TEST_F(Formats, CodeSearchNetSaysWhichArchiveToPutWhere) {
  EXPECT_ERROR(read("code_search_net@llm"), "python.zip is missing (data.type = code_search_net@llm)");
  EXPECT_ERROR(read("code_search_net@llm"),
               "https://huggingface.co/datasets/code_search_net/resolve/main/data/");
  EXPECT_ERROR(read("code_search_net@llm"), "datasets/fetch.sh code_search_net does it");
}

TEST_F(Formats, RosettaGoesByLanguageAndMetaLeavesAssemblyOut) {
  write("rosetta_alpaca.json", R"([
 {"instruction":"Sort.","input":"Go","output":"a"},
 {"instruction":"Sort.","input":"X86-64 Assembly","output":"b"},
 {"instruction":"Sort.","input":"C++","output":"c"}])");
  config_.splitter = "iid";
  auto const rows = read("rosetta_alpaca@llm");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[1].input + "," + rows[1].category, "X86-64 Assembly,X86-64 Assembly");
  config_.splitter = "meta";
  auto const nine = read("rosetta_alpaca@llm");
  ASSERT_EQ(nine.size(), 2U);
  EXPECT_EQ(nine[1].category + nine[1].output, "C++c");
}

TEST_F(Formats, Chats) {
  auto const chat = read_row(
      R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}],"category":"c"})");
  EXPECT_EQ(chat.kind, SampleKind::chat);
  ASSERT_EQ(chat.messages.size(), 3U);
  EXPECT_EQ(chat.messages[2].role + chat.messages[2].content + chat.category, "assistantac");
  auto const share =
      read_row(R"({"id":"1","conversations":[{"from":"human","value":"u"},{"from":"gpt","value":"a"}]})");
  ASSERT_EQ(share.messages.size(), 2U);
  EXPECT_EQ(share.messages[0].role + share.messages[1].role, "userassistant");
}

TEST_F(Formats, PreferencesTrainOnTheChosenAnswer) {
  auto const texts = read_row(R"({"prompt":"p","chosen":"c","rejected":"r"})");
  EXPECT_EQ(texts.kind, SampleKind::instruction);
  EXPECT_EQ(texts.instruction + texts.output + texts.rejected, "pcr");
  auto const lists = read_row(
      R"({"prompt":[{"role":"user","content":"p"}],"chosen":[{"role":"assistant","content":"c"}],"rejected":[{"role":"assistant","content":"r"}]})");
  EXPECT_EQ(lists.kind, SampleKind::chat);
  ASSERT_EQ(lists.messages.size(), 2U);
  EXPECT_EQ(lists.messages[1].content + lists.rejected, "cr");
}

TEST_F(Formats, PairsOfAnswers) {
  config_.pairs = true;
  auto const texts = read_row(R"({"prompt":"p","chosen":"c","rejected":"r","category":"k"})");
  EXPECT_EQ(texts.instruction + texts.input + texts.output + texts.rejected + texts.category, "pcrk");
  auto const alpaca = read_row(R"({"instruction":"p","input":"i","chosen":"c","rejected":"r"})");
  EXPECT_EQ(alpaca.instruction + alpaca.input + alpaca.output + alpaca.rejected, "picr");
  auto const lists = read_row(
      R"({"chosen":[{"role":"user","content":"p"},{"role":"assistant","content":"c"}],"rejected":[{"role":"user","content":"p"},{"role":"assistant","content":"r"}]})");
  ASSERT_EQ(lists.messages.size(), 2U);
  EXPECT_EQ(lists.messages[1].content + lists.rejected, "cr");
  auto const tokens =
      read_row(R"({"prompt_input_ids":[1,2],"chosen_input_ids":[3],"rejected_input_ids":[4,5]})");
  EXPECT_EQ(tokens.ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(tokens.is_target, (std::vector<uint8_t>{0, 0, 1}));
  EXPECT_EQ(tokens.rejected_ids, (std::vector<int32_t>{1, 2, 4, 5}));
  EXPECT_EQ(tokens.rejected_is_target, (std::vector<uint8_t>{0, 0, 1, 1}));
}

TEST_F(Formats, PairsThatAreNone) {
  config_.pairs = true;
  auto const user = R"({"role":"user","content":"p"})", good = R"({"role":"assistant","content":"c"})",
             bad = R"({"role":"assistant","content":"r"})";
  for (auto const& [row, why] : std::vector<std::pair<std::string, std::string>>{
           {R"({"prompt":"p","chosen":"c"})", "field 'rejected' is missing"},
           {R"({"instruction":"p","output":"c"})", "field 'chosen' is missing"},
           {R"({"chosen":"c","rejected":"r"})", "field 'prompt' is missing"},
           {R"({"prompt":"p","chosen":"c","rejected":"c"})", "chosen and rejected are the same"},
           {R"({"prompt":"p","chosen":"c","rejected":3})",
            "field 'rejected' is not a text but a JSON number"},
           {fmt::format(R"({{"chosen":[{},{}],"rejected":[{},{}]}})", user, good, bad, bad),
            "chosen and rejected differ before their last message"},
           {fmt::format(R"({{"prompt":[{}],"chosen":[{}],"rejected":[{},{}]}})", user, good, user, bad),
            "chosen and rejected differ before their last message"},
           {fmt::format(R"({{"prompt":[{}],"chosen":[{}],"rejected":[{}]}})", user, good, good),
            "chosen and rejected are the same"},
           {fmt::format(R"({{"prompt":[{}],"chosen":[{}],"rejected":[{}]}})", user, user, good),
            "is no answer that is to be learnt"},
           {R"({"prompt_input_ids":[1],"chosen_input_ids":[3]})", "field 'rejected_input_ids' is missing"},
           {R"({"prompt_input_ids":[1],"chosen_input_ids":[3],"rejected_input_ids":[-1]})",
            "rejected_input_ids holds -1, which is no token id"},
           {R"({"prompt_input_ids":[1],"chosen_input_ids":[3],"rejected_input_ids":[3]})",
            "chosen and rejected are the same"}})
    EXPECT_ERROR(read_row(row), why);
}

TEST_F(Formats, PlainTextIsARowABlock) {
  write("x.txt",
        "\xEF\xBB\xBF"
        "One\r\ntwo.\r\n\r\n \t\n\nThree.\n\nFour");
  auto const rows = read("x.txt");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].kind, SampleKind::text);
  EXPECT_EQ(rows[0].output, "One\ntwo.");
  EXPECT_THAT(rows[1].place, testing::EndsWith("x.txt:6"));
  EXPECT_EQ(rows[2].output, "Four");
  write("y.txt.gz", test::gzip("a\n\nb\n"));
  EXPECT_EQ(read("y.txt").size(), 2U);
  auto const row = read_row(R"({"text":"whole"})");
  EXPECT_EQ(row.kind, SampleKind::text);
  EXPECT_EQ(row.output, "whole");
}

TEST_F(Formats, WildcardsNameSeveralFilesAndTheirClients) {
  std::string const row = R"({"instruction":"i","output":"o"})";
  for (auto const* name : {"part_10.jsonl", "part_2.jsonl", "other.jsonl"}) write(name, row);
  config_.splitter = "by_file";
  auto const rows = read("part_*.jsonl");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].owner + rows[1].owner, "part_2.jsonlpart_10.jsonl");
  EXPECT_EQ(rows[1].record, 1);
  EXPECT_ERROR(read("none_*.jsonl"),
               "none_*.jsonl (data.type = none_*.jsonl). Correct data.root or data.type.");
}

TEST_F(Formats, ArrowSaysHowToConvertIt) {
  EXPECT_ERROR(read("x.arrow"), "data.type = 'x.arrow' (Arrow files are not read; Parquet is)");
  EXPECT_ERROR(read("x.arrow"), "to_parquet('x.parquet')");
}

TEST_F(Formats, ParquetSaysHowToGetIt) {
  if (reads_parquet()) {
    EXPECT_ERROR(read("x.parquet"), "x.parquet is missing");
    return;
  }
  EXPECT_ERROR(read("x.parquet"), "data.type = 'x.parquet' (this program was built without Apache Arrow");
  EXPECT_ERROR(read("x.parquet"), "Run tools/bootstrap.sh --with-parquet and build again");
  EXPECT_ERROR(read("x.parquet"), "to_json('x.jsonl', orient='records', lines=True)");
  write("gsm8k_train.parquet", "any");
  EXPECT_ERROR(read("gsm8k@llm"), "gsm8k_train.parquet (this program was built without Apache Arrow");
}

TEST_F(Formats, UnwantedRecordsArePassedOverUnread) {
  write("x.jsonl",
        "broken\n"
        R"({"instruction":"i","output":"o"})"
        "\nbroken\n"
        R"({"text":"t"})");
  config_.types = {"x.jsonl"};
  std::vector<int64_t> records;
  auto const counts = for_each_sample(
      config_, [&](Sample&& sample) { records.push_back(sample.record); },
      [](int64_t record) { return record % 2 == 1; });
  EXPECT_EQ(records, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(counts.rows, 2);
  EXPECT_EQ(counts.bad, 0);
}

TEST_F(Formats, TablesWithColumnsUnderOtherNames) {
  config_.columns = {{"instruction", "Question"}, {"output", "Answer"}, {"category", "topic"}};
  write("faq.csv", "Question;Answer;topic\n\"Where; now?\";Here;a\nWhen?;\"Now,\nor later\";b\n");
  auto const rows = read("faq.csv");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].instruction, "Where; now?");
  EXPECT_EQ(rows[0].output, "Here");
  EXPECT_EQ(rows[0].category, "a");
  EXPECT_EQ(rows[1].output, "Now,\nor later");
  EXPECT_THAT(rows[1].place, testing::EndsWith("faq.csv:3"));
  write("faq.tsv.gz", test::gzip("Question\tAnswer\ttopic\nWhere?\tHere\ta\n"));
  EXPECT_EQ(read("faq.tsv").at(0).output, "Here");
  write("faq.jsonl", R"({"Question": "Where?", "Answer": "Here", "topic": "a"})");
  EXPECT_EQ(read("faq.jsonl").at(0).instruction, "Where?");
}

TEST_F(Formats, ARenamedColumnIsNotReadAsAnotherField) {
  config_.columns = {{"instruction", "prompt"}, {"output", "chosen"}, {"input", "history"}};
  auto const row = read_row(R"({"prompt": "p", "chosen": "c", "history": "h"})");
  EXPECT_EQ(row.kind, SampleKind::instruction);
  EXPECT_EQ(row.instruction, "p");
  EXPECT_EQ(row.input, "h");
  EXPECT_EQ(row.output, "c");
  config_.columns = {{"instruction", "output"}, {"output", "instruction"}};
  EXPECT_EQ(read_row(R"({"instruction": "i", "output": "o"})").instruction, "o");
  config_.columns = {{"category", "owner"}};
  config_.splitter = "natural";
  config_.natural_field = "owner";
  EXPECT_EQ(read_row(R"({"instruction": "i", "output": "o", "owner": "w"})").owner, "w");
}

TEST_F(Formats, SeveralFiles) {
  write("a.csv", "instruction,output\n1,a\n");
  write("b.jsonl", R"({"instruction": "2", "output": "b"})");
  config_.types = {"a.csv", "b.jsonl"};
  EXPECT_EQ(config_.type(), "a.csv,b.jsonl");
  auto const rows = read_samples(config_);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].output + rows[1].output, "ab");
}

TEST_F(Formats, AWrongNameIsAnsweredWithTheMapping) {
  auto const expect = [&](std::string const& row, std::string const& text) {
    write("x.jsonl", row);
    EXPECT_ERROR(read("x.jsonl"), text);
  };
  expect(R"({"question": "q", "answer": "a"})",
         "(the row has: answer, question). Write data.columns: {instruction: question, output: answer}.");
  expect(R"({"Prompt": "q", "Completion": "a", "context": "c"})",
         "Write data.columns: {instruction: Prompt, output: Completion, input: context}.");
  expect(R"({"a_task": "q", "b_result": "a", "n": 3})",
         "Write data.columns: {instruction: a_task, output: b_result}.");
  expect(R"({"instruction": "i"})", "field 'output' is missing (the row has: instruction). Correct the row");
  config_.pairs = true;
  expect(R"({"prompt": "p", "better": "b", "worse": "w"})",
         "Write data.columns: {chosen: better, rejected: worse}.");
  config_.pairs = false;
  config_.columns = {{"instruction", "frage"}, {"output", "answer"}};
  expect(R"({"question": "q", "answer": "a"})",
         "field 'frage' is missing (the row has: answer, question), which "
         "data.columns names");
  config_.columns = {{"input", "contxt"}};
  expect(R"({"instruction": "i", "output": "o"})", "no row of ");
}

TEST_F(Formats, BrokenTables) {
  auto const expect = [&](std::string const& table, std::string const& text) {
    write("x.csv", table);
    EXPECT_ERROR(read("x.csv"), text);
  };
  expect("", "has no rows (it is empty)");
  expect("instruction,output\n", "has no rows (it is empty)");
  expect("instruction,,output\na,b,c\n", "x.csv:1: column 2 is called '' (a column without name)");
  expect("instruction,output,output\na,b,c\n",
         "x.csv:1: column 3 is called 'output' (a name that stands twice)");
  expect("instruction,output\na,b,c\n", "x.csv:2: 3 fields, where the first line names 2. Correct the row");
  expect("instruction,output\n\"a,b\nc", "x.csv:2: a quote that is never closed");
  config_.on_bad_row = "skip";
  write("x.csv", "instruction,output\na\nb,c\n\"d\"e,f\ng,h\n");
  EXPECT_EQ(read("x.csv").size(), 2U);
}

}  // namespace
}  // namespace fsllm
