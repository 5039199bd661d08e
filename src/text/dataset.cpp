// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/dataset.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/utf8.hpp"
#include "sample_reader.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSkippedShown = 5;

/// GSM8K marks the final number by "####".
std::string spoken_answer(std::string const& text) {
  return replace_all(text, "####", "The answer is");
}

bool is_json_name(std::string const& name) {
  for (auto const* ending : {".json", ".jsonl", ".json.gz", ".jsonl.gz"})
    if (name.ends_with(ending)) return true;
  return false;
}

/// Data sets of FS-LLM that have no row in the table yet.
constexpr char const* kLaterDataSets[] = {"rosetta_alpaca@llm", "code_search_net@llm"};

fs::path find_file(DataConfig const& config, DataFormat const& format) {
  for (auto const& name : format.files)
    for (auto const* ending : {"", ".gz"})
      if (auto const path = fs::path(config.root) / (name + ending); fs::is_regular_file(path)) return path;
  fail(fmt::format("data file {} is missing (data.type = {}). {}",
                   (fs::path(config.root) / format.files.front()).string(), config.type,
                   format.source.empty()
                       ? std::string("Correct data.root or data.type.")
                       : fmt::format("Put it there under this name; it is published at {}.", format.source)));
}

}  // namespace

DataFormat data_format(std::string const& type, std::string const& key) {
  FSLLM_CHECK(!type.empty(),
              "data.type is not set (there is nothing to train on). Name a data set such as "
              "gsm8k@llm, or a .json or .jsonl file under data.root.");
  std::string const suffix = "@llm";
  auto const file = type.ends_with(suffix) ? type.substr(0, type.size() - suffix.size()) : type;
  if (is_json_name(file)) return {{file}, "instruction", "input", "output", "category", nullptr, ""};
  for (auto const* later : kLaterDataSets)
    FSLLM_CHECK(type != later,
                "{} = '{}' is not available in this version. Give its rows as a .json or .jsonl file "
                "with the fields instruction, input, output and category.",
                key, type);
  return find_row(data_formats(), type, key).build;
}

std::vector<Row<DataFormat>> const& data_formats() {
  static std::vector<Row<DataFormat>> const rows{
      {"alpaca@llm",
       {{"alpaca_data.json"},
        "instruction",
        "input",
        "output",
        "",
        nullptr,
        "https://github.com/tatsu-lab/stanford_alpaca"},
       "Stanford Alpaca, 52K instructions"},
      {"alpaca_cleaned@llm",
       {{"alpaca_data_cleaned.json"},
        "instruction",
        "input",
        "output",
        "",
        nullptr,
        "https://github.com/gururise/AlpacaDataCleaned"},
       "Alpaca, cleaned"},
      {"dolly-15k@llm",
       {{"databricks-dolly-15k.jsonl"},
        "instruction",
        "context",
        "response",
        "category",
        nullptr,
        "https://huggingface.co/datasets/databricks/databricks-dolly-15k"},
       "Databricks Dolly, 15K instructions in 8 categories"},
      {"gsm8k@llm",
       {{"gsm8k_train.jsonl", "train.jsonl"},
        "question",
        "",
        "answer",
        "",
        spoken_answer,
        "https://github.com/openai/grade-school-math (data/train.jsonl)"},
       "Grade-school mathematics, 7.5K problems"},
  };
  return rows;
}

std::vector<Sample> read_samples(DataConfig const& config, int64_t* skipped) {
  auto const format = data_format(config.type, "data.type");
  auto const path = find_file(config, format);
  std::vector<Sample> samples;
  int64_t bad = 0;
  auto const reject = [&](std::string const& why, RecordPlace const& place) {
    FSLLM_CHECK(config.on_bad_row == "skip", "{}:{}: {}. Correct the row, or set data.on_bad_row: skip.",
                place.file, place.line, why);
    if (++bad <= kSkippedShown) log_warning("{}:{}: {}. The row is skipped.", place.file, place.line, why);
  };
  auto const row = [&](nlohmann::json const& record, RecordPlace const& place) {
    Sample sample;
    auto const why = read_sample(record, format, config, sample);
    if (!why.empty()) return reject(why, place);
    sample.place = fmt::format("{}:{}", place.file, place.line);
    samples.push_back(std::move(sample));
  };
  for_each_json_record(path, row, reject);
  if (bad > 0) log_warning("{}: {} bad rows skipped, {} read.", path.string(), bad, samples.size());
  if (skipped != nullptr) *skipped = bad;
  FSLLM_CHECK(!samples.empty(), "{} has no rows (it is empty{}). Check the file.", path.string(),
              bad > 0 ? ", or every row is bad" : "");
  return samples;
}

}  // namespace fsllm
