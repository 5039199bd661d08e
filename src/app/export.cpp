// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/export.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/norm.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/merge.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/io/safetensors_writer.hpp"
#include "fsllm/model/gguf_save.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/gguf_vocabulary.hpp"
#include "fsllm/text/token_additions.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "model_card.hpp"
#include "probe.hpp"
#include "public_name.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr char const *kModelFile = "model.gguf", *kAdapterFile = "adapter.gguf";

struct FormFacts {
  char const* name;
  ExportForm form;
  std::vector<std::string> dtypes;  ///< the first is what is meant by none
};

std::vector<FormFacts> const& forms() {
  static std::vector<FormFacts> const table{{"peft", ExportForm::peft, {}},
                                            {"merged", ExportForm::merged, {"fp32", "bf16", "fp16"}},
                                            {"gguf", ExportForm::gguf, {"fp16", "fp32", "q8_0"}},
                                            {"gguf-adapter", ExportForm::gguf_adapter, {"fp32", "fp16"}}};
  return table;
}

FormFacts const& facts_of(ExportForm form) {
  return *std::ranges::find(forms(), form, &FormFacts::form);
}

std::string dtype_of(ExportJob const& job) {
  auto const& dtypes = facts_of(job.form).dtypes;
  return job.dtype.empty() && !dtypes.empty() ? dtypes.front() : job.dtype;
}

MergeJob merge_job(ExportJob const& job) {
  return {job.model, job.adapter, dtype_of(job), job.storage_dtype, job.cache_dir};
}

std::unique_ptr<CausalLM> load(ExportJob const& job) {
  return load_model(job.model, {.storage_dtype = job.storage_dtype, .cache_dir = job.cache_dir});
}

bool is_zero(at::Tensor const& values) {
  return values.abs().max().item<float>() == 0;
}

/// What LoRA adds is nothing where one of its two factors is zero.
bool adds_nothing(Peft const& peft) {
  auto const state = peft.state();
  auto const targets = peft.low_rank_targets();
  return !targets.empty() && state.size() == 2 * targets.size() &&
         std::ranges::all_of(targets, [&](LowRankTarget const& target) {
           return is_zero(state.at(target.a)) || is_zero(state.at(target.b));
         });
}

/// The adapter's logits, on a model that gets it; one that changes nothing is an Error.
at::Tensor adapted_logits(ExportJob const& job, CausalLM& model, std::unique_ptr<Peft>& peft) {
  auto const alone = probe_logits(model);
  peft = make_peft(read_adapter_config(job.adapter), model, 0);
  auto const adapted = probe_logits(model);
  if (fs::exists(update_file(job.adapter))) return adapted;
  FSLLM_CHECK(
      !adds_nothing(*peft),
      "{} changes nothing (B is zero in each of its {} modules: it was not trained). Export the adapter "
      "of a run that has ended.",
      job.adapter.string(), peft->low_rank_targets().size());
  FSLLM_CHECK(
      !peft->low_rank_targets().empty() || alone.sizes() != adapted.sizes() || !at::equal(alone, adapted),
      "{} changes nothing (the model computes with it what it computes alone). Export the adapter of "
      "a run that has ended.",
      job.adapter.string());
  return adapted;
}

/// Of logits, relative to their size.
double rounding_of(std::string const& dtype) {
  if (dtype == "q8_0") return 5e-2;
  if (dtype == "bf16") return 3e-2;
  return dtype == "fp16" ? 5e-3 : 1e-4;
}

/// Weights in memory are rounded once more when they take the adapter.
double rounding_in_memory(CausalLM& model) {
  double rounding = 0;
  for (auto const& [name, values] : model.parameters())
    if (values.scalar_type() != at::kFloat)
      rounding = std::max(rounding, rounding_of(values.scalar_type() == at::kHalf ? "fp16" : "bf16"));
  return rounding;
}

void compare(at::Tensor const& written, at::Tensor const& wanted, double most, std::string const& dtype) {
  auto const a = wanted.to(at::kDouble), b = written.to(at::kDouble);
  FSLLM_CHECK(a.sizes() == b.sizes(),
              "what was written has {} logits a token (the model in memory has {}; nothing is kept). Report "
              "this.",
              b.size(-1), a.size(-1));
  auto const off = a.sub(b).norm().item<double>() / std::max(a.norm().item<double>(), 1e-30);
  FSLLM_CHECK(
      off <= most,
      "read back, the logits are off by {:.1e} of their size (rounding to {} explains {:.0e}; nothing "
      "is kept). Write another type with --dtype.",
      off, dtype, most);
}

/// What a card says of the model and its training.
TrainingFacts training_of(ExportJob const& job, std::optional<AdapterInfo> const& info) {
  auto facts = info && info->training ? *info->training : TrainingFacts{};
  if (!job.base_model_name.empty() || facts.base_model_name.empty())
    facts.base_model_name = public_name(job.model, job.base_model_name);
  if (facts.license.empty()) facts.license = license_of(job.model);
  return facts;
}

