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

}  // namespace

void write_adapter_info(std::filesystem::path const& dir, AdapterInfo const& info) {
  nlohmann::ordered_json json{{"fsllm_format", "adapter_info"}, {"version", kVersion}};
  if (info.prompt) json["prompt"] = to_json(*info.prompt);
  json.update({{"tok_len", info.tok_len},
               {"storage_dtype", info.storage_dtype},
               {"compute_dtype", info.compute_dtype},
               {"base_model", info.base_model},
               {"tokenizer_sha256", info.tokenizer_sha256}});
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
