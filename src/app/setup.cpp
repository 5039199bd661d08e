// SPDX-License-Identifier: Apache-2.0
#include "setup.hpp"

#include <algorithm>
#include <optional>

#include "deepspeed.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/io/files.hpp"
#include "ready_shards.hpp"

namespace fsllm {
namespace {

/// The text of a file that rank 0 read. Collective.
std::string shared_file(std::string const& path, Communicator const& comm) {
  std::string text;
  agree(comm, [&] {
    if (comm.rank() == 0 && !path.empty()) text = read_file(path);
  });
  comm.broadcast(text, 0);
  return text;
}

/// The text that virtual tokens start from, as token ids.
void read_adapter_text(Setup& s) {
  auto& peft = s.run.peft;
  if (peft.init_text.empty()) return;
  FSLLM_CHECK(
      s.tokenizer() != nullptr,
      "llm.adapter.args[0].prompt_tuning_init_text = '{}' ({} holds no tokenizer). Put tokenizer.json "
      "or tokenizer.model there, or use prompt_tuning_init: RANDOM.",
      peft.init_text, s.model_dir.string());
  peft.init_ids = s.tokenizer()->encode(peft.init_text);
}

/// Collective: what rank 0 finds of a file that the configuration names, and the file's text; "" for none.
std::pair<std::string, std::string> named_file(std::function<std::string()> const& find,
                                               Communicator const& comm) {
  std::string file;
  agree(comm, [&] {
    if (comm.rank() == 0) file = find();
  });
  comm.broadcast(file, 0);
  return {file, shared_file(file, comm)};
}

/// Collective: the YAML with the words of the command line, and the files of llm.deepspeed and hpo.fedex as
/// keys.
Config given_keys(CommandLine const& line, std::string const& source, Communicator const& comm) {
  std::string yaml;
  agree(comm, [&] {
    if (comm.rank() == 0) yaml = configuration_text(source);
  });
  comm.broadcast(yaml, 0);
  auto config = Config::parse("", "");
  agree(comm, [&] {
    config = Config::parse(yaml, source);
    for (auto const& [key, value] : line.overrides) config.set(key, value);
  });
  auto const [deepspeed, json] = named_file([&] { return deepspeed_file(config, source); }, comm);
  auto const [space, searched] = named_file([&] { return search_space_file(config, source); }, comm);
  agree(comm, [&, &deepspeed = deepspeed, &json = json, &space = space, &searched = searched] {
    if (!deepspeed.empty()) config = with_deepspeed(config, json, deepspeed, comm.size());
    config = with_search_space(config, searched, space);
  });
  return config;
}

/// The blocks of the emulator, and an adapter of those that are trained.
void plan_offsite(Setup& s) {
  s.emulator = plan_emulator(s.run.offsite, s.model.num_layers);
  s.emulator->trains_rest = s.run.data.compat && s.run.peft.method.empty();
  if (!s.run.peft.method.empty()) restrict_adapter(s.run.peft, *s.emulator);
}

/// Collective: the configuration, and where its model is, whose small files are handed out.
Config configure_run(Setup& s, Config config, Communicator const& comm) {
  std::vector<std::filesystem::path> files;
  agree(comm, [&] {
    s.run = load_run_config(config);
    s.model_dir = s.full_model_dir = resolve_model(s.run);
    files = small_files(s.model_dir);
    if (!s.run.peft.init_from.empty())
      std::ranges::copy(small_files(s.run.peft.init_from), std::back_inserter(files));
  });
  s.handed = std::make_shared<HandedFiles>();
  hand_files(*s.handed, files, comm);
  return config;
}

/// The model's own configuration, and what follows from both.
void configure_model(Setup& s, CommandLine const& line) {
  if (is_gguf(s.model_dir)) s.model_file = std::make_shared<GgufReader const>(s.model_dir);
  s.run.data.prompt.model = s.model_dir.string();
  s.model = load_model_config(s.model_dir);
  if (s.run.offsite.use) plan_offsite(s);
  auto const resumed = line.text("resume");
  s.directory = resumed.empty() ? run_directory(s.run) : RunDirectory{resumed};
  s.resume = line.has("resume") || batch_job().restarts > 0;
  s.files = {{"--cfg", line.text("cfg")}, {"--client_cfg", line.text("client_cfg")}};
}

/// Rows that share a prefix have it alike: nothing is dropped there, and nothing learned stands before it.
void check_packing(Setup const& s, TrainConfig const& train, Config const& config) {
  if (train.batch.packing != Packing::shared_prefix) return;
  auto const& model = s.model;
  double dropped = model.attention_dropout + model.embedding_dropout + model.residual_dropout;
  for (auto const& key : config.given_keys())
    if (key.starts_with("llm.adapter.args[0].") && key.ends_with("dropout"))
      dropped += config.text(key) ? std::strtod(config.text(key)->c_str(), nullptr) : 0;
  auto const refuse = [&](bool refused, std::string const& with, char const* why, char const* what) {
    FSLLM_CHECK(!refused, "dataloader.packing = shared_prefix with {} ({}). {}, or use pack.", with, why,
                what);
  };
  refuse(dropped > 0, "dropout", "each row would drop values of its own from what they share",
         "Set lora_dropout: 0, or whatever drops in this model and adapter");
  refuse(s.run.peft.virtual_tokens > 0, fmt::format("{} virtual tokens", s.run.peft.virtual_tokens),
         "which stand before what rows share", "Use an adapter without them");
  refuse(s.run.fed.clients_per_pass > 1, "hpc.clients_per_pass",
         "rows of different clients have other adapters", "Use one of the two");
}

void check_client(Setup const& s, int64_t client, ClientConfig const& own) {
  if (own.lora) check_unequal_rank(s.run.fed.algorithm, client);
  FSLLM_CHECK(
      own.train.zeroth_order() == s.run.train.zeroth_order(),
      "--client_cfg: client_{} has train.optimizer.type = {} (the run's is {}: all clients train with "
      "gradients, or all by MeZO). Give it one of that kind.",
      client, own.train.optimizer.type, s.run.train.optimizer.type);
}

/// --client_cfg, whose clients' keys go before those of `config`.
void configure_clients(Setup& s, Config const& config, std::string const& file) {
  auto const clients = Config::parse(s.client_yaml, file);
  auto const given = config.overridden_by(Config::parse("", ""));
  s.searched = std::make_shared<SearchedSettings>(given, clients, s.run.fed.algorithm.searched);
  if (file.empty()) return;
  s.clients = load_client_configs(given, clients, s.run.peft);
  FSLLM_CHECK(!s.clients.empty(),
              "--client_cfg {} (it names no client). Write client_1: {{train: {{...}}}}, or leave it out.",
              file);
  for (auto const& [client, own] : s.clients) {
    check_client(s, client, own);
    check_packing(s, own.train, config);
  }
}

void open_model(Setup& s, Communicator const& comm) {
  auto& config = *s.config;
  s.vocabulary = load_vocabulary(s.run, s.model_dir, s.model);
  s.model.vocab_size = s.vocabulary.size;
  read_adapter_text(s);
  if (has_ready_shards(s))
    take_settings_of_shards(s, comm);
  else
    s.prompt = make_prompt_template(s.run.data.prompt);
  config.set_resolved("train.compute_dtype", s.load.compute_dtype);
  config.set_resolved("expname", s.run.expname);
  s.resolved_yaml = config.dump();
}

/// Collective: the file of --client_cfg; a run that goes on keeps its own. "" where there is none.
std::string client_file(Setup const& s, CommandLine const& line, Communicator const& comm) {
  auto file = line.text("client_cfg");
  if (file.empty() && s.resume && comm.rank() == 0 && std::filesystem::exists(s.directory.client_config()))
    file = s.directory.client_config().string();
  comm.broadcast(file, 0);
  return file;
}

/// Collective: where every rank computes and in which type. A run that goes on keeps its type.
void choose_types(Setup& s, CommandLine const& line, Communicator const& comm) {
  bool const prints = line.has("print-config") || line.has("plan");
  s.device = choose_device(prints && s.run.use_gpu == "True" ? "auto" : s.run.use_gpu, comm);
  std::string decided;
  agree(comm, [&] {
    if (comm.rank() == 0 && s.resume && s.run.compute_dtype == "auto" && s.directory.holds_run())
      decided = Config::parse(read_file(s.directory.config()), "config.yaml of the run directory")
                    .text("train.compute_dtype")
                    .value_or("");
  });
  comm.broadcast(decided, 0);
  s.load.storage_dtype = s.run.storage_dtype;
  s.load.device = s.device.device;
  s.load.compute_dtype = decided.empty() ? choose_compute_dtype(s.run, s.model_dir, s.device, comm) : decided;
}

/// One process must not open the shards of two owners.
void check_owners(Setup const& s, Communicator const& comm) {
  auto const owners = s.run.shard_roots.size();
  FSLLM_CHECK(
      owners <= 1 || std::cmp_less_equal(owners, comm.size()),
      "hpc.shard_roots = {} folders ({} ranks: one process would open the shards of several owners). Start "
      "one rank an owner: mpirun -np {}.",
      owners, comm.size(), owners);
}

}  // namespace

int64_t most_tokens(Setup const& s) {
  int64_t const positions = s.model.max_positions, taken = s.run.peft.virtual_tokens;
  FSLLM_CHECK(positions == 0 || taken < positions,
              "llm.adapter.args[0].num_virtual_tokens = {} (the model has {} positions). Lower it.", taken,
              positions);
  return positions == 0 ? 0 : positions - taken;
}

EnvironmentPaths environment_paths(CommandLine const& line, Communicator const& comm) {
  auto const source = line.text("cfg");
  if (source.empty()) return {".", {}};
  auto config = given_keys(line, source, comm);
  RunConfig run;
  agree(comm, [&] { run = load_run_config(config); });
  try {
    return {run.outdir, resolve_model(run)};
  } catch (Error const&) {  // it is not on this node
    return {run.outdir, run.model_type};
  }
}

Setup set_up(CommandLine const& line, Communicator const& comm) {
  auto const cfg = line.text("cfg"), resumed = line.text("resume");
  if (!resumed.empty())
    agree(comm, [&] {
      if (comm.rank() == 0) RunDirectory{resumed}.check_holds_run();
    });
  auto const source = cfg.empty() ? RunDirectory{resumed}.config().string() : cfg;
  auto const given = given_keys(line, source, comm);
  Setup s;
  s.config = configure_run(s, given, comm);
  agree(comm, [&] { configure_model(s, line); });
  auto const clients = client_file(s, line, comm);
  s.client_yaml = shared_file(clients, comm);
  agree(comm, [&] {
    check_packing(s, s.run.train, *s.config);
    configure_clients(s, *s.config, clients);
    check_owners(s, comm);
    check_ranks(s.run.fed.asyn, comm.size());
  });
  choose_types(s, line, comm);
  agree(comm, [&] { open_model(s, comm); });
  return s;
}

void check_clients(Setup const& s, std::vector<int64_t> const& clients,
                   std::function<int64_t(int64_t client)> const& training_rows) {
  for (auto const& [client, own] : s.clients)
    FSLLM_CHECK(std::find(clients.begin(), clients.end(), client) != clients.end(),
                "--client_cfg: there is no client_{} ({} clients, {} to {}). Name one of them.", client,
                clients.size(), clients.front(), clients.back());
  for (auto const client : training_clients(s.run.fed, clients))
    FSLLM_CHECK(
        training_rows(client) > 0,
        "client {} has no training rows (its shard is empty, or no sample kept a target). Use fewer clients, "
        "another data.splitter, or a larger llm.tok_len.",
        client);
}

}  // namespace fsllm
