// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/adapter_info.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

constexpr char const* kFile = "fsllm.json";
constexpr int kVersion = 1;

nlohmann::ordered_json to_json(TrainingFacts const& facts) {
  return {{"base_model_name", facts.base_model_name},
          {"license", facts.license},
          {"adapter", facts.adapter},
          {"algorithm", facts.algorithm},
          {"data", facts.data},
          {"splitter", facts.splitter},
          {"clients", facts.clients},
          {"rows", facts.rows},
          {"tokens", facts.tokens},
          {"round", facts.round},
          {"losses", facts.losses},
          {"loss_unit", facts.loss_unit}};
}

TrainingFacts training_from(nlohmann::json const& json) {
  TrainingFacts facts;
  json.at("base_model_name").get_to(facts.base_model_name);
  json.at("license").get_to(facts.license);
  json.at("adapter").get_to(facts.adapter);
  json.at("algorithm").get_to(facts.algorithm);
  json.at("data").get_to(facts.data);
  json.at("splitter").get_to(facts.splitter);
  json.at("clients").get_to(facts.clients);
  json.at("rows").get_to(facts.rows);
  json.at("tokens").get_to(facts.tokens);
  json.at("round").get_to(facts.round);
  json.at("losses").get_to(facts.losses);
  json.at("loss_unit").get_to(facts.loss_unit);
  return facts;
}

}  // namespace

void write_adapter_info(std::filesystem::path const& dir, AdapterInfo const& info) {
  nlohmann::ordered_json json{{"fsllm_format", "adapter_info"}, {"version", kVersion}};
  if (info.prompt) json["prompt"] = to_json(*info.prompt);
  json.update({{"tok_len", info.tok_len},
               {"storage_dtype", info.storage_dtype},
               {"compute_dtype", info.compute_dtype},
               {"base_model", info.base_model},
               {"tokenizer_sha256", info.tokenizer_sha256}});
  if (info.training) json["training"] = to_json(*info.training);
  write_file_atomic(dir / kFile,
                    json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

std::optional<AdapterInfo> read_adapter_info(std::filesystem::path const& dir) {
  auto const file = dir / kFile;
  if (!std::filesystem::exists(file)) return std::nullopt;
  auto const json = read_json(file);
  AdapterInfo info;
  try {
    FSLLM_CHECK(json.at("version") == kVersion,
                "{} has version {} (this program reads version {}). Use the program that wrote it.",
                file.string(), json.at("version").dump(), kVersion);
    if (auto const prompt = json.find("prompt"); prompt != json.end())
      info.prompt = template_from_json(*prompt, file.string());
    json.at("tok_len").get_to(info.tok_len);
    json.at("storage_dtype").get_to(info.storage_dtype);
    json.at("compute_dtype").get_to(info.compute_dtype);
    json.at("base_model").get_to(info.base_model);
    json.at("tokenizer_sha256").get_to(info.tokenizer_sha256);
    if (auto const training = json.find("training"); training != json.end())
      info.training = training_from(*training);
  } catch (nlohmann::json::exception const& error) {
    fail(fmt::format("{} is damaged ({}). Restore it, or remove it to give every setting by hand.",
                     file.string(), error.what()));
  }
  return info;
}

std::optional<TemplateConfig> template_for(std::string const& named, std::filesystem::path const& model,
                                           std::filesystem::path const& adapter) {
  if (!named.empty()) return TemplateConfig{.name = named, .model = model.string()};
  auto const info = read_adapter_info(adapter.empty() ? model : adapter);
  return info ? info->prompt : std::nullopt;
}

}  // namespace fsllm
