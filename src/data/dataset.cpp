// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/dataset.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/parquet.hpp"

namespace fsllm {
namespace {

/// GSM8K marks the final number by "####".
void speak_answer(Sample& sample) {
  sample.output = replace_all(sample.output, "####", "The answer is");
}

/// FS-LLM's prompt for CodeSearchNet: the language, then what the function does.
void name_language(Sample& sample) {
  sample.instruction = sample.category + " " + sample.instruction;
}

/// FS-LLM leaves nine languages where each client has its own.
bool keep_rosetta(Sample const& sample, DataConfig const& config) {
  return config.splitter != "meta" || sample.category != "X86-64 Assembly";
}

DataFormat alpaca(std::string const& file, std::string const& source) {
  return {{file}, "instruction", "input", "output", "", source};
}

DataFormat dolly() {
  return {
      {"databricks-dolly-15k.jsonl"},
      "instruction",
      "context",
      "response",
      "category",
      "https://raw.githubusercontent.com/databrickslabs/dolly/d000e3030970379aabbf6d291f50ffdd3b715b64/data/"
      "databricks-dolly-15k.jsonl"};
}

DataFormat gsm8k() {
  return {{"gsm8k_train.jsonl", "train.jsonl"},
          "question",
          "",
          "answer",
          "",
          "https://raw.githubusercontent.com/openai/grade-school-math/"
          "3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/train.jsonl",
          speak_answer};
}

DataFormat rosetta() {
  return {{"rosetta_alpaca.json"},
          "instruction",
          "input",
          "output",
          "input",
          "https://raw.githubusercontent.com/sahil280114/codealpaca/"
          "d269da106a579a623a654529b3cb91b5dfa9c72f/data/rosetta_alpaca.json",
          nullptr,
          keep_rosetta};
}

DataFormat code_search_net() {
  return {{},
          "docstring",
          "language",
          "code",
          "language",
          "https://huggingface.co/datasets/code_search_net/resolve/main/data/ (python.zip, javascript.zip, "
          "java.zip, ruby.zip, php.zip, go.zip)",
          name_language,
          nullptr,
          {"python", "javascript", "java", "ruby", "php", "go"}};
}

bool has_ending(std::string const& name, std::initializer_list<char const*> endings) {
  for (auto const* ending : endings)
    if (name.ends_with(ending) || name.ends_with(std::string(ending) + ".gz")) return true;
  return false;
}

DataFormat own_file(std::string const& file) {
  DataFormat format{{file}, "instruction", "input", "output", "category"};
  format.custom = true;
  format.plain_text = has_ending(file, {".txt"});
  format.delimited = has_ending(file, {".csv", ".tsv"});
  return format;
}

}  // namespace

std::vector<Row<DataFormat>> const& data_formats() {
  static std::vector<Row<DataFormat>> const rows{
      {"alpaca@llm",
       alpaca("alpaca_data.json",
              "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/"
              "761dc5bfbdeeffa89b8bff5d038781a4055f796a/alpaca_data.json"),
       "Stanford Alpaca, 52K instructions"},
      {"alpaca_cleaned@llm",
       alpaca("alpaca_data_cleaned.json",
              "https://raw.githubusercontent.com/gururise/AlpacaDataCleaned/"
              "a7d629079a95c2e4b7ec7dfe55087fbd18d9eba8/alpaca_data_cleaned.json"),
       "Alpaca, cleaned"},
      {"dolly-15k@llm", dolly(), "Databricks Dolly, 15K instructions in 8 categories"},
      {"gsm8k@llm", gsm8k(), "Grade-school mathematics, 7.5K problems"},
      {"rosetta_alpaca@llm", rosetta(), "Rosetta code as instructions, by programming language"},
      {"code_search_net@llm", code_search_net(),
       "CodeSearchNet: functions by their description, 6 languages"},
  };
  return rows;
}

DataFormat data_format(std::string const& type, std::string const& key) {
  FSLLM_CHECK(!type.empty(),
              "data.type is not set (there is nothing to train on). Name a data set such as "
              "gsm8k@llm, or a .json, .jsonl, .csv, .tsv, .parquet or .txt file under data.root.");
  std::string const suffix = "@llm";
  auto const file = type.ends_with(suffix) ? type.substr(0, type.size() - suffix.size()) : type;
  FSLLM_CHECK(!has_ending(file, {".arrow"}),
              "{} = '{}' (Arrow files are not read; Parquet is). Convert it once, for example: python3 -c "
              "\"import datasets; datasets.Dataset.from_file('x.arrow').to_parquet('x.parquet')\", and name "
              "the .parquet file.",
              key, type);
  FSLLM_CHECK(!file.ends_with(".parquet.gz"),
              "{} = '{}' (Parquet is packed by itself, and not read inside gzip). Unpack it with gunzip, and "
              "name the .parquet file.",
              key, type);
  if (has_ending(file, {".parquet"})) need_parquet(fmt::format("{} = '{}'", key, type));
  if (has_ending(file, {".json", ".jsonl", ".txt", ".csv", ".tsv", ".parquet"})) return own_file(file);
  bool const names_file = !type.ends_with(suffix) && file.find_last_of("./") != std::string::npos;
  FSLLM_CHECK(
      !names_file,
      "{} = '{}' (no file of a kind that is read). Convert it to .json, .jsonl, .csv, .parquet or .txt, "
      "or name a data set such as gsm8k@llm.",
      key, type);
  return find_row(data_formats(), type, key).build;
}

bool subsampled_by_category(std::string const& type) {
  auto const& rows = data_formats();
  return std::any_of(rows.begin(), rows.end(),
                     [&](auto const& row) { return row.name == type && !row.build.parts.empty(); });
}

}  // namespace fsllm
