// SPDX-License-Identifier: Apache-2.0
// Makes of an adapter what other programs load: a PEFT folder, a merged model, or GGUF files.
#include <filesystem>
#include <iostream>

#include "fsllm/app/command_line.hpp"
#include "fsllm/app/evaluate.hpp"
#include "fsllm/app/export.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/io/output_folder.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace {

using namespace fsllm;

Program const kProgram{
    "fsllm_export",
    "Hands a trained adapter over to other programs, and checks what it wrote by its logits.\n\n"
    "  fsllm_export --to peft --run exp/my_run --out handed\n"
    "  fsllm_export --to merged --model DIR --adapter DIR --out merged\n"
    "  fsllm_export --to gguf --run exp/my_run --dtype q8_0 --out for_llama_cpp\n"
    "  fsllm_export --to gguf-adapter --run exp/my_run --out lora_for_llama_cpp\n",
    {{"to", "FORM",
      "peft: an adapter folder; merged: a whole model in Hugging Face layout; gguf: a whole model for "
      "llama.cpp; gguf-adapter: a LoRA for llama.cpp"},
     {"run", "DIR", "run directory, whose model and adapter are meant"},
     {"model", "DIR", "base model, Hugging Face layout or a .gguf file"},
     {"adapter", "DIR", "PEFT adapter; --to gguf goes without one"},
     {"out", "DIR", "folder to write"},
     {"dtype", "TYPE",
      "type to write: merged fp32, bf16 or fp16; gguf fp16, fp32 or q8_0; gguf-adapter fp32 or fp16; the "
      "first "
      "one is the default"},
     {"storage_dtype", "TYPE",
      "train.storage_dtype of the run: with int8 or nf4 the adapter is merged into the quantised weights, "
      "which is the model that was trained; auto: into those of the file, or what --run says",
      "auto"},
     {"base_model_name", "NAME",
      "the base model's public name, OWNER/NAME; without it what the run or the model's files say"}}};

/// Model and adapter of a run, or those that are named.
void choose_inputs(CommandLine const& line, ExportJob& job) {
  if (!line.has("run")) {
    job.model = line.need("model");
    job.adapter = job.form == ExportForm::gguf ? line.text("adapter") : line.need("adapter");
    return;
  }
  for (auto const* option : {"model", "adapter"})
    FSLLM_CHECK(!line.has(option), "--run with --{} (the run names its own). Leave one of them out.", option);
  auto const run = read_run(line.need("run"));
  job.model = run.model_dir;
  job.adapter = run.adapter;
  if (!line.has("storage_dtype")) job.storage_dtype = run.storage_dtype;
  FSLLM_CHECK(
      !job.adapter.empty() || job.form == ExportForm::gguf,
      "--to {} with --run {} (all parameters were trained: {} is a whole model in Hugging Face layout). "
      "Hand that over, or write --to gguf.",
      line.text("to"), line.text("run"), job.model.string());
}

int export_adapter(CommandLine const& line) {
  ExportJob job{.form = parse_export_form(line.need("to")),
                .dtype = line.text("dtype"),
                .storage_dtype = line.text("storage_dtype"),
                .base_model_name = line.text("base_model_name"),
                .cache_dir = user_cache_dir()};
  choose_inputs(line, job);
  auto const out = line.need("out");
  for (auto const* file : {"config.json", "adapter_config.json"})
    FSLLM_CHECK(!std::filesystem::exists(std::filesystem::path(out) / file),
                "{} already holds a model or an adapter. Choose another --out.", out);
  check_export(job);
  OutputFolder folder(out);
  folder.check_free({"model.safetensors", "adapter_model.safetensors", "tokenizer.json",
                     "tokenizer_config.json", "README.md", mark_of(job.form)});
  auto const made = folder.fresh_folder();
  write_export(job, made);
  folder.move_in(made, "", {mark_of(job.form)});
  fmt::print("{} written to {}\n", line.text("to"), out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = fsllm::start_program(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  return fsllm::run_program_alone(argc, argv, kProgram.name,
                                  [&](fsllm::Communicator const&) { return export_adapter(*start.line); });
}
