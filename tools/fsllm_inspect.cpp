// SPDX-License-Identifier: Apache-2.0
// Tells what a shard, checkpoint, adapter, model or run directory holds; turns texts into token ids and back.
#include <iostream>
#include <nlohmann/json.hpp>

#include "fsllm/app/command_line.hpp"
#include "fsllm/app/inspect.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/jsonl.hpp"

namespace {

using namespace fsllm;

Program const kProgram{
    "fsllm_inspect",
    "Tells what a shard, checkpoint, adapter, model or run directory holds.\n\n"
    "  fsllm_inspect PATH [--json]\n  fsllm_inspect RUN --report [--out FILE.html]\n  fsllm_inspect "
    "MODEL_DIR --tokenize IN.jsonl\n"
    "  fsllm_inspect ADAPTER --clients DIR [--weights N,N,...]\n"
    "  fsllm_inspect ADAPTER --compare ADAPTER [--model DIR --text TEXT]\n",
    {{"json", "", "one JSON object"},
     {"report", "", "PATH is a run directory: writes its report.html, also while it runs"},
     {"out", "FILE.html", "with --report: write the page there"},
     {"tokenize", "FILE.jsonl",
      "PATH is a model folder: rows {\"text\": S} become {\"ids\": [...]}, and {\"ids\": [...]} become "
      "{\"text\": S}"},
     {"clients", "DIR",
      "PATH is an adapter of LoRA: how far it is from the mean of those in DIR (client_00001, ...), as "
      "metrics.jsonl's aggregation_error, but exactly"},
     {"weights", "N,N,...", "weights of these, such as their training rows; default: all the same"},
     {"compare", "DIR",
      "PATH (a) and this one (b) are adapters: what only one of them holds, the size of LoRA's B, and how "
      "far apart "
      "what they add to the weights is, by layer"},
     {"model", "DIR", "with --compare and --text: the adapters' model"},
     {"text", "TEXT", "loss a token of this text by the model alone and with each of the two"}},
    Words::path};

void tokenize(std::string const& model, std::string const& rows) {
  TokenizeSession const session(model);
  for_each_json_record(rows, [&](nlohmann::json const& row, RecordPlace const& place) {
    std::cout << session.answer(row, place.text()) << '\n';
  });
}

int run(CommandLine const& line) {
  auto const& path = line.path;
  FSLLM_CHECK(!path.empty(), "no path given. See fsllm_inspect --help.");
  if (line.has("tokenize")) {
    tokenize(path, line.text("tokenize"));
    return 0;
  }
  FSLLM_CHECK(line.has("report") || !line.has("out"),
              "--out without --report (nothing else is written). Give both, or neither.");
  if (line.has("report")) {
    std::cout << "the report lies in " << printable(save_report(path, line.text("out")).string()) << '\n';
    return 0;
  }
  FSLLM_CHECK(line.has("clients") || !line.has("weights"),
              "--weights without --clients (there is nothing to weigh). Give both, or neither.");
  FSLLM_CHECK(line.has("model") == line.has("text") && (line.has("compare") || !line.has("text")),
              "--model and --text (they go together, and with --compare). Give all three, or neither.");
  FSLLM_CHECK(!line.has("compare") || !line.has("clients"),
              "--compare and --clients (one adapter beside another, or beside many). Give one.");
  if (!line.has("json") && !line.has("clients") && !line.has("compare")) {
    std::cout << printable(inspect_text(path));
    return 0;
  }
  auto facts = line.has("clients")   ? aggregation_error(path, line.text("clients"), line.numbers("weights"))
               : line.has("compare") ? compare_adapters(path, line.need("compare"))
                                     : inspect(path);
  if (line.has("text"))
    facts["loss_per_token"] = losses_on(line.need("model"), {path, line.need("compare")}, line.need("text"));
  std::cout << (line.has("json") ? facts.dump(2) + "\n" : printable(readable(facts)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = fsllm::start_program(kProgram, argc, argv);
  if (!start.line || fsllm::is_silent_rank()) return start.exit_code;
  try {
    return run(*start.line);
  } catch (std::exception const& error) {
    auto const [message, code] = fsllm::failure_of(error);
    std::cerr << "error: " << fsllm::printable(message) << std::endl;
    return code;
  }
}
