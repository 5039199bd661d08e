// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/inspect.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/fed/run_directory.hpp"
#include "fsllm/io/checkpoint.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/io/shard.hpp"
#include "fsllm/model/config.hpp"
#include "fsllm/report/report.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

Json split_json(SplitSummary const& split) {
  return {
      {"rows", split.rows}, {"tokens", split.tokens}, {"targets", split.targets}, {"groups", split.groups}};
}

Json client_json(ShardSummary const& client) {
  return {{"client_id", client.client_id},
          {"train", split_json(client.train)},
          {"val", split_json(client.val)},
          {"test", split_json(client.test)},
          {"sha256", client.sha256}};
}

Json shards_json(fs::path const& dir) {
  auto const index = read_shard_index(dir);
  Json facts{{"kind", "shards"},
             {"dataset", index.dataset},
             {"splitter", index.splitter},
             {"prompt_template", index.prompt_template},
             {"tokenizer_sha256", index.tokenizer_sha256},
             {"seed", index.seed},
             {"tok_len", index.tok_len},
             {"clients", Json::array()}};
  if (index.pairs) facts["pairs"] = true;
  for (auto const& client : index.clients) facts["clients"].push_back(client_json(client));
  return facts;
}

Json shard_json(fs::path const& file) {
  auto const shard = read_shard(file);
  Json facts{{"kind", "shard"},
             {"dataset", shard.dataset},
             {"splitter", shard.splitter},
             {"prompt_template", shard.prompt_template},
             {"tokenizer_sha256", shard.tokenizer_sha256},
             {"seed", shard.seed},
             {"tok_len", shard.tok_len},
             {"vocab_size", shard.vocab_size}};
  if (shard.pairs) facts["pairs"] = true;
  facts.update(client_json(summarize(shard, sha256_file(file))));
  return facts;
}

Json checkpoint_json(fs::path const& dir) {
  auto const checkpoint = load_checkpoint(dir);
  Json facts{{"kind", "checkpoint"},
             {"round", checkpoint.round},
             {"tensors", Json::object()},
             {"texts", Json::object()}};
  for (auto const& [section, tensors] : checkpoint.tensors)
    facts["tensors"][section] = {
        {"count", tensors.size()}, {"parameters", num_parameters(tensors)}, {"bytes", num_bytes(tensors)}};
  for (auto const& [section, text] : checkpoint.texts) facts["texts"][section] = text.size();
  return facts;
}

Json tensors_json(SafetensorsReader const& reader) {
  Json facts{{"tensors", reader.names().size()},
             {"parameters", num_parameters(reader.tensors())},
             {"dtypes", Json::object()}};
  for (auto const& name : reader.names()) {
    auto& count = facts["dtypes"][reader.dtype(name)];
    count = count.is_null() ? 1 : count.get<int64_t>() + 1;
  }
  return facts;
}

Json adapter_json(fs::path const& dir) {
  Json facts{{"kind", "adapter"}, {"config", Json(read_json(dir / "adapter_config.json"))}};
  facts.update(tensors_json(SafetensorsReader(dir, "adapter_model")));
  return facts;
}

Json gguf_json(GgufReader const& reader) {
  Json facts{{"tensors", reader.tensors().size()}, {"parameters", 0}, {"dtypes", Json::object()}};
  int64_t parameters = 0;
  for (auto const& [name, tensor] : reader.tensors()) {
    auto& count = facts["dtypes"][tensor.type];
    count = count.is_null() ? 1 : count.get<int64_t>() + 1;
    parameters += tensor.count();
  }
  facts["parameters"] = parameters;
  return facts;
}

Json model_json(fs::path const& dir) {
  auto const config = load_model_config(dir);
  Json facts{{"kind", "model"},
             {"family", config.family},
             {"layers", config.num_layers},
             {"hidden", config.hidden_size},
             {"heads", config.num_heads},
             {"kv_heads", config.num_kv_heads},
             {"vocabulary", config.vocab_size},
             {"positions", config.max_positions},
             {"tokenizer", has_tokenizer(dir)}};
  facts.update(is_gguf(dir) ? gguf_json(GgufReader(dir)) : tensors_json(SafetensorsReader(dir)));
  return facts;
}

