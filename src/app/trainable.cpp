// SPDX-License-Identifier: Apache-2.0
#include "trainable.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/app/merge.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/frozen_rows.hpp"
#include "fsllm/peft/low_rank.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"
#include "fsllm/train/matrix_gradients.hpp"
#include "model_card.hpp"
#include "public_name.hpp"
#include "ready_shards.hpp"

namespace fsllm {
namespace {

/// The best factors of their rank for overlay + s B A, whose exact values are written beside the adapter.
TensorMap compressed(Trainable& t, uint64_t seed, std::filesystem::path const& dir, TensorMap values,
                     TensorMap const& overlay) {
  TensorMap updates;
  double error = 0, all = 0;
  for (auto const& target : t.peft->low_rank_targets()) {
    auto const &a = values.at(target.a), &b = values.at(target.b);
    auto const update = overlay.at(target.module)
                            .to(at::kDouble)
                            .add(b.cpu().to(at::kDouble).mm(a.cpu().to(at::kDouble)), target.scale);
    auto const svd = largest_of(update, a.size(0), {seed, Purpose::sketch, hash_of(target.module)});
    auto const factors = orthonormal_factors(svd, a.size(0), target.scale);
    values[target.a] = factors.a.to(a.scalar_type());
    values[target.b] = factors.b.to(b.scalar_type());
    all += update.square().sum().item<double>();
    error += update.sub(factors.b.mm(factors.a), target.scale).square().sum().item<double>();
    updates.emplace(target.module, update.to(at::kFloat));
  }
  std::filesystem::create_directories(dir);
  write_safetensors(update_file(dir), updates);
  log_info(
      "the adapter of rank r lacks {:.2g} of what was trained (relative Frobenius norm); the exact model is "
      "written "
      "by fsllm_export --to merged",
      all > 0 ? std::sqrt(error / all) : 0);
  return values;
}

}  // namespace

std::filesystem::path weight_cache(Setup const& s) {
  namespace fs = std::filesystem;
  if (!s.run.stage_dir.empty()) return s.run.stage_dir;
  fs::path const outdir(s.run.outdir), shared = outdir / "converted_weights";
  bool const writable = ::access((fs::exists(shared) ? shared : outdir).c_str(), W_OK) == 0;
  return writable ? shared : s.directory.root / "weights";
}

LoraFactors lora_of(Setup const& s, Trainable& t) {
  LoraFactors lora;
  lora.seed = s.run.fed.seed;
  if (!t.peft) return lora;
  lora.targets = t.peft->low_rank_targets();
  for (auto const& [client, own] : s.clients)
    if (own.lora) lora.clients.emplace(client, *own.lora);
  lora.fresh = [&t](uint64_t seed) {
    auto const live = clone(t.parameters);
    t.peft->initialize(seed);
    auto fresh = clone(t.parameters);
    copy_values(t.parameters, live);
    return fresh;
  };
  lora.first_update = [&s](at::Tensor const& gradient) {
    return first_update(s.run.train.optimizer, gradient);
  };
  lora.matrix = [&t](std::string const& module) { return module_of(*t.model, module).matrix(); };
  return lora;
}

void check_shared_passes(Setup const& s, Trainable& t) {
  auto const clients = s.run.fed.clients_per_pass;
  if (clients == 1) return;
  FSLLM_CHECK(t.peft && !t.peft->slots(1).empty(),
              "hpc.clients_per_pass = {} (the clients of a pass need a LoRA of the blocks alone: not of "
              "embeddings or "
              "the head, without biases and use_dora). Leave it out, or change llm.adapter.args.",
              clients);
  FSLLM_CHECK(std::none_of(s.clients.begin(), s.clients.end(),
                           [](auto const& client) { return client.second.lora.has_value(); }),
              "hpc.clients_per_pass = {} with --client_cfg (the clients of a pass have one r and "
              "lora_alpha). Leave one "
              "of them out.",
              clients);
  bool const redraws =
      s.run.train.redraws || std::any_of(s.clients.begin(), s.clients.end(),
                                         [](auto const& client) { return client.second.train.redraws; });
  FSLLM_CHECK(
      !redraws,
      "hpc.clients_per_pass = {} with llm.retry_on_nan_loss (one client's rows would be drawn anew for "
      "all). Use one of the two.",
      clients);
  FSLLM_CHECK(!s.run.data.pairs,
              "hpc.clients_per_pass = {} with train.loss = {} (a pass that clients share computes losses of "
              "single rows). Use one of the two.",
              clients, name_of(s.run.train.loss));
  FSLLM_CHECK(
      s.run.shard_roots.empty(),
      "hpc.clients_per_pass = {} with hpc.shard_roots (the clients of a pass train on one rank, which must "
      "see their shards). Leave one of them out.",
      clients);
}

std::unique_ptr<CausalLM> load_grown(Setup const& s, std::filesystem::path const& model_dir,
                                     LoadOptions const& options) {
  auto model = load_model(model_dir, options);
  if (model->config().vocab_size >= s.model.vocab_size) return model;
  if (options.values) {
    model->set_vocabulary(grown_vocabulary(model->vocabulary(), s.model.vocab_size));
    return model;
  }
  TensorMap shapes;
  for (auto const& [name, rows] : model->vocabulary()) {
    auto shape = rows.sizes().vec();
    shape[0] = s.model.vocab_size;
    shapes.emplace(name, at::empty(shape, rows.options()));
  }
  model->set_vocabulary(shapes);
  return model;
}

namespace {

/// Do the ranks of a group share a model that they train?
bool has_parts(Setup const& s, Collective const* group) {
  return group != nullptr && s.run.group.stage > 0;
}

/// Of a model without adapter.
void make_model_trainable(Setup const& s, Trainable& t, Collective* group) {
  bool const parts = has_parts(s, group);
  if (!parts) t.model->make_trainable("fp32");
  if (group != nullptr)
    t.group = std::make_unique<RankGroup>(*group, *t.model, s.run.group,
                                          GroupModel{.trained = true, .compute_type = s.load.compute_dtype});
  t.parameters = parts ? t.group->parameters() : t.model->parameters();
}

}  // namespace

namespace {

/// What cannot be done with matrices that the model's files hold quantised.
void check_packed(Setup const& s, CausalLM& model) {
  if (s.emulator || quantization_of(s.load.storage_dtype) != Quantization::none) return;
  auto const linears = model.linears();
  if (std::none_of(linears.begin(), linears.end(), [](auto const* linear) { return linear->quantized; }))
    return;
  FSLLM_CHECK(
      !s.run.peft.method.empty() && s.run.group.stage < 3,
      "model.type = {} (its files are quantised: such matrices neither learn nor are partitioned). "
      "Train an adapter on it with hpc.zero_stage below 3, or set train.storage_dtype: fp32 or bf16 to "
      "have it dequantised.",
      s.run.model_type);
}

void keep_rows(Setup const& s, CausalLM& model, Collective const* group) {
  if (s.run.frozen_rows_bytes == 0) return;
  auto const& place = s.config->where("train.frozen_activations_mb");
  FSLLM_CHECK(
      group == nullptr && s.load.device == "cpu",
      "{} with hpc.ranks_per_client above 1 or on a GPU (rows are kept in the memory of one rank). Leave it "
      "out, or set use_gpu: False.",
      place);
  FSLLM_CHECK(
      frozen_blocks(model) > 0,
      "{} (no block lies below what learns, or the model drops values in training: nothing stays the same). "
      "Attach the adapter to upper blocks alone (layers_to_transform), or leave it out.",
      place);
  keep_frozen_rows(model, s.run.frozen_rows_bytes);
}

}  // namespace

Trainable load_trainable(Setup const& s, Collective* group) {
  Trainable t;
  auto options = s.load;
  options.cache_dir = weight_cache(s);
  options.weights_on_host =
      s.run.peft.method.empty() && has_parts(s, group);  // no device need hold them whole
  t.model = load_grown(s, s.model_dir, options);
  set_checkpointing(*t.model, s.run.checkpointing);
  check_packed(s, *t.model);
  if (s.run.peft.method.empty()) {
    if (s.emulator)
      t.parameters = make_blocks_trainable(*t.model, *s.emulator);
    else
      make_model_trainable(s, t, group);
    keep_rows(s, *t.model, group);
    return t;
  }
  t.peft = make_peft(s.run.peft, *t.model, s.run.fed.seed);
  if (s.run.fed.algorithm.trains_cores) t.peft->train_cores();
  t.parameters = t.peft->state();
  if (s.emulator) check_adapter(t.parameters, *s.emulator);
  auto const& start = s.run.peft.init_from;
  bool const brought = !start.empty() && adapter_vocab_size(start, s.model) > 0;
  if (brought || s.model.vocab_size != load_model_config(s.model_dir).vocab_size)
    t.vocabulary = t.model->vocabulary();
  if (group != nullptr) t.group = std::make_unique<RankGroup>(*group, *t.model, s.run.group, GroupModel{});
  keep_rows(s, *t.model, group);
  return t;
}

TrainingFacts training_facts(Setup const& s, ClientData const& data) {
  TrainingFacts facts;
  facts.base_model_name = public_name(s.full_model_dir, s.run.base_model_name);
  facts.license = license_of(s.full_model_dir);
  facts.adapter = s.run.peft.method;
  facts.algorithm = s.run.fed.method;
  bool const ready = has_ready_shards(s);
  std::vector<std::string> names;  // without their folders
  for (auto const& type : s.run.data.types)
    names.push_back(std::filesystem::path(type.substr(0, type.find('@'))).filename().string());
  facts.data = ready ? "ready shards" : fmt::format("{}", fmt::join(names, ", "));
  facts.splitter = ready ? "their owners" : s.run.data.splitter;
  facts.clients = static_cast<int64_t>(data.clients().size());
  for (auto const client : data.clients()) {
    facts.rows += data.summary(client).train.rows;
    facts.tokens += data.summary(client).train.tokens;
  }
  return facts;
}

namespace {

/// fsllm.json and the model card.
void describe(Setup const& s, std::filesystem::path const& dir, CardKind kind, ResultFacts const& facts) {
  auto info = s.info;
  auto& training = *info.training;
  training.round = facts.round;
  for (auto const* split : {"train", "val", "test"})
    for (std::string const unit : {"token", "pair"}) {
      auto const losses = facts.losses.value(split, nlohmann::ordered_json::object());
      auto const loss = losses.find("loss_per_" + unit);
      if (loss == losses.end() || !loss->is_number()) continue;
      training.losses[split] = std::round(loss->get<double>() * 1e4) / 1e4;
      training.loss_unit = unit;
    }
  write_adapter_info(dir, info);
  write_file_atomic(dir / "README.md", model_card(kind, training));
}

/// The model's files are read for the first result alone: a run may find a better model in every round.
void write_tokenizer_copy(Setup const& s, Trainable& t, std::filesystem::path const& dir) {
  if (t.tokenizer_files.empty()) {
    auto const first = dir / "tokenizer";
    make_folder(first);
    copy_tokenizer(s.full_model_dir, first);
    for (auto const& file : std::filesystem::directory_iterator(first))
      t.tokenizer_files[file.path().filename().string()] = read_file(file.path());
    std::filesystem::remove_all(first);
  }
  for (auto const& [name, bytes] : t.tokenizer_files) write_file_atomic(dir / name, bytes);
}

/// What a model folder needs beside weights and configuration.
void save_model_tokenizer(Setup const& s, std::filesystem::path const& dir) {
  if (is_gguf(s.full_model_dir)) export_gguf_tokenizer(s.full_model_dir, dir);
  if (!s.vocabulary.is_own) return;
  save_tokenizer(s.vocabulary.source, s.run.data.added_tokens, dir);
  write_special_ids(dir, *s.vocabulary.tokenizer);
}

}  // namespace

void save_parts(Setup const& s, Trainable& t, std::filesystem::path const& dir, TensorMap const& values,
                ResultFacts const& facts) {
  auto const whole = [&](std::string const& name) { return t.group->gathered(name, values.at(name)); };
  if (t.group->rank() != 0) {
    for (auto const& [name, part] : values) whole(name);
    return;
  }
  save_model(dir, *t.model, s.model_dir, whole);
  save_model_tokenizer(s, dir);
  describe(s, dir, CardKind::model, facts);
}

void save_values(Setup const& s, Trainable& t, std::filesystem::path const& dir, TensorMap const& values,
                 TensorMap const& overlay, ResultFacts const& facts) {
  if (t.peft) {
    save_adapter(dir, *t.peft, overlay.empty() ? values : compressed(t, s.run.fed.seed, dir, values, overlay),
                 s.info.training->base_model_name, t.vocabulary);
    if (s.vocabulary.is_own)
      save_tokenizer(s.vocabulary.source, s.run.data.added_tokens, dir);
    else if (!facts.of_client)
      write_tokenizer_copy(s, t, dir);
    return describe(s, dir, card_kind_of_adapter(dir), facts);
  }
  if (s.emulator) {
    save_plugged(s.full_model_dir, *s.emulator, *t.model, values, dir);
  } else {
    auto const live = clone(t.parameters);
    copy_values(t.parameters, values);
    save_model(dir, *t.model, s.model_dir, "fp32");
    copy_values(t.parameters, live);
  }
  save_model_tokenizer(s, dir);
  describe(s, dir, CardKind::model, facts);
}

void warn_of_memory(int64_t weights) {
  int64_t const available = available_memory();
  if (available > 0 && weights > available)
    log_warning(
        "{:.0f} MiB of weights ({:.0f} MiB of memory are available): every step will read some from disk. "
        "Use another train.storage_dtype, or a machine with more memory.",
        static_cast<double>(weights) / 1048576, static_cast<double>(available) / 1048576);
}

}  // namespace fsllm