void write_card(fs::path const& out, CardKind kind, TrainingFacts const& facts) {
  write_file_atomic(out / "README.md", model_card(kind, facts));
}

/// fsllm.json without the place where the model lay.
void write_info(fs::path const& out, std::optional<AdapterInfo> info, TrainingFacts const& facts,
                bool is_merged) {
  if (!info) return;
  info->base_model.clear();
  if (is_merged) info->storage_dtype = "auto";
  if (info->training) info->training = facts;
  write_adapter_info(out, *info);
}

ordered_json general_keys(TrainingFacts const& facts) {
  auto const& name = facts.base_model_name;
  auto const slash = name.find('/');
  ordered_json keys{{"general.name", name.substr(slash == std::string::npos ? 0 : slash + 1)},
                    {"general.base_model.count", uint32_t{1}},
                    {"general.base_model.0.name", name.substr(slash == std::string::npos ? 0 : slash + 1)}};
  if (slash != std::string::npos) {
    keys["general.base_model.0.organization"] = name.substr(0, slash);
    keys["general.base_model.0.repo_url"] = "https://huggingface.co/" + name;
  }
  if (!facts.license.empty()) keys["general.license"] = facts.license;
  return keys;
}

/// FLoRA's and FedEx-LoRA's adapters are the best of their rank for what was trained.
void say_what_is_missing(ExportJob const& job) {
  if (fs::exists(update_file(job.adapter)))
    log_warning(
        "{} is the best adapter of its rank for what was trained, not the whole. --to merged and --to gguf "
        "write that.",
        job.adapter.string());
}

void export_peft(ExportJob const& job, fs::path const& out) {
  say_what_is_missing(job);
  auto const model = load(job);
  std::unique_ptr<Peft> peft;
  auto const wanted = adapted_logits(job, *model, peft);
  auto const info = read_adapter_info(job.adapter);
  auto const facts = training_of(job, info);
  auto config = ordered_json::parse(read_file(job.adapter / "adapter_config.json"));
  config["base_model_name_or_path"] = facts.base_model_name;
  write_safetensors(out / "adapter_model.safetensors",
                    SafetensorsReader(job.adapter, "adapter_model").tensors());
  copy_tokenizer(tokenizer_source(job.model, job.adapter), out);
  write_info(out, info, facts, false);
  write_file_atomic(out / "adapter_config.json", config.dump(2) + "\n");
  write_card(out, card_kind_of_adapter(out), facts);
  auto const again = load(job);
  auto const read_back = make_peft(read_adapter_config(out), *again, 0);
  compare(probe_logits(*again), wanted, 1e-6, "fp32");
}

/// A model that is to be written whole, what it should compute, and how far from that rounding may lead.
struct Merged {
  std::unique_ptr<CausalLM> model;
  at::Tensor wanted;
  double rounding = 0;
};

Merged merge(ExportJob const& job) {
  auto model = load(job);
  if (job.adapter.empty()) {
    auto wanted = probe_logits(*model);
    return {std::move(model), wanted, rounding_of(dtype_of(job))};
  }
  std::unique_ptr<Peft> peft;
  auto wanted = adapted_logits(job, *model, peft);
  auto const rounding = std::max(rounding_of(dtype_of(job)), rounding_in_memory(*model));
  auto merged = merged_model(merge_job(job));
  if (fs::exists(update_file(job.adapter))) wanted = probe_logits(*merged);
  return {std::move(merged), wanted, rounding};
}

void export_merged(ExportJob const& job, fs::path const& out) {
  auto const [merged, wanted, rounding] = merge(job);
  auto const info = read_adapter_info(job.adapter);
  auto const facts = training_of(job, info);
  save_merged(merge_job(job), *merged, out);
  write_info(out, info, facts, true);
  write_card(out, CardKind::model, facts);
  compare(probe_logits(*load_model(out)), wanted, rounding, dtype_of(job));
}

void export_gguf(ExportJob const& job, fs::path const& out) {
  auto const [model, wanted, rounding] = merge(job);
  auto const source = tokenizer_source(job.model, job.adapter);
  auto const described = job.adapter.empty() ? job.model : job.adapter;
  auto const facts = training_of(job, is_gguf(described) ? std::nullopt : read_adapter_info(described));
  auto keys = general_keys(facts);
  auto const vocabulary = gguf_vocabulary(source, model->config().vocab_size);
  for (auto const& [key, value] : vocabulary.items()) keys[key] = value;
  auto const dtype = dtype_of(job);
  save_gguf(out / kModelFile, *model, dtype, keys);
  write_card(out, CardKind::gguf, facts);
  compare(probe_logits(*load_model(out / kModelFile)), wanted, rounding, dtype);
}