Json run_json(RunDirectory const& run) {
  Json facts{{"kind", "run"}, {"finished", fs::exists(run.summary())}};
  if (auto const newest = load_newest_checkpoint(run.checkpoints()))
    facts["newest_checkpoint"] = newest->round;
  if (fs::exists(run.summary())) facts["summary"] = Json(read_json(run.summary()));
  if (fs::exists(run.metrics())) facts["report"] = report_json(read_run_data(run.root));
  return facts;
}

bool is_scalar_list(Json const& value) {
  return value.is_array() &&
         std::none_of(value.begin(), value.end(), [](auto const& item) { return item.is_structured(); });
}

}  // namespace

Json inspect(fs::path const& path) {
  FSLLM_CHECK(fs::exists(path),
              "{} does not exist. Give a shard, checkpoint, adapter, model or run directory.", path.string());
  if (!fs::is_directory(path)) {
    if (path.extension() == ".gguf") return model_json(path);
    FSLLM_CHECK(path.extension() == ".h5",
                "{} is neither a shard nor a GGUF model (its name ends in neither .h5 nor .gguf). Give the "
                "folder instead.",
                path.string());
    return shard_json(path);
  }
  if (fs::exists(path / "index.json")) return shards_json(path);
  if (fs::exists(path / "state.h5")) return checkpoint_json(path);
  if (fs::exists(path / "adapter_config.json")) return adapter_json(path);
  if (fs::exists(path / "config.json")) return model_json(path);
  if (RunDirectory const run{path}; run.holds_run()) return run_json(run);
  fail(fmt::format(
      "{} holds nothing known (no index.json, state.h5, adapter_config.json, config.json or config.yaml). "
      "Give a folder of shards, a checkpoint, an adapter, a model or a run directory.",
      path.string()));
}

std::string readable(Json const& facts, int indent) {
  std::string text;
  std::string const space(static_cast<size_t>(indent), ' ');
  auto const line = [&](std::string const& name, Json const& value) {
    if (value.is_structured() && !is_scalar_list(value))
      text += fmt::format("{}{}:\n{}", space, name, readable(value, indent + 2));
    else
      text +=
          fmt::format("{}{}: {}\n", space, name, value.is_string() ? value.get<std::string>() : value.dump());
  };
  if (facts.is_array())
    for (size_t i = 0; i < facts.size(); ++i) line(fmt::format("[{}]", i), facts[i]);
  else
    for (auto const& [name, value] : facts.items()) line(name, value);
  return text;
}

std::string inspect_text(fs::path const& path) {
  RunDirectory const run{path};
  if (!run.holds_run() || !fs::exists(run.metrics())) return readable(inspect(path));
  auto text = report_text(read_run_data(path));
  if (auto const rounds = checkpoint_rounds(run.checkpoints()); !rounds.empty())
    text += fmt::format("\nnewest checkpoint: round {}\n", rounds.back());
  return text;
}

struct TokenizeSession::Impl {
  std::unique_ptr<Tokenizer> tokenizer;
};

TokenizeSession::TokenizeSession(fs::path const& model_dir)
    : impl_(std::make_unique<Impl>(Impl{load_tokenizer(model_dir)})) {}

TokenizeSession::~TokenizeSession() = default;

std::string TokenizeSession::answer(nlohmann::json const& row, std::string const& place) const {
  bool const text = row.contains("text") && row.at("text").is_string();
  bool const ids = row.contains("ids") && row.at("ids").is_array();
  FSLLM_CHECK(text != ids,
              "{}: a row needs either \"text\" (a string) or \"ids\" (a list of numbers). Correct it.",
              place);
  if (text) {
    bool const special = row.value("add_special_tokens", true);
    return Json{{"ids", impl_->tokenizer->encode(row.at("text").get<std::string>(), special)}}.dump();
  }
  std::vector<int32_t> list;
  for (auto const& id : row.at("ids")) {
    FSLLM_CHECK(id.is_number_integer() && id.get<int64_t>() >= 0 &&
                    id.get<int64_t>() < impl_->tokenizer->vocab_size(),
                "{}: {} is not a token id (the tokenizer has {}). Correct it.", place, id.dump(),
                impl_->tokenizer->vocab_size());
    list.push_back(id.get<int32_t>());
  }
  return Json{{"text", impl_->tokenizer->decode(list)}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace fsllm
