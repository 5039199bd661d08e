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

ReadCounts for_each_sample(DataConfig const& config, std::function<void(Sample&&)> const& row,
                           std::function<bool(int64_t record)> const& wanted) {
  auto const format = data_format(config.type, "data.type");
  auto const path = find_file(config, format);
  ReadCounts counts;
  int64_t records = 0, passed_over = 0;
  auto const is_wanted = [&] {
    bool const yes = !wanted || wanted(records);
    passed_over += yes ? 0 : 1;
    ++records;
    return yes;
  };
  auto const reject = [&](std::string const& why, RecordPlace const& place) {
    FSLLM_CHECK(config.on_bad_row == "skip", "{}:{}: {}. Correct the row, or set data.on_bad_row: skip.",
                place.file, place.line, why);
    if (++counts.bad <= kSkippedShown)
      log_warning("{}:{}: {}. The row is skipped.", place.file, place.line, why);
  };
  auto const read = [&](nlohmann::json const& record, RecordPlace const& place) {
    if (!is_wanted()) return;
    Sample sample;
    auto const why = read_sample(record, format, config, sample);
    if (!why.empty()) return reject(why, place);
    sample.place = fmt::format("{}:{}", place.file, place.line);
    sample.record = records - 1;
    ++counts.rows;
    row(std::move(sample));
  };
  auto const broken = [&](std::string const& why, RecordPlace const& place) {
    if (is_wanted()) reject(why, place);
  };
  for_each_json_record(path, read, broken);
  if (counts.bad > 0)
    log_warning("{}: {} bad rows skipped, {} read.", path.string(), counts.bad, counts.rows);
  FSLLM_CHECK(counts.rows + passed_over > 0, "{} has no rows (it is empty{}). Check the file.", path.string(),
              counts.bad > 0 ? ", or every row is bad" : "");
  return counts;
}

std::vector<Sample> read_samples(DataConfig const& config, int64_t* skipped) {
  std::vector<Sample> samples;
  auto const counts = for_each_sample(config, [&](Sample&& sample) { samples.push_back(std::move(sample)); });
  if (skipped != nullptr) *skipped = counts.bad;
  return samples;
}

}  // namespace fsllm