/// All factors with one alpha: what PEFT scales otherwise (rsLoRA, other ranks) goes into B.
std::vector<LoraFactorsOf> factors_of(ExportJob const& job, Peft const& peft, double& alpha) {
  auto const state = peft.state();
  auto const targets = peft.low_rank_targets();
  auto const refuse = [&](bool refused, char const* what) {
    FSLLM_CHECK(!refused,
                "--to gguf-adapter with {}, {} (llama.cpp's adapters are s B A alone). Merge it: --to gguf.",
                job.adapter.string(), what);
  };
  refuse(targets.empty(), "which is no LoRA, or one with use_dora");
  refuse(state.size() != 2 * targets.size(), "which changes biases too");
  std::vector<LoraFactorsOf> factors;
  for (auto const& target : targets) {
    auto const &a = state.at(target.a), &b = state.at(target.b);
    auto const rank = static_cast<double>(a.size(0));
    if (factors.empty()) alpha = target.scale * rank;
    factors.push_back({target.module, a.detach(), b.detach().mul(target.scale * rank / alpha)});
  }
  return factors;
}

void add_factors(CausalLM& model, std::vector<LoraFactorsOf> const& factors) {
  for (auto const& [module, a, b] : factors) {
    auto& linear = module_of(model, module);
    auto const merged = at::add(linear.matrix().to(at::kFloat), at::mm(b, a));
    linear.weight = (linear.conv1d ? merged.t() : merged).contiguous();
    linear.quantized.reset();
  }
}

void export_gguf_adapter(ExportJob const& job, fs::path const& out) {
  say_what_is_missing(job);
  auto const model = load(job);
  FSLLM_CHECK(adapter_vocab_size(job.adapter, model->config()) == 0,
              "--to gguf-adapter with {}, which brings embeddings (llama.cpp's adapters are s B A alone). "
              "Merge it: --to gguf.",
              job.adapter.string());
  std::unique_ptr<Peft> peft;
  auto const wanted = adapted_logits(job, *model, peft);
  double alpha = 1;
  auto const factors = factors_of(job, *peft, alpha);
  auto const facts = training_of(job, read_adapter_info(job.adapter));
  auto const dtype = dtype_of(job);
  save_gguf_lora(out / kAdapterFile, model->config(), factors, alpha, dtype, general_keys(facts));
  write_card(out, CardKind::gguf_adapter, facts);
  auto const again = load(job);
  add_factors(*again, read_gguf_lora(out / kAdapterFile, again->config()));
  compare(probe_logits(*again), wanted, rounding_of(dtype), dtype);
}

}  // namespace

ExportForm parse_export_form(std::string const& name) {
  std::vector<std::string> names;
  for (auto const& row : forms()) {
    if (row.name == name) return row.form;
    names.emplace_back(row.name);
  }
  fail(fmt::format("--to = '{}' (not a known form: {}). Choose one of them.", name, fmt::join(names, ", ")));
}

std::string mark_of(ExportForm form) {
  switch (form) {
    case ExportForm::peft:
      return "adapter_config.json";
    case ExportForm::merged:
      return "config.json";
    case ExportForm::gguf:
      return kModelFile;
    case ExportForm::gguf_adapter:
      break;
  }
  return kAdapterFile;
}

void check_export(ExportJob const& job) {
  auto const& [name, form, dtypes] = facts_of(job.form);
  FSLLM_CHECK(!dtypes.empty() || job.dtype.empty(),
              "--dtype {} with --to {} (an adapter keeps its own type). Leave it out.", job.dtype, name);
  FSLLM_CHECK(job.dtype.empty() || std::ranges::find(dtypes, job.dtype) != dtypes.end(),
              "--dtype = '{}' with --to {} (it is written as {}). Choose one of them.", job.dtype, name,
              fmt::join(dtypes, ", "));
  FSLLM_CHECK(
      job.base_model_name.empty() || is_hub_name(job.base_model_name),
      "--base_model_name = '{}' (a name of the form OWNER/NAME or NAME is needed, not a path). Change "
      "it.",
      job.base_model_name);
  auto const config = load_model_config(job.model);
  if (job.form == ExportForm::gguf || job.form == ExportForm::gguf_adapter) check_for_gguf(config);
  if (!job.adapter.empty()) read_adapter_config(job.adapter);
}

void write_export(ExportJob const& job, fs::path const& out) {
  switch (job.form) {
    case ExportForm::peft:
      return export_peft(job, out);
    case ExportForm::merged:
      return export_merged(job, out);
    case ExportForm::gguf:
      return export_gguf(job, out);
    case ExportForm::gguf_adapter:
      return export_gguf_adapter(job, out);
  }
}

}  // namespace fsllm
