// SPDX-License-Identifier: Apache-2.0
// Tells what a shard, checkpoint, adapter, model or run directory holds; turns texts into token ids and back.
#include <boost/program_options.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "fsllm/app/inspect.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/jsonl.hpp"

namespace {

namespace po = boost::program_options;
using namespace fsllm;

po::options_description options() {
  po::options_description all("Options");
  auto add = all.add_options();
  add("json", "one JSON object");
  add("tokenize", po::value<std::string>()->value_name("IN.jsonl"),
      "PATH is a model folder: rows {\"text\": S} become {\"ids\": [...]}, and {\"ids\": [...]} become "
      "{\"text\": S}");
  add("help", "this text");
  return all;
}

void tokenize(std::string const& model, std::string const& rows) {
  TokenizeSession const session(model);
  for_each_json_record(rows, [&](nlohmann::json const& row, RecordPlace const& place) {
    std::cout << session.answer(row, place.text()) << '\n';
  });
}

int run(int argc, char** argv) {
  auto all = options();
  all.add_options()("path", po::value<std::string>());
  po::positional_options_description positional;
  positional.add("path", 1);
  po::variables_map values;
  try {
    po::store(po::command_line_parser(argc, argv).options(all).positional(positional).run(), values);
  } catch (po::error const& error) {
    fail(fmt::format("command line: {}. See fsllm_inspect --help.", error.what()));
  }
  if (argc == 1 || values.count("help") != 0) {
    std::cout << "Tells what a shard, checkpoint, adapter, model or run directory holds.\n\n"
                 "  fsllm_inspect PATH [--json]\n  fsllm_inspect MODEL_DIR --tokenize IN.jsonl\n\n"
              << options();
    return 0;
  }
  FSLLM_CHECK(values.count("path") != 0, "no path given. See fsllm_inspect --help.");
  auto const path = values["path"].as<std::string>();
  if (values.count("tokenize") != 0) {
    tokenize(path, values["tokenize"].as<std::string>());
    return 0;
  }
  auto const facts = inspect(path);
  std::cout << (values.count("json") != 0 ? facts.dump(2) + "\n" : printable(readable(facts)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  fsllm::prepare_process();
  try {
    return run(argc, argv);
  } catch (std::exception const& error) {
    auto const [message, code] = fsllm::failure_of(error);
    std::cerr << "error: " << fsllm::printable(message) << std::endl;
    return code;
  }
}
