// SPDX-License-Identifier: Apache-2.0
// Tokenises a data set once into one HDF5 shard a client.
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "fsllm/app/commands.hpp"
#include "fsllm/app/prepare_data.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/comm/cores.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/data/split_report.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/model/config.hpp"

namespace {

using namespace fsllm;

Program const kProgram{
    "fsllm_shard",
    "Tokenises a data set once into one HDF5 shard a client; runs under mpirun too.\n\n"
    "  fsllm_shard --cfg run.yaml --out DIR [KEY VALUE | KEY=VALUE]...\n"
    "  fsllm_shard --data gsm8k@llm --root DIR --model DIR --clients 4 --splitter iid --out DIR\n",
    {{"cfg", "FILE", "take everything from a run's configuration, or from example:NAME"},
     {"data", "NAME|FILE", "data.type: alpaca@llm, dolly-15k@llm, gsm8k@llm, rows.jsonl, ..."},
     {"root", "DIR", "data.root: the folder that holds the data"},
     {"model", "DIR", "model folder: its tokenizer and vocabulary"},
     {"clients", "N", "number of clients"},
     {"splitter", "S", "data.splitter: iid, lda, meta, natural, ..."},
     {"out", "DIR", "folder for the shards; an interrupted call with the same words goes on"},
     {"preview", "N",
      "show the first N rows as the model gets them, what it learns between « and »; write nothing"},
     {"set", "KEY=VALUE", "any other key of the configuration, as without --set; may be repeated", "", true}},
    Words::overrides};

struct Configuration {
  RunConfig run;
  std::string resolved;
};

Configuration configuration(CommandLine const& line, std::string const& yaml) {
  auto config = Config::parse(yaml, line.text("cfg"));
  for (auto const& [option, key] : {std::pair{"data", "data.type"},
                                    {"root", "data.root"},
                                    {"model", "model.type"},
                                    {"clients", "federate.client_num"},
                                    {"splitter", "data.splitter"}})
    if (line.has(option)) config.set(key, line.text(option));
  for (auto const& assignment : line.all("set")) {
    auto const equals = assignment.find('=');
    FSLLM_CHECK(equals != std::string::npos, "--set {} (KEY=VALUE is needed). Add the value.", assignment);
    config.set(assignment.substr(0, equals), assignment.substr(equals + 1));
  }
  for (auto const& [key, value] : line.overrides) config.set(key, value);
  auto run = load_run_config(config);
  run.data.shards.clear();
  return {run, config.dump()};
}

/// The text that the ids stand for, with « and » around what is scored.
std::string marked(EncodedSample const& row, Tokenizer const* tokenizer) {
  std::string text;
  for (size_t begin = 0; begin < row.ids.size();) {
    size_t end = begin;
    while (end < row.ids.size() && row.is_target[end] == row.is_target[begin]) ++end;
    std::vector<int32_t> const part(row.ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                    row.ids.begin() + static_cast<std::ptrdiff_t>(end));
    auto const words =
        tokenizer == nullptr ? fmt::format("{}", fmt::join(part, " ")) : tokenizer->decode(part);
    text += row.is_target[begin] != 0 ? "«" + words + "»" : words;
    begin = end;
  }
  return text;
}

/// Rank 0 shows the first rows of the data set.
void preview(PrepareJob const& job, int64_t count) {
  for_each_sample(
      job.data,
      [&](Sample&& sample) {
        PrepareCounts counts;
        auto const rows = prepare_rows(sample, job, counts);
        if (rows.empty())
          fmt::print("== {}: dropped ({})\n", sample.place,
                     counts.dropped_alike > 0 ? "cut to llm.tok_len, both answers are the same"
                                              : "longer than llm.tok_len, or without a scored token");
        for (size_t i = 0; i < rows.size(); ++i)
          fmt::print("== {}{}: {} tokens, {} scored{}\n{}\nids: {}\n", sample.place,
                     rows.size() == 1 ? ""
                     : i == 0         ? ", chosen"
                                      : ", rejected",
                     rows[i].ids.size(), std::count(rows[i].is_target.begin(), rows[i].is_target.end(), 1),
                     counts.truncated > 0 ? ", cut to llm.tok_len" : "", marked(rows[i], job.tokenizer),
                     marked(rows[i], nullptr));
      },
      [&](int64_t record) { return record < count; });
}

int64_t preview_rows(CommandLine const& line) {
  auto const count = line.number("preview", "a number of rows");
  FSLLM_CHECK(count > 0, "--preview 0 (there is nothing to show). Write --preview 3.");
  return count;
}

int shard(CommandLine const& line, Communicator const& world) {
  auto const out = line.text("out"), cfg = line.text("cfg");
  std::string yaml;
  agree(world, [&] {
    bool const writes = !line.has("preview");
    FSLLM_CHECK(!writes || !out.empty(),
                "--out is missing (no folder for the shards). See fsllm_shard --help.");
    FSLLM_CHECK(!writes || !std::filesystem::exists(std::filesystem::path(out) / "index.json"),
                "{} already holds shards. Remove them, or choose another --out.", out);
    if (world.rank() == 0 && !cfg.empty()) yaml = configuration_text(cfg);
  });
  world.broadcast(yaml, 0);
  Configuration config;
  Vocabulary vocabulary;
  PrepareJob job;
  agree(world, [&] {
    config = configuration(line, yaml);
    auto const model = resolve_model(config.run);
    vocabulary = load_vocabulary(config.run, model, load_model_config(model));
    config.run.data.prompt.model = model.string();
    job = {config.run.data, config.run.fed.seed, vocabulary.tokenizer.get(), vocabulary.size};
    job.prompt = make_prompt_template(job.data.prompt);
  });
  if (line.has("preview")) {
    agree(world, [&] {
      auto const count = preview_rows(line);
      if (world.rank() == 0) preview(job, count);
    });
    return 0;
  }
  take_cores(world);
  job.threads = preparing_threads();
  std::unique_ptr<OutputFolder> folder;
  agree(world, [&] {
    if (world.rank() == 0) folder = std::make_unique<OutputFolder>(out, FileAccess::owner_only);
  });
  auto const index =
      make_shards({job, config.run.fed.client_num, config.resolved}, {out, "", folder.get()}, world);
  if (world.rank() == 0) fmt::print("{}", printable(split_report(index)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = fsllm::start_program(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  return fsllm::run_program(argc, argv,
                            [&](fsllm::Communicator const& world) { return shard(*start.line, world); });
}
