// SPDX-License-Identifier: Apache-2.0
// Tokenises a data set once into one HDF5 shard a client.
#include <boost/program_options.hpp>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "fsllm/app/commands.hpp"
#include "fsllm/app/prepare_data.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/core/log.hpp"
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
  add("splitter", text("S"), "data.splitter: iid, lda, meta, natural");
  add("out", text("DIR"), "folder for the shards");
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

RunConfig configuration(po::variables_map const& values, std::string const& yaml) {
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
  return run;
}

int shard(po::variables_map const& values, Communicator const& world) {
  auto const out = text_of(values, "out"), cfg = text_of(values, "cfg");
  std::string yaml;
  agree(world, [&] {
    FSLLM_CHECK(!out.empty(), "--out is missing (no folder for the shards). See fsllm_shard --help.");
    FSLLM_CHECK(!std::filesystem::exists(std::filesystem::path(out) / "index.json"),
                "{} already holds shards. Remove them, or choose another --out.", out);
    if (world.rank() == 0 && !cfg.empty()) yaml = read_file(cfg);
  });
  world.broadcast(yaml, 0);
  RunConfig run;
  std::unique_ptr<Tokenizer> tokenizer;
  int64_t vocab_size = 0;
  agree(world, [&] {
    run = configuration(values, yaml);
    auto const model = resolve_model(run);
    vocab_size = load_model_config(model).vocab_size;
    if (has_tokenizer(model)) tokenizer = load_tokenizer(model);
  });
  auto const index =
      make_shards({run.data, run.fed.client_num, run.fed.seed, tokenizer.get(), vocab_size}, out, world);
  if (world.rank() != 0) return 0;
  fmt::print("{:>8} {:>10} {:>12} {:>8} {:>8}\n", "client", "rows", "tokens", "val", "test");
  for (auto const& client : index.clients)
    fmt::print("{:>8} {:>10} {:>12} {:>8} {:>8}\n", client.client_id, client.train.rows, client.train.tokens,
               client.val.rows, client.test.rows);
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
