// SPDX-License-Identifier: Apache-2.0
// Answers OpenAI's completions and chat completions over HTTP with a model and its adapters.
#include <fmt/core.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/command_line.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/model/dtype.hpp"
#include "fsllm/serve/openai.hpp"

namespace {

using namespace fsllm;
using std::chrono::milliseconds;

Program const kProgram{
    "fsllm_serve",
    "Answers OpenAI's completions and chat completions over HTTP: docs/SERVING.md.\n\n"
    "  fsllm_serve --model DIR [--adapter NAME=DIR]... --port P\n"
    "  curl http://127.0.0.1:P/v1/models\n",
    {{"model", "DIR", "model, Hugging Face layout or a .gguf file; requests name it by its folder's name"},
     {"adapter", "NAME=DIR", "PEFT adapter that requests name NAME; may be repeated", "", true},
     {"port", "P", "port to listen on; 0: a free one, which is printed"},
     {"host", "ADDRESS", "address to listen on; other machines reach an address of the network", "127.0.0.1"},
     {"api_key_file", "FILE",
      "every request must bring the key in this file, or in the variable FSLLM_API_KEY, as a bearer token"},
     {"prompt_template", "NAME",
      "as data.prompt_template, for chats; the adapter's own, or the chat template in the model's files, "
      "where it is left out"},
     {"dtype", "TYPE", "type of activations: fp32, bf16 or fp16", "fp32"},
     {"storage_dtype", "TYPE", "type of the model's weights, as train.storage_dtype", "auto"},
     {"batch_rows", "N", "choices that run at once", "64"},
     {"batch_tokens", "N", "tokens in one forward pass", "2048"},
     {"queue", "N", "choices that may run or wait; more are told to come again (503)", "2048"}}};

constexpr milliseconds kGrace(3000), kLastMoment(5000);

std::atomic<bool> serving{false};

/// Ends the process once a signal has come, should a forward pass, the loading of a model or the end itself
/// last. Before it serves, nothing is worth finishing.
void end_in_time() {
  using Clock = std::chrono::steady_clock;
  while (!interrupted()) std::this_thread::sleep_for(milliseconds(50));
  auto const last = Clock::now() + kLastMoment;
  while (serving && Clock::now() < last) std::this_thread::sleep_for(milliseconds(50));
  std::_Exit(0);
}

std::string read_key(CommandLine const& line) {
  auto const* const variable = std::getenv("FSLLM_API_KEY");
  if (!line.has("api_key_file")) return variable == nullptr ? "" : variable;
  auto key = read_file(line.need("api_key_file"));
  key.erase(key.find_last_not_of(" \t\r\n") + 1);
  FSLLM_CHECK(!key.empty() && key.find_first_of("\r\n") == std::string::npos,
              "--api_key_file {} (one line with the key is needed). Correct it.", line.text("api_key_file"));
  return key;
}

ServedAdapter parse_adapter(std::string const& given) {
  auto const equals = given.find('=');
  FSLLM_CHECK(equals != std::string::npos && equals > 0 && equals + 1 < given.size(),
              "--adapter {} (requests name an adapter). Give NAME=DIR.", given);
  return {given.substr(0, equals), given.substr(equals + 1)};
}

/// The model in memory, and what requests can name.
struct Loaded {
  ModelSession session;
  std::vector<ServedModel> models;
};

Loaded load(CommandLine const& line) {
  LoadOptions options;
  options.storage_dtype = line.need("storage_dtype");
  options.compute_dtype = line.need("dtype");
  options.cache_dir = user_cache_dir();
  parse_dtype(options.compute_dtype, "--dtype");
  auto const dir = std::filesystem::path(line.need("model"));
  std::vector<ServedAdapter> adapters{{std::filesystem::absolute(dir / "").parent_path().filename(), {}}};
  for (auto const& given : line.all("adapter")) adapters.push_back(parse_adapter(given));
  for (size_t i = 0; i < adapters.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      FSLLM_CHECK(adapters[i].id != adapters[j].id,
                  "two models are called '{}' (requests name them). Give the adapter another name.",
                  adapters[i].id);
  Loaded loaded{ModelSession(dir, options), {}};
  for (auto const& adapter : adapters)
    loaded.models.push_back(serve_adapter(loaded.session, adapter, dir,
                                          template_for(line.text("prompt_template"), dir, adapter.dir)));
  return loaded;
}

int64_t positive(CommandLine const& line, char const* option) {
  auto const number = line.number(option);
  FSLLM_CHECK(number > 0, "--{} 0 (at least 1 is needed). Leave it out.", option);
  return number;
}

int serve(CommandLine const& line) {
  line.need("port");
  auto const port = line.number("port", "a port from 0 to 65535");
  FSLLM_CHECK(port <= 65535, "--port {} (a port from 0 to 65535 is needed). Choose one.", port);
  EngineOptions options;
  options.batch.most_rows = positive(line, "batch_rows");
  options.batch.most_tokens = positive(line, "batch_tokens");
  options.most_rows = positive(line, "queue");
  auto const host = line.need("host");
  auto server = std::make_unique<HttpServer>(host, static_cast<int>(port), read_key(line));
  auto loaded = load(line);
  Engine engine(loaded.session, loaded.models, options);
  server->start(openai_routes(loaded.models, engine));
  serving = true;
  std::string ids;
  for (auto const& model : loaded.models) ids += " " + model.id;
  log_info("serving{} at http://{}:{}/v1", ids, host.find(':') == std::string::npos ? host : "[" + host + "]",
           server->port());
  while (!interrupted()) std::this_thread::sleep_for(milliseconds(50));
  server->close();
  engine.stop(kGrace);
  server.reset();  // its threads read the models
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = start_program(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  set_signal_note("", OnSignal::deferred);
  std::thread(end_in_time).detach();  // static destructors take their time too
  return run_program_alone(argc, argv, kProgram.name,
                           [&](Communicator const&) { return serve(*start.line); });
}
