// SPDX-License-Identifier: Apache-2.0
// Talks with a model and an adapter in the terminal.
#include <fmt/core.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <iostream>

#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/command_line.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/eval/continuation.hpp"
#include "fsllm/model/dtype.hpp"
#include "fsllm/model/running_batch.hpp"
#include "fsllm/serve/served_model.hpp"

namespace {

using namespace fsllm;

Program const kProgram{
    "fsllm_chat",
    "Talks with a model and an adapter; the answer is shown while it is made.\n\n"
    "  fsllm_chat --model DIR [--adapter DIR]                    (/reset forgets the talk, /quit or Ctrl-D "
    "ends)\n"
    "  fsllm_chat --model DIR [--adapter DIR] --prompt TEXT      (one answer on standard output)\n",
    {{"model", "DIR", "model, Hugging Face layout or a .gguf file"},
     {"adapter", "DIR", "PEFT adapter"},
     {"prompt", "TEXT", "answer this and end"},
     {"system", "TEXT", "what the model is told before the talk; chat templates alone"},
     {"prompt_template", "NAME",
      "as data.prompt_template; the adapter's own, or the chat template in the model's files, where it is "
      "left out"},
     {"history", "N", "exchanges before the question that the model sees again; fewer where they do not fit",
      "10"},
     {"max_tokens", "N", "tokens of an answer at most", "256"},
     {"temperature", "T", "0 is greedy, above 0 draws", "0"},
     {"top_k", "K", "draws among the K most likely tokens; 0: all", "0"},
     {"top_p", "P", "draws among the fewest tokens that together have this probability", "1"},
     {"repetition_penalty", "R", "above 1: tokens that were there before become less likely", "1"},
     {"seed", "N", "of what is drawn", "0"},
     {"dtype", "TYPE", "type of activations: fp32, bf16 or fp16", "fp32"},
     {"storage_dtype", "TYPE", "type of the model's weights, as train.storage_dtype", "auto"},
     {"use_gpu", "auto|True|False", "as use_gpu of a run", "auto"}}};

double decimal(CommandLine const& line, char const* option) {
  auto const numbers = line.numbers(option);
  FSLLM_CHECK(numbers.size() == 1, "--{} {} (one number is needed). Correct it.", option, line.text(option));
  return numbers.front();
}

/// The settings of the command line, without a prompt.
GenerateRow row_of(CommandLine const& line) {
  GenerateRow row;
  row.max_tokens = line.number("max_tokens");
  row.temperature = decimal(line, "temperature");
  row.seed = static_cast<uint64_t>(line.number("seed"));
  row.top_k = line.number("top_k");
  row.top_p = decimal(line, "top_p");
  row.repetition_penalty = decimal(line, "repetition_penalty");
  FSLLM_CHECK(row.max_tokens > 0, "--max_tokens 0 (an answer needs a token). Leave it out, or write 256.");
  FSLLM_CHECK(row.top_p > 0 && row.top_p <= 1,
              "--top_p {} (a probability in (0, 1]). Leave it out for all tokens.", row.top_p);
  FSLLM_CHECK(row.repetition_penalty > 0, "--repetition_penalty 0 (1 is none). Leave it out.");
  return row;
}

/// Puts what may be shown of a growing text on standard output.
class Screen {
 public:
  void show(std::string const& text) {
    if (text.size() <= shown_) return;
    std::cout << text.substr(shown_) << std::flush;
    shown_ = text.size();
  }

 private:
  size_t shown_ = 0;
};

class Talk {
 public:
  Talk(CommandLine const& line, ModelSession& session)
      : model_(serve_adapter(
            session, {"model", line.text("adapter")}, line.need("model"),
            template_for(line.text("prompt_template"), line.need("model"), line.text("adapter")))),
        settings_(row_of(line)),
        history_(line.number("history")),
        batch_(session.model(), {.most_rows = 1, .stop_ids = model_.stop_ids}) {
    FSLLM_CHECK(model_.tokenizer != nullptr,
                "{} holds no tokenizer (a talk is text). Put tokenizer.json or tokenizer.model there.",
                line.need("model"));
    FSLLM_CHECK(
        model_.prompt.has_value(),
        "{} has no chat template. Give --prompt_template: plain, alpaca, chatml, vicuna, llama-2-chat, "
        "llama-3 or mistral-instruct.",
        line.need("model"));
    if (!line.has("system")) return;
    FSLLM_CHECK(model_.prompt->chat != nullptr,
                "--system (the prompt template {} is no chat and has no place for it). Leave it out.",
                model_.prompt->name);
    system_.push_back({"system", line.text("system")});
  }

