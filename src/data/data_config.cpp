// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/data_config.hpp"

#include <fmt/ranges.h>

#include <cmath>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/core/paths.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/data/loss_kind.hpp"
#include "fsllm/data/splitter.hpp"
#include "fsllm/text/template.hpp"

namespace fsllm {
namespace {

template <class Builder>
Constraint name_in(std::vector<Row<Builder>> const& table) {
  std::vector<std::string> names;
  for (auto const& row : table) names.push_back(row.name);
  return one_of(names);
}

struct ColumnDoc {
  char const *field, *doc;
};
constexpr ColumnDoc kColumns[] = {
    {"instruction", "Column (or JSON field) of your files with the question or task; empty: instruction"},
    {"input", "The same of what the task is about; empty: input"},
    {"output", "The same of the answer; empty: output"},
    {"category", "The same of what splitters go by; empty: category"},
    {"text", "The same of plain text to learn from; empty: text"},
    {"messages", "The same of a chat's list of role and content; empty: messages"},
    {"prompt", "train.loss dpo, reward: the same of the prompt; empty: prompt"},
    {"chosen", "The same of the better answer; empty: chosen"},
    {"rejected", "The same of the other answer; empty: rejected"},
};

void check_splits(Config const& config, std::vector<double> const& splits) {
  FSLLM_CHECK(splits.size() == 3,
              "{} has {} entries (the shares of train, val and test are three). Write three, e.g. "
              "[0.8, 0.1, 0.1].",
              config.where("data.splits"), splits.size());
  double const sum = std::accumulate(splits.begin(), splits.end(), 0.0);
  FSLLM_CHECK(std::abs(sum - 1) < 1e-6, "{} = {} (the shares add up to {}, not to 1). Correct them.",
              config.where("data.splits"), splits, sum);
}

void load_splitter(Config& config, DataConfig& data) {
  data.splitter = config.get("data.splitter", "iid",
                             "How samples are divided over clients. " + named_with_meaning(splitters()),
                             name_in(splitters()));
  data.alpha =
      config.get("data.splitter_args[0].alpha", 0.5,
                 "lda, inner_dirichlet: Dirichlet concentration; smaller is more skewed", more_than(0));
  data.lda_min_size =
      config.get("data.splitter_args[0].min_size", int64_t{1},
                 "lda: draw again until each client has this many training rows", at_least(0));
  data.natural_field = config.get("data.splitter_args[0].field", "",
                                  "natural: the JSON field whose every distinct value is a client");
  data.classes =
      config.get("data.splitter_args[0].classes", int64_t{2},
                 "pathological: pieces of the rows in order of category that each client gets", at_least(1));
  data.distribution = config.get("data.splitter_args[0].distribution", "lognormal",
                                 "quantity: how the sizes of clients are distributed",
                                 one_of({"linear", "power", "lognormal"}));
  data.spread = config.get("data.splitter_args[0].spread", 1.0,
                           "quantity: sigma of lognormal, or exponent of power", at_least(0));
  FSLLM_CHECK(data.splitter != "natural" || !data.natural_field.empty(),
              "{} = natural (data.splitter_args names no field). Add data.splitter_args: [{{field: NAME}}].",
              config.where("data.splitter"));
}

/// Keys of prompt_template custom and model. A given custom_template is meant to be used.
void load_custom_template(Config& config, DataConfig& data) {
  data.prompt.custom_prompt =
      config.get("data.custom_template.prompt", "",
                 "custom: text before the answer; {instruction}, {input} and {category} are "
                 "filled in, a brace is written twice");
  data.prompt.custom_prompt_no_input = config.get("data.custom_template.prompt_no_input", "",
                                                  "custom: the same for rows without input; empty: prompt");
  data.prompt.chat_template = config.get(
      "data.chat_template", "", "model: a Jinja file to use instead of the model's own chat template");
  data.prompt.date =
      config.get("data.template_date", kTemplateDate,
                 "Date that strftime_now gives to a chat template: shards must not depend on the "
                 "day on which they are made");
  FSLLM_CHECK(is_date(data.prompt.date), "{} = '{}' (a day is needed, as {}). Correct it.",
              config.where("data.template_date"), data.prompt.date, kTemplateDate);
  auto const place = config.where("data.prompt_template");
  bool const given = config.has("data.prompt_template");
  if (!given && !data.prompt.custom_prompt.empty()) data.prompt.name = "custom";
  if (!given && data.prompt.custom_prompt.empty() && !data.prompt.chat_template.empty())
    data.prompt.name = "model";
  config.set_resolved("data.prompt_template", data.prompt.name);
  FSLLM_CHECK(data.prompt.custom_prompt.empty() || data.prompt.name == "custom",
              "{} = {} (data.custom_template is given too). Set it to custom, or remove the other.", place,
              data.prompt.name);
  FSLLM_CHECK(data.prompt.chat_template.empty() || data.prompt.name == "model",
              "{} = {} (data.chat_template is given too). Set it to model, or remove the other.", place,
              data.prompt.name);
  if (data.prompt.name == "custom") make_prompt_template(data.prompt);
}

/// A name, or a list of files.
void load_types(Config& config, DataConfig& data) {
  auto const doc =
      "Name of a data set, or .json / .jsonl / .csv / .tsv / .parquet / .txt files under data.root (or where "
      "the program starts); wildcards and lists of files are allowed. " +
      named_with_meaning(data_formats());
  bool const is_list = config.is_list("data.type");
  if (is_list)
    data.types = get_paths(config, "data.type", doc);
  else if (auto const type = get_path(config, "data.type", "", doc); !type.empty())
    data.types = {type};
  config.describe_as("data.type", "string or list of string");
  FSLLM_CHECK(!is_list || !data.types.empty(), "{} = [] (no file is named). Name one, or leave it out.",
              config.where("data.type"));
}

void load_columns(Config& config, DataConfig& data) {
  for (auto const& [field, doc] : kColumns) {
    auto const column = config.get(std::string("data.columns.") + field, "", doc);
    if (column.empty())
      config.leave_out(std::string("data.columns.") + field);
    else
      data.columns.push_back({field, column});
  }
}

void check_type(Config const& config, DataConfig const& data, std::string const& type, LossKind loss) {
  auto const format = data_format(type, config.where("data.type"));
  FSLLM_CHECK(!data.pairs || (format.custom && !format.plain_text),
              "{} = {} (train.loss = {} learns from pairs of answers, and its rows have one). Name a .json, "
              ".jsonl, .csv or .parquet file whose rows have prompt, chosen and rejected, or set train.loss: "
              "causal_lm.",
              config.where("data.type"), type, name_of(loss));
  FSLLM_CHECK(data.types.size() == 1 || format.custom,
              "{}: {} in a list (a known data set is read by itself). Name it alone.",
              config.where("data.type"), type);
  FSLLM_CHECK(data.columns.empty() || (format.custom && !format.plain_text),
              "{} with data.type = {} ({}). Leave it out.",
              config.where("data.columns." + (data.columns.empty() ? "" : data.columns.front().field)), type,
              format.custom ? "a plain text has no columns" : "whose columns are known");
}

}  // namespace

std::string DataConfig::type() const {
  return fmt::format("{}", fmt::join(types, ","));
}

DataConfig load_data_config(Config& config) {
  DataConfig data;
  data.root = get_path(config, "data.root", "data", "Folder of the data files");
  load_types(config, data);
  load_columns(config, data);
  data.shards = get_path(config, "data.shards", "",
                         "Folder of ready client shards; empty: made from data.type at start");
  auto const loss = load_loss(config);
  data.pairs = learns_from_pairs(loss);
  if (data.shards.empty())
    for (auto const& type : data.types) check_type(config, data, type, loss);
  load_splitter(config, data);
  data.splits = config.get("data.splits", data.splits, "Shares of train, val and test; zeros are allowed",
                           within(0, 1));
  check_splits(config, data.splits);
  data.subsample =
      config.get("data.subsample", 1.0, "Share of the rows that is used, drawn by seed", within(0, 1));
  FSLLM_CHECK(data.subsample > 0, "{} = 0 (no row would be left). Set it above 0.",
              config.where("data.subsample"));
  data.on_bad_row = config.get("data.on_bad_row", "error", "What happens to a row that cannot be read",
                               one_of({"error", "skip"}));
  data.limits.record_bytes =
      config.get("data.max_line_bytes", data.limits.record_bytes,
                 "Longest line, or element of a JSON array, of a data file: what memory one row may ask for",
                 at_least(1));
  data.limits.file_bytes =
      config.get("data.max_file_bytes", data.limits.file_bytes,
                 "Most bytes of one data file, unpacked: what a packed file may ask time for", at_least(1));
  data.prompt.name =
      config.get("data.prompt_template", "alpaca",
                 "How instruction and input become a prompt. " + named_with_meaning(prompt_templates()),
                 name_in(prompt_templates()));
  load_custom_template(config, data);
  data.compat = config.get("compat.fsllm", false, "FS-LLM's behaviour where its results differ");
  data.truncate =
      config.get("data.truncate", "prompt_left",
                 "Samples above llm.tok_len: drop them, cut the prompt's begin, or cut the answer's end",
                 one_of({"drop", "prompt_left", "answer_right"}));
  if (data.compat && !config.has("data.truncate")) data.truncate = "answer_right";
  data.tok_len =
      config.get("llm.tok_len", int64_t{128}, "Longest sample (prompt and answer) in tokens", at_least(2));
  data.added_tokens = load_token_additions(config);
  data.added_tokens.fs_llm = data.compat;
  return data;
}

}  // namespace fsllm
