// SPDX-License-Identifier: Apache-2.0
#include "offsite.hpp"

#include "fsllm/app/program.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/model/pack.hpp"
#include "fsllm/offsite/align.hpp"
#include "fsllm/offsite/prune.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"
#include "server_rows.hpp"
#include "trainable.hpp"

namespace fsllm {
namespace {

int64_t bytes_of(std::filesystem::path const& model) {
  return weight_bytes(*load_model(model, {.values = false}));
}

/// The middle blocks as they are distilled from the full model, or were (names of the emulator).
TensorMap aligned_blocks(Setup const& s, std::filesystem::path const& emulator_dir) {
  auto const& align = s.run.offsite.align;
  LoadOptions const options{.device = s.load.device};  // no cache: the run directory is open to all ranks
  auto const emulator = load_grown(s, emulator_dir, options);
  if (!align.restore_from.empty() && std::filesystem::exists(align.restore_from)) {
    log_info("the emulator's middle blocks are those of {}", align.restore_from);
    return read_middle(align.restore_from, *s.emulator, *emulator);
  }
  auto const rows = server_rows(s);
  log_info("aligning the emulator with {} rows of {}", rows.train.rows(), rows.source);
  auto const full = load_grown(s, s.full_model_dir, options);
  auto result = align_emulator(
      *full, *emulator, {*s.emulator, align, s.run.train.batch, s.run.fed.seed, rows.train, rows.judged});
  if (rows.judged.rows() > 0)
    log_info(
        "the emulator on {} rows that it has not learnt from: loss {:.4f} before the alignment, {:.4f} "
        "after; "
        "distance of hidden states {:.4g} before, {:.4g} after",
        rows.judged.rows(), result.before.lm, result.after.lm, result.before.kd, result.after.kd);
  return result.blocks;
}

/// Rank 0.
void write_emulator(Setup const& s) {
  auto const& align = s.run.offsite.align;
  bool const restores = !align.restore_from.empty() && std::filesystem::exists(align.restore_from);
  bool const saves = align.use && !align.save_to.empty() && !restores;
  FSLLM_CHECK(!saves || !std::filesystem::exists(align.save_to),
              "llm.offsite_tuning.emu_align.save_to = {} (it is there already, and is not replaced). Set "
              "restore_from to it to use it, or choose another name.",
              align.save_to);
  auto const full = load_model(s.full_model_dir, {.values = false});
  for (auto const* linear : full->linears())
    FSLLM_CHECK(
        !linear->quantized,
        "llm.offsite_tuning.use = True with model.type = {} (its files are quantised, and the trained "
        "blocks could not be put back into them). Use the model that it was made from.",
        s.run.model_type);
  set_activity("making the emulator");
  auto made = s.output->fresh_folder();
  auto const change = s.emulator->sparsity > 0 ? prune_middle(*s.emulator, s.model.conv1d) : TensorChange();
  copy_blocks(s.full_model_dir, s.emulator->kept, {}, made, change);
  TensorMap blocks;
  if (align.use) {
    blocks = aligned_blocks(s, made);
    made = s.output->fresh_folder();
    copy_blocks(s.full_model_dir, s.emulator->kept, blocks, made);
  }
  if (s.run.offsite.quantization != Quantization::none) {
    auto const plain = made;
    made = s.output->fresh_folder();
    pack_blocks(plain, s.emulator->middle(), s.run.offsite.quantization, made);
  }
  if (is_gguf(s.full_model_dir)) export_gguf_tokenizer(s.full_model_dir, made);
  s.output->move_in(made, s.directory.emulator().filename().string(), {"config.json"});
  if (saves) write_middle(align.save_to, *s.emulator, blocks);
}

}  // namespace

void make_emulator(Setup& s, Communicator const& comm) {
  if (!s.emulator) return;
  auto const dir = s.directory.emulator();
  agree(comm, [&] {
    if (comm.rank() != 0) return;
    if (!s.resume || !std::filesystem::exists(dir / "config.json")) write_emulator(s);
    log_info("emulator of {} of the {} blocks: {:.1f} MiB of {:.1f} MiB of weights, in {}",
             s.emulator->kept.size(), s.emulator->layers, static_cast<double>(bytes_of(dir)) / 1048576,
             static_cast<double>(bytes_of(s.full_model_dir)) / 1048576, dir.string());
  });
  agree(comm, [&] {
    s.model_dir = dir;
    s.model = load_model_config(dir);
    s.model.vocab_size = s.vocabulary.size;
    s.load.block_numbers = s.emulator->kept;
  });
}

void align_every_round(Setup& s, Trainable& t, FullModelWith const& full_model) {
  for (auto const& [name, tensor] : middle_parameters(*t.model, *s.emulator))
    t.model->set_parameter(name, tensor.detach().to(at::kFloat));
  auto const learnt = middle_parameters(*t.model, *s.emulator);
  std::string const key = "emulator.";
  auto& algorithm = s.run.fed.algorithm;
  algorithm.server_extra = [learnt, key](TensorMap const&) {
    TensorMap extra;
    for (auto const& [name, tensor] : learnt)
      extra.emplace(key + name, tensor.detach().to(at::kFloat, false, true));
    return extra;
  };
  auto const align = [&s, &t, full_model, key, rows = std::make_shared<ServerRows>()](ServerState& server,
                                                                                      int64_t round) {
    if (rows->train.rows() == 0) *rows = server_rows(s);
    for (auto& [name, tensor] : t.parameters) tensor.set_requires_grad(false);
    copy_values(t.parameters, server.weights);
    auto const result = align_emulator(full_model(server.weights), *t.model,
                                       {*s.emulator, s.run.offsite.align, s.run.train.batch, s.run.fed.seed,
                                        rows->train, rows->judged, round});
    for (auto& [name, tensor] : t.parameters) tensor.set_requires_grad(true);
    for (auto const& [name, tensor] : result.blocks) server.extra.at(key + name).copy_(tensor);
    if (rows->judged.rows() == 0) return;
    server.facts["emulator_loss"] = result.after.lm;
    server.facts["emulator_distance"] = result.after.kd;
  };
  struct Aligning : SurroundingStep {
    using SurroundingStep::SurroundingStep;
    void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
      inner->step(server, arrived, plan);
      then(server, plan.round + 1);
    }
    std::function<void(ServerState& server, int64_t round)> then;
  };
  algorithm.server_step = [inner = algorithm.server_step, align](TensorMap const& weights) {
    auto step = std::make_unique<Aligning>(inner(weights));
    step->then = align;
    return step;
  };
}

void take_middle_blocks(Trainable& t, TensorMap const& extra) {
  for (auto const& [name, tensor] : extra) t.model->set_parameter(name.substr(name.find('.') + 1), tensor);
}

FullModelWith full_model_with(Setup const& s) {
  struct FullModel {
    std::unique_ptr<CausalLM> model;
    std::unique_ptr<Peft> peft;
    TensorMap state;
  };
  return [&s, full = std::make_shared<FullModel>()](TensorMap const& values) -> CausalLM& {
    if (!full->model) {
      auto options = s.load;
      options.cache_dir.clear();  // the run directory is open to all ranks
      options.block_numbers = {};
      full->model = load_grown(s, s.full_model_dir, options);
      if (!s.run.peft.method.empty()) {
        full->peft = make_peft(s.run.peft, *full->model, s.run.fed.seed);
        full->state = full->peft->state();
      }
    }
    if (full->peft) {
      copy_values(full->state, values);
    } else {
      for (auto const& [name, value] : values)
        full->model->set_parameter(s.emulator->full_name(name), value.detach());
    }
    return *full->model;
  };
}

}  // namespace fsllm