  void forget() { exchanges_.clear(); }

  /// Writes the answer to standard output while it comes.
  void ask(std::string const& question) {
    auto row = settings_;
    row.prompt = prompt_ids(question);
    auto const number = batch_.join(row);
    Screen screen;
    std::vector<int32_t> ids;
    while (!batch_.idle()) {
      if (interrupted()) batch_.leave(number);
      for (auto const& event : batch_.step())
        if (event.token) ids.push_back(*event.token);
      screen.show(lasting_text(*model_.tokenizer, ids, {}));
    }
    auto const answer = text_before_stop(*model_.tokenizer, ids, {});
    screen.show(answer);
    std::cout << "\n" << std::flush;
    exchanges_.emplace_back(question, answer);
    if (std::ssize(exchanges_) > history_) exchanges_.pop_front();
  }

 private:
  /// With the oldest exchanges left out until the answer has room.
  std::vector<int32_t> prompt_ids(std::string const& question) {
    auto const room = model_.max_positions - settings_.max_tokens;
    for (;;) {
      auto ids = encoded(question);
      if (std::ssize(ids) <= room) return ids;
      FSLLM_CHECK(
          !exchanges_.empty(),
          "a question of {} tokens with an answer of {} (the model has {} positions). Shorten it, or lower "
          "--max_tokens.",
          ids.size(), settings_.max_tokens, model_.max_positions);
      exchanges_.pop_front();
    }
  }

  std::vector<int32_t> encoded(std::string const& question) const {
    if (!model_.prompt->chat) return model_.tokenizer->encode_beginning(as_text(question));
    auto messages = system_;
    for (auto const& [asked, answered] : exchanges_) {
      messages.push_back({"user", asked});
      messages.push_back({"assistant", answered});
    }
    messages.push_back({"user", question});
    return model_.tokenizer->encode(chat_prompt(*model_.prompt, messages, *model_.tokenizer), false);
  }

  /// One prompt behind the other with its answer, as FS-LLM's chat has them.
  std::string as_text(std::string const& question) const {
    auto const prompt_of = [&](std::string const& text) {
      Sample sample;
      sample.instruction = text;
      return prompt_text(*model_.prompt, sample);
    };
    std::string text;
    for (auto const& [asked, answered] : exchanges_) text += prompt_of(asked) + answered + "\n\n";
    return text + prompt_of(question);
  }

  ServedModel model_;
  GenerateRow settings_;
  int64_t history_;
  RunningBatch batch_;
  std::vector<ChatMessage> system_;
  std::deque<std::pair<std::string, std::string>> exchanges_;
};

void talk(Talk& talk) {
  bool const terminal = isatty(STDIN_FILENO) != 0;
  for (std::string line, buffer; !interrupted();) {
    if (terminal) std::cout << "> " << std::flush;
    if (!std::getline(std::cin, line) || line == "/quit") break;
    if (line == "/reset")
      talk.forget();
    else if (!line.empty())
      talk.ask(std::string(valid_utf8(line, buffer)));
  }
  if (terminal) std::cout << "\n";
}

int chat(CommandLine const& line, Communicator const& world) {
  LoadOptions load;
  load.storage_dtype = line.need("storage_dtype");
  load.compute_dtype = line.need("dtype");
  load.cache_dir = user_cache_dir();
  parse_dtype(load.compute_dtype, "--dtype");
  load.device = choose_device(parse_use_gpu(line.need("use_gpu"), "--use_gpu"), world).device;
  ModelSession session(line.need("model"), load);
  Talk exchange(line, session);
  if (line.has("prompt"))
    exchange.ask(line.need("prompt"));
  else
    talk(exchange);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = start_program(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  set_signal_note("", OnSignal::deferred);
  return run_program_alone(argc, argv, kProgram.name,
                           [&](Communicator const& world) { return chat(*start.line, world); });
}
