// SPDX-License-Identifier: Apache-2.0
// Merges an adapter into its base model and writes the whole as a Hugging Face folder.
#include <boost/program_options.hpp>
#include <filesystem>
#include <iostream>

#include "fsllm/app/program.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/output_folder.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"

namespace {

namespace po = boost::program_options;
using namespace fsllm;

po::options_description options() {
  po::options_description all("Options");
  auto add = all.add_options();
  auto text = [](char const* name) { return po::value<std::string>()->value_name(name); };
  add("model", text("DIR"), "base model, Hugging Face layout or a .gguf file");
  add("adapter", text("DIR"), "PEFT adapter");
  add("merge", "write the base model with the adapter merged into its weights");
  add("out", text("DIR"), "folder to write");
  add("dtype", text("TYPE")->default_value("fp32"), "type to write: fp32, bf16 or fp16");
  add("storage_dtype", text("TYPE")->default_value("auto"),
      "train.storage_dtype of the run: with int8 or nf4 the adapter is merged into the quantised weights, "
      "which is the model that was trained; auto: into those of the file");
  add("help", "this text");
  return all;
}

std::string need(po::variables_map const& values, char const* name) {
  FSLLM_CHECK(values.count(name) != 0, "--{} is missing. See fsllm_export --help.", name);
  return values[name].as<std::string>();
}

int export_model(int argc, char** argv) {
  po::variables_map values;
  try {
    po::store(po::parse_command_line(argc, argv, options()), values);
  } catch (po::error const& error) {
    fail(fmt::format("command line: {}. See fsllm_export --help.", error.what()));
  }
  if (argc == 1 || values.count("help") != 0) {
    std::cout << "Merges an adapter into its base model.\n\n  fsllm_export --model DIR --adapter DIR --merge "
                 "--out DIR\n\n"
              << options();
    return 0;
  }
  auto const model_dir = need(values, "model"), adapter_dir = need(values, "adapter"),
             out = need(values, "out");
  FSLLM_CHECK(values.count("merge") != 0,
              "--merge is missing (an adapter folder already is in PEFT format, there is nothing else to "
              "export). Add it.");
  FSLLM_CHECK(!std::filesystem::exists(std::filesystem::path(out) / "config.json"),
              "{} already holds a model. Choose another --out.", out);
  OutputFolder folder(out);
  folder.check_free({"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"});
  auto const made = folder.fresh_folder();
  auto const model = load_model(
      model_dir, {.storage_dtype = values["storage_dtype"].as<std::string>(), .cache_dir = user_cache_dir()});
  auto const peft = make_peft(read_adapter_config(adapter_dir), *model, 0);
  peft->merge_into(*model);
  save_model(made, *model, model_dir, values["dtype"].as<std::string>());
  if (auto const source = tokenizer_source(model_dir, adapter_dir); source != model_dir) {
    save_tokenizer(source, {}, made);
    write_special_ids(made, *load_tokenizer(source));
  } else if (is_gguf(model_dir)) {
    export_gguf_tokenizer(model_dir, made);
  }
  folder.move_in(made, "", {"config.json"});
  fmt::print("merged model written to {}\n", out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  fsllm::prepare_process();
  return fsllm::run_program(argc, argv, [&](fsllm::Communicator const& world) {
    int code = 0;
    fsllm::agree(world, [&] {
      FSLLM_CHECK(world.size() == 1,
                  "fsllm_export on {} ranks (it is a program for one). Start it without mpirun.",
                  world.size());
      code = export_model(argc, argv);
    });
    return code;
  });
}
