// SPDX-License-Identifier: Apache-2.0
// Merges an adapter into its base model and writes the whole as a Hugging Face folder.
#include <filesystem>
#include <iostream>

#include "fsllm/app/command_line.hpp"
#include "fsllm/app/merge.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/io/output_folder.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace {

using namespace fsllm;

Program const kProgram{
    "fsllm_export",
    "Merges an adapter into its base model.\n\n  fsllm_export --model DIR --adapter DIR --merge --out DIR\n",
    {{"model", "DIR", "base model, Hugging Face layout or a .gguf file"},
     {"adapter", "DIR", "PEFT adapter"},
     {"merge", "", "write the base model with the adapter merged into its weights"},
     {"out", "DIR", "folder to write"},
     {"dtype", "TYPE", "type to write: fp32, bf16 or fp16", "fp32"},
     {"storage_dtype", "TYPE",
      "train.storage_dtype of the run: with int8 or nf4 the adapter is merged into the quantised weights, "
      "which is the model that was trained; auto: into those of the file",
      "auto"}}};

int export_model(CommandLine const& line) {
  auto const model_dir = line.need("model"), adapter_dir = line.need("adapter"), out = line.need("out");
  FSLLM_CHECK(line.has("merge"),
              "--merge is missing (an adapter folder already is in PEFT format, there is nothing else to "
              "export). Add it.");
  FSLLM_CHECK(!std::filesystem::exists(std::filesystem::path(out) / "config.json"),
              "{} already holds a model. Choose another --out.", out);
  OutputFolder folder(out);
  folder.check_free({"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"});
  auto const made = folder.fresh_folder();
  save_merged({model_dir, adapter_dir, line.text("dtype"), line.text("storage_dtype"), user_cache_dir()},
              made);
  folder.move_in(made, "", {"config.json"});
  fmt::print("merged model written to {}\n", out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = fsllm::start_program(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  return fsllm::run_program_alone(argc, argv, kProgram.name,
                                  [&](fsllm::Communicator const&) { return export_model(*start.line); });
}
