// SPDX-License-Identifier: Apache-2.0
// Tokenises a data set once into one HDF5 shard a client.
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "fsllm/app/commands.hpp"
#include "fsllm/app/prepare_data.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/data/split_report.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/model/config.hpp"

namespace {

namespace po = boost::program_options;
using namespace fsllm;

po::options_description options() {
  po::options_description all("Options");
  auto add = all.add_options();
  auto text = [](char const* name) { return po::value<std::string>()->value_name(name); };
  add("cfg", text("FILE"), "take everything from a run's configuration");
  add("data", text("NAME|FILE"), "data.type: alpaca@llm, dolly-15k@llm, gsm8k@llm, rows.jsonl, ...");
  add("root", text("DIR"), "data.root: the folder that holds the data");
  add("model", text("DIR"), "model folder: its tokenizer and vocabulary");
  add("clients", text("N"), "number of clients");
  add("splitter", text("S"), "data.splitter: iid, lda, meta, natural, ...");
  add("out", text("DIR"), "folder for the shards; an interrupted call with the same words goes on");
  add("preview", text("N"),
      "show the first N rows as the model gets them, what it learns between « and »; write nothing");
  add("set", po::value<std::vector<std::string>>()->value_name("KEY=VALUE"),
      "any other key of the configuration, as data.splits=[0.9,0.1,0]; may be repeated");
  add("help", "this text");
  return all;
}

po::variables_map parse(int argc, char** argv) {
  po::variables_map values;
  try {
    int const style = po::command_line_style::allow_long | po::command_line_style::long_allow_adjacent |
                      po::command_line_style::long_allow_next;
    po::store(po::command_line_parser(argc, argv).options(options()).style(style).run(), values);
  } catch (po::error const& error) {
    fail(fmt::format("command line: {}. See fsllm_shard --help.", error.what()));
  }
  return values;
}

std::string text_of(po::variables_map const& values, char const* name) {
  return values.count(name) != 0 ? values[name].as<std::string>() : "";
}

struct Configuration {
  RunConfig run;
  std::string resolved;
};

Configuration configuration(po::variables_map const& values, std::string const& yaml) {
  auto const cfg = text_of(values, "cfg");
  auto config = Config::parse(yaml, cfg);
  for (auto const& [option, key] : {std::pair{"data", "data.type"},
                                    {"root", "data.root"},
                                    {"model", "model.type"},
                                    {"clients", "federate.client_num"},
                                    {"splitter", "data.splitter"}})
    if (values.count(option) != 0) config.set(key, values[option].as<std::string>());
  if (values.count("set") != 0) {
    for (auto const& assignment : values["set"].as<std::vector<std::string>>()) {
      auto const equals = assignment.find('=');
      FSLLM_CHECK(equals != std::string::npos, "--set {} (KEY=VALUE is needed). Add the value.", assignment);
      config.set(assignment.substr(0, equals), assignment.substr(equals + 1));
    }
  }
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
  PrepareCounts counts;
  for_each_sample(
      job.data,
      [&](Sample&& sample) {
        auto const cut_before = counts.truncated;
        auto const row = prepare_sample(sample, job, counts);
        if (!row)
          return fmt::print("== {}: dropped (longer than llm.tok_len, or without a scored token)\n",
                            sample.place);
        fmt::print("== {}: {} tokens, {} scored{}\n{}\nids: {}\n", sample.place, row->ids.size(),
                   std::count(row->is_target.begin(), row->is_target.end(), 1),
                   counts.truncated > cut_before ? ", cut to llm.tok_len" : "", marked(*row, job.tokenizer),
                   marked(*row, nullptr));
      },
      [&](int64_t record) { return record < count; });
}

int64_t preview_rows(po::variables_map const& values) {
  auto const text = text_of(values, "preview");
  int64_t count = 0;
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), count);
  FSLLM_CHECK(problem == std::errc() && end == text.data() + text.size() && count > 0,
              "--preview {} (a number of rows is needed). Write --preview 3.", text);
  return count;
}

int shard(po::variables_map const& values, Communicator const& world) {
  auto const out = text_of(values, "out"), cfg = text_of(values, "cfg");
  std::string yaml;
  agree(world, [&] {
    bool const writes = values.count("preview") == 0;
    FSLLM_CHECK(!writes || !out.empty(),
                "--out is missing (no folder for the shards). See fsllm_shard --help.");
    FSLLM_CHECK(!writes || !std::filesystem::exists(std::filesystem::path(out) / "index.json"),
                "{} already holds shards. Remove them, or choose another --out.", out);
    if (world.rank() == 0 && !cfg.empty()) yaml = read_file(cfg);
  });
  world.broadcast(yaml, 0);
  Configuration config;
  Vocabulary vocabulary;
  PrepareJob job;
  agree(world, [&] {
    config = configuration(values, yaml);
    auto const model = resolve_model(config.run);
    vocabulary = load_vocabulary(config.run, model, load_model_config(model));
    config.run.data.prompt.model = model.string();
    job = {config.run.data, config.run.fed.seed, vocabulary.tokenizer.get(), vocabulary.size};
    job.prompt = make_prompt_template(job.data.prompt);
  });
  if (values.count("preview") != 0) {
    agree(world, [&] {
      auto const count = preview_rows(values);
      if (world.rank() == 0) preview(job, count);
    });
    return 0;
  }
  job.threads = preparing_threads(world);
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
  fsllm::prepare_process();
  return fsllm::run_program(argc, argv, [&](fsllm::Communicator const& world) {
    po::variables_map values;
    fsllm::agree(world, [&] { values = parse(argc, argv); });
    if (argc == 1 || values.count("help") != 0) {
      if (world.rank() == 0)
        std::cout << "Tokenises a data set once into one HDF5 shard a client; runs under mpirun too.\n\n"
                     "  fsllm_shard --cfg run.yaml --out DIR\n"
                     "  fsllm_shard --data gsm8k@llm --root DIR --model DIR --clients 4 --splitter iid --out "
                     "DIR\n\n"
                  << options();
      return 0;
    }
    return shard(values, world);
  });
}
