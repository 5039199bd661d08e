// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/merge.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/mm.h>

#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"
#include "model_card.hpp"

namespace fsllm {
namespace {

constexpr char const kUpdate[] = "trained_update";

/// W + what was trained in fp32, in the place of what the factors say.
void merge_update(CausalLM& model, Peft& peft, std::filesystem::path const& adapter) {
  auto const update = SafetensorsReader(adapter, kUpdate).tensors();
  auto state = peft.state();
  for (auto const& target : peft.low_rank_targets()) state.at(target.b).detach().zero_();
  peft.merge_into(model);
  for (auto const& [module, change] : update) {
    auto& linear = module_of(model, module);
    auto const merged = at::add(linear.matrix().to(at::kFloat), change);
    linear.weight = (linear.conv1d ? merged.t() : merged).contiguous();
    linear.quantized.reset();
  }
}

}  // namespace

std::filesystem::path update_file(std::filesystem::path const& adapter) {
  return adapter / (std::string(kUpdate) + ".safetensors");
}

std::unique_ptr<CausalLM> merged_model(MergeJob const& job) {
  auto model = load_model(job.model, {.storage_dtype = job.storage_dtype, .cache_dir = job.cache_dir});
  auto const peft = make_peft(read_adapter_config(job.adapter), *model, 0);
  if (std::filesystem::exists(update_file(job.adapter)))
    merge_update(*model, *peft, job.adapter);
  else
    peft->merge_into(*model);
  return model;
}

void save_merged(MergeJob const& job, CausalLM& merged, std::filesystem::path const& out) {
  save_model(out, merged, job.model, job.dtype);
  if (auto const source = tokenizer_source(job.model, job.adapter); source != job.model) {
    save_tokenizer(source, {}, out);
    write_special_ids(out, *load_tokenizer(source));
  } else if (is_gguf(job.model)) {
    export_gguf_tokenizer(job.model, out);
  }
  auto info = read_adapter_info(job.adapter);
  if (!info) return;
  info->storage_dtype = "auto";
  write_adapter_info(out, *info);
  if (info->training) write_file_atomic(out / "README.md", model_card(CardKind::model, *info->training));
}

void save_merged(MergeJob const& job, std::filesystem::path const& out) {
  save_merged(job, *merged_model(job), out);
}

}  // namespace fsllm
