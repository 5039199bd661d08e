// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/commands.hpp"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <numeric>

#include "check_command.hpp"
#include "fsllm/app/merge.hpp"
#include "fsllm/app/prepare_data.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/comm/cores.hpp"
#include "fsllm/comm/nccl.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/counted.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/data/prepare.hpp"
#include "fsllm/fed/round.hpp"
#include "fsllm/io/checkpoint.hpp"
#include "fsllm/io/files.hpp"
#include "groups.hpp"
#include "launch.hpp"
#include "listing.hpp"
#include "offsite.hpp"
#include "plan_command.hpp"
#include "ready_shards.hpp"
#include "run_record.hpp"
#include "run_report.hpp"
#include "run_tasks.hpp"
#include "setup.hpp"
#include "time_limit.hpp"
#include "trainable.hpp"

namespace fsllm {
namespace {

/// Files and folders that the run reads.
std::vector<RunInput> inputs_of(Setup const& s) {
  std::vector<RunInput> inputs{{"model.type", s.model_dir}};
  auto const add = [&](std::string const& key, std::string const& path) {
    if (!path.empty()) inputs.push_back({key, path});
  };
  for (auto const& [option, path] : s.files) add(option, path);
  add("data.shards", s.run.data.shards);
  for (auto const& root : s.run.shard_roots) add("hpc.shard_roots", root);
  if (!has_ready_shards(s)) add("data.root", s.run.data.root);
  if (!s.run.tasks.names.empty()) add("eval.task_data", s.run.tasks.data);
  add("data.chat_template", s.run.data.prompt.chat_template);
  add("llm.adapter.init_from", s.run.peft.init_from);
  return inputs;
}

/// The folder holds this very run. Comes before anything in it is taken for the program's own.
void check_continuation(Setup const& s) {
  s.directory.check_holds_run();
  auto const conflicts = conflicting_keys(read_file(s.directory.config()), *s.config);
  FSLLM_CHECK(conflicts.empty(),
              "--resume with another configuration: {}. Give the run's own settings, or start a new run with "
              "another expname.",
              fmt::join(conflicts, "; "));
}

/// Collective: an empty run directory, or the one to continue in.
void prepare_directory(Setup& s, bool overwrite, Communicator const& comm) {
  agree(comm, [&] {
    if (comm.rank() != 0) return;
    if (s.resume && !s.directory.holds_run() && batch_job().restarts > 0) s.resume = false;
    if (s.resume) check_continuation(s);
    s.output = s.resume ? s.directory.resume() : s.directory.start(overwrite, inputs_of(s));
    log_to_file(s.directory.log().string());
  });
  s.resume = comm.max(comm.rank() == 0 && s.resume ? 1 : 0) != 0;
}

/// Collective: the folder of the run's shards, made now unless they are ready.
std::filesystem::path shards_of(Setup const& s, Communicator const& comm) {
  if (!s.run.data.shards.empty()) return s.run.data.shards;
  auto const dir = s.directory.shards();
  bool const ready =
      comm.max(comm.rank() == 0 && s.resume && std::filesystem::exists(dir / "index.json") ? 1 : 0) != 0;
  if (ready) return dir;
  log_info("sharding {} for {}", s.run.data.type(),
           s.run.fed.client_num > 0 ? counted(s.run.fed.client_num, "client") : "a client a value");
  make_shards({prepare_job(s, preparing_threads()), s.run.fed.client_num, s.resolved_yaml},
              {s.directory.root, "shards", s.output.get()}, comm);
  return dir;
}

/// Collective: the shards of the run's clients, made now unless they are ready.
std::vector<ClientSource> clients_of(Setup const& s, Communicator const& comm) {
  std::vector<ClientSource> sources;
  if (s.run.shard_roots.empty()) {
    auto const dir = shards_of(s, comm);
    hand_files(*s.handed, {dir / "index.json"}, comm);
    agree(comm, [&] { sources = sources_in(dir); });
  } else {
    agree(comm, [&] { sources = sources_at(s.run.shard_roots, comm); });
  }
  return sources;
}

/// Collective: what fsllm.json beside the result says.
AdapterInfo info_of(Setup const& s, Communicator const& comm) {
  AdapterInfo info{template_of_rows(s, comm), s.run.data.tok_len,        s.load.storage_dtype,
                   s.load.compute_dtype,      s.full_model_dir.string(), s.tokenizer_sha256()};
  auto const& start = s.run.peft.init_from;
  std::optional<AdapterInfo> before;
  agree(comm, [&] {
    if (!start.empty() && comm.rank() == 0) before = read_adapter_info(start);
  });
  if (before && info.prompt && before->prompt &&
      make_prompt_template(*before->prompt).name != make_prompt_template(*info.prompt).name)
    log_warning(
        "llm.adapter.init_from = {} was trained with the prompt template {} (these rows are made with {}). "
        "Set data.prompt_template to that, unless you mean to change it.",
        start, before->prompt->name, info.prompt->name);
  return info;
}

/// What runs, but likely not as it was meant. On rank 0.
void warn_of_settings(std::vector<std::string> const& launch, ClientData const& data,
                      int64_t ranks_per_client, Communicator const& comm) {
  for (auto const& warning : launch) log_warning("{}", warning);
  auto const clients = static_cast<int64_t>(data.clients().size());
  int const threads = at::get_num_threads(), cores = cores_of_rank();
  if (threads > cores)
    log_warning(
        "{} threads on {} cores (hpc.threads or OMP_NUM_THREADS, and what the launcher leaves to a rank): "
        "they "
        "wait for each other. Set hpc.threads: {}, or start with mpirun --map-by slot:PE={} or srun "
        "--cpus-per-task={}.",
        threads, cores, cores, threads, threads);
  if (int64_t const needed = clients * ranks_per_client; comm.size() > needed)
    log_warning("{} ranks for {} clients{}: {} never train. Start fewer ranks.", comm.size(), clients,
                ranks_per_client > 1 ? fmt::format(", {} each", ranks_per_client) : "", comm.size() - needed);
}

/// Collective: what runs where, and what it takes before the first step.
void log_start(Setup const& s, Trainable const& t, ClientData const& data, Communicator const& comm) {
  auto const table = placement_table(comm);
  log_info("fsllm_hpc {} on {}, {} each\n{}", FSLLM_VERSION, counted(comm.size(), "rank"),
           counted(at::get_num_threads(), "thread"), table);
  log_info("model {} ({}), weights {}, compute {} on {}", s.model_dir.string(), s.model.family,
           s.load.storage_dtype, s.load.compute_dtype, s.device.gpu < 0 ? "CPU" : "GPU");
  if (comm.rank() == 0) warn_of_settings(s.launch_warnings, data, s.run.group.ranks, comm);
  if (s.load.device == "cpu") warn_of_memory(weight_bytes(*t.model));
  log_info("{}, {} trainable parameters ({}), run directory {}",
           counted(std::ssize(data.clients()), "client"), num_parameters(t.parameters),
           t.peft       ? s.run.peft.method
           : s.emulator ? "outer blocks"
                        : "full model",
           s.directory.root.string());
  comm.barrier();  // all ranks hold their model now
  int64_t const memory = proportional_set_size();
  int64_t const all = comm.sum(memory), largest = comm.max(memory);
  if (all > 0)
    log_info(
        "memory before training: {:.0f} MiB on all ranks, {:.0f} MiB on the largest (shared pages divided)",
        static_cast<double>(all) / 1048576, static_cast<double>(largest) / 1048576);
}

int train_command(CommandLine const& line, Setup& s, Communicator const& comm) {
  agree(comm, [&] { check_group_size(s, comm); });
  set_signal_note(comm.rank() == 0 && !s.resume
                      ? "stopped before the first round: there is no checkpoint, start it again"
                      : "",
                  OnSignal::end_process);
  prepare_directory(s, line.has("overwrite"), comm);
  at::set_num_threads(threads_per_rank(s.run));
  auto sources = clients_of(s, comm);
  if (!s.emulator) check_memory(s, sources, line.has("ignore-plan"), comm);
  make_emulator(s, comm);
  s.info = info_of(s, comm);
  RunTasks tasks(s, comm);
  Groups const groups(s, comm);
  Trainable trainable;
  LoraFactors lora;
  std::unique_ptr<ClientData> data;
  std::unique_ptr<InputFiles> inputs;
  agree(comm, [&] {
    if (comm.rank() == 0) inputs = std::make_unique<InputFiles>(s);
  });
  set_activity("reading the checksums of the model");
  auto const record = run_record(s, inputs.get(), sources, comm);
  s.load.stage = !s.run.stage_dir.empty();
  s.load.checksums = checksums_of_rank_0(inputs.get(), comm);
  agree(comm, [&] {
    data = std::make_unique<ClientData>(std::move(sources), s.tokenizer_sha256(), s.model.vocab_size,
                                        most_tokens(s), s.run.fed.algorithm.merges, s.run.train.loss);
    check_client_count(s, *data);
    set_activity("checking the shards");
    data->check(comm.rank(), comm.size());
    check_clients(s, data->clients(), [&](int64_t client) { return data->summary(client).train.rows; });
    set_activity("loading the model");
    trainable = load_trainable(s, groups.group.get());
    s.model_file.reset();
    lora = lora_of(s, trainable);
    bind_factors(s.run.fed.algorithm, lora);
    check_shared_passes(s, trainable);
    check_parameters(s.run.fed.algorithm, trainable.parameters);
    if (s.run.fed.finetune)
      check_words("finetune.local_param", s.run.fed.finetune->words, trainable.parameters);
  });
  agree(comm, [&] {
    // From here on the directory holds a run; what failed before may simply be started again.
    if (comm.rank() != 0) return;
    s.info.training = training_facts(s, *data);
    if (!s.resume && !s.client_yaml.empty()) s.output->write("client_cfg.yaml", s.client_yaml);
    s.output->write("config.yaml", s.resolved_yaml);
  });
  if (s.run.offsite.align.use && s.run.offsite.align.exit_after) return 0;
  log_start(s, trainable, *data, comm);
  auto const full_model = full_model_with(s);
  if (s.run.offsite.align.every_round) align_every_round(s, trainable, full_model);
  Federation federation{
      s.run.fed,
      [&](int64_t client) -> TrainConfig const& {
        auto const own = s.clients.find(client);
        return own == s.clients.end() ? s.run.train : own->second.train;
      },
      *trainable.model,
      trainable.parameters,
      *data,
      *groups.across,
      s.directory,
      s.output.get(),
      s.run.peft.mv_to_cpu,
      trainable.peft == nullptr,
      s.resolved_yaml,
      record,
      [&](std::string const& before, int64_t round) { return continued_record(before, record, round); },
      [&] { inputs->check_unchanged(); },
      [&](std::filesystem::path const& dir, TensorMap const& values, TensorMap const& overlay,
          ResultFacts const& facts) {
        if (trainable.group && trainable.group->partitions())
          save_parts(s, trainable, dir, values, facts);
        else
          save_values(s, trainable, dir, values, overlay, facts);
      },
      [&](std::filesystem::path const& dir, std::filesystem::path const& adapter) {
        save_merged({s.full_model_dir, adapter, "fp32", s.load.storage_dtype, weight_cache(s)}, dir);
      },
      lora,
      [&](double factor) { trainable.peft->scale_low_rank(factor); },
      [&](int64_t clients) { return trainable.peft->slots(clients); },
      trainable.peft ? trainable.peft->fixed_factors() : TensorMap{},
      [&](std::function<void()> const& work) {
        trainable.peft->detach(*trainable.model);
        work();
        trainable.peft->attach(*trainable.model);
      },
      trainable.group.get(),
      &comm};
  if (!tasks.empty())
    federation.examine = [&](TensorMap const& values, int64_t round) {
      return tasks.examine(*trainable.model, values, round, comm);
    };
  federation.examine_every = s.run.tasks.freq;
  federation.searched_config = [&](int64_t client, int64_t choice) -> TrainConfig const& {
    return (*s.searched)(client, choice);
  };
  if (s.emulator) federation.judged = s.run.offsite.judges_full ? "full model" : "emulator";
  if (s.run.offsite.judges_full) federation.judged_model = full_model;
  if (s.run.offsite.align.every_round)
    federation.received = [&](TensorMap const& extra) { take_middle_blocks(trainable, extra); };
  auto const hosts = comm.all_gather(host_name());
  federation.write_record = [&](std::string const& text, int64_t round) {
    write_record(s, text, round, hosts);
  };
  s.handed.reset();
  stop_before_time_limit(s.run.time_limit_margin, comm);
  auto const summary = run_rounds(federation, s.resume);
  if (comm.rank() == 0 && !summary.interrupted) {
    record_result(s.directory, *s.output);
    write_report(s.directory, *s.output);
    if (std::filesystem::exists(s.directory.report()))
      log_info("its page: {}", s.directory.report().string());
  }
  set_signal_note("", summary.interrupted ? OnSignal::ignored : OnSignal::end_process);
  return summary.interrupted ? (summary.saved ? kExitStopped : kExitSignal) : 0;
}

}  // namespace

bool is_information_asked(CommandLine const& line) {
  return line.has("print-schema") || line.has("print-markdown") || line.has("describe") ||
         line.has("compare") || line.has("list") || line.has("example");
}

int information_command(CommandLine const& line) {
  if (line.has("print-schema")) fmt::print("{}", schema_of(all_keys()));
  if (line.has("print-markdown")) fmt::print("{}", markdown_of(all_keys()));
  if (line.has("describe")) {
    auto const text = all_keys().describe(line.text("describe"));
    FSLLM_CHECK(!text.empty(), "no key contains '{}'. Write --describe alone for all keys.",
                line.text("describe"));
    fmt::print("{}", text);
  }
  if (line.has("compare")) compare_command(line);
  if (line.has("list")) fmt::print("{}", listing(line.text("list")));
  if (line.has("example")) fmt::print("{}", example(line.text("example")));
  return 0;
}

int run_command(CommandLine const& line, Communicator const& world) {
  if (line.has("check-env")) return check_environment(environment_paths(line, world), world);
  // What is printed there is the configuration alone.
  if (line.has("print-config")) start_log(world.rank(), world.size(), LogLevel::error);
  auto const launch = judge_launch(launch_facts(world));
  agree(world, [&] { FSLLM_CHECK(launch.errors.empty(), "{}", launch.errors.front()); });
  auto setup = set_up(line, world);
  setup.launch_warnings = launch.warnings;
  set_stall_warning(setup.run.stall_warning_s);
  if (line.has("print-config")) {
    if (world.rank() == 0) fmt::print("{}", setup.resolved_yaml);
    return 0;
  }
  FSLLM_CHECK(!line.has("plan") || !setup.emulator,
              "--plan with llm.offsite_tuning.use = True (not available in this version). Plan the emulator, "
              "whose folder a run leaves in its directory, as a model of its own.");
  if (line.has("plan")) return plan_command(line, setup, world);
  if (!line.has("check")) return train_command(line, setup, world);
  auto ready = has_ready_shards(setup) ? clients_of(setup, world) : std::vector<ClientSource>{};
  return check_command(setup, std::move(ready), world);
}

}  // namespace fsllm
