// SPDX-License-Identifier: Apache-2.0
// Models, tokenizers, data, adapters and shards as they arrive damaged: each ends with one message that names
// the file and what to do.
#include <fmt/core.h>

#include <fstream>
#include <functional>

#include "bad_input.hpp"
#include "fsllm/io/h5.hpp"
#include "fsllm/io/shard.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Damage {
  std::string name;
  std::function<void(fs::path const&)> work;  ///< on a folder with model/, data/, adapter/, shards/
  std::string message;                        ///< DIR stands for that folder
  std::vector<std::string> overrides = {};
  int np = 0;
};

void write(fs::path const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Changes one JSON file.
std::function<void(fs::path const&)> json_edit(std::string const& file,
                                               std::function<void(json&)> const& edit) {
  return [=](fs::path const& dir) {
    auto document = json::parse(read_text(dir / file));
    edit(document);
    write(dir / file, document.dump());
  };
}

std::function<void(fs::path const&)> text_edit(std::string const& file, std::string const& from,
                                               std::string const& to) {
  return [=](fs::path const& dir) {
    auto bytes = read_text(dir / file);
    auto const at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write(dir / file, bytes.replace(at, from.size(), to));
  };
}

std::function<void(fs::path const&)> content(std::string const& file, std::string const& bytes) {
  return [=](fs::path const& dir) { write(dir / file, bytes); };
}

/// As content(), in place of tokenizer.json.
std::function<void(fs::path const&)> sentencepiece(std::string const& bytes) {
  return [=](fs::path const& dir) {
    fs::remove(dir / "model/tokenizer.json");
    write(dir / "model/tokenizer.model", bytes);
  };
}

std::string yaml(fs::path const& dir) {
  return fmt::format(
      "outdir: {0}\nexpname: run\nmodel: {{type: {0}/model}}\n"
      "data: {{root: {0}/data, type: alpaca@llm, splitter: iid, splits: [0.8, 0.2, 0.0]}}\n"
      "federate: {{client_num: 3, total_round_num: 1}}\ntrain: {{local_update_steps: 1}}\n"
      "llm: {{tok_len: 48, adapter: {{use: True, args: [{{r: 4, lora_alpha: 8}}]}}}}\n",
      dir.string());
}

void prepare(fs::path const& dir) {
  write_text_model(dir / "model");
  write_data_sets(dir / "data");
  fs::copy(reference_dir("llama") / "adapter", dir / "adapter");
}

void expect_refused(Damage const& damage, fs::path const& dir) {
  auto const config = write_config(dir, yaml(dir)).string();
  std::vector<std::string> words{"fsllm_hpc", "--cfg", config};
  auto message = damage.message;
  auto const in_dir = [&](std::string text) {
    if (auto const at = text.find("DIR"); at != std::string::npos) text.replace(at, 3, dir.string());
    return text;
  };
  for (auto const& word : damage.overrides) words.push_back(in_dir(word));
  expect_message(run(dir, damage.np, words), in_dir(message));
  EXPECT_FALSE(fs::exists(dir / "run/config.yaml")) << "what failed before training holds no run";
}

class BadFile : public testing::TestWithParam<Damage> {};

TEST_P(BadFile, IsNamed) {
  TempDir dir;
  prepare(dir.path());
  ASSERT_NO_FATAL_FAILURE(GetParam().work(dir.path()));
  expect_refused(GetParam(), dir.path());
}

std::vector<std::string> const kInitFrom{"llm.adapter.init_from", "DIR/adapter"};
std::vector<std::string> const kInitArgs{"llm.adapter", "{use: True, init_from: DIR/adapter}"};

void keep(fs::path const&) {}

std::vector<Damage> damages() {
  auto const tokenizer = std::string("model/tokenizer.json"), config = std::string("model/config.json"),
             weights = std::string("model/model.safetensors"), data = std::string("data/alpaca_data.json"),
             adapter = std::string("adapter/adapter_config.json");
  return {
      // Tokenizers.
      {"tokenizer_cut",
       content(tokenizer, "{\"model\": {\"type\": \"BPE\""),
       "DIR/model/tokenizer.json:1:25: syntax error while parsing object - unexpected end of input; expected "
       "'}'. Correct it, or copy the file again.",
       {},
       2},
      {"tokenizer_empty", content(tokenizer, ""),
       "DIR/model/tokenizer.json is empty (a JSON document is needed). Copy the file again."},
      {"tokenizer_list", content(tokenizer, "[1, 2]"),
       "DIR/model/tokenizer.json: not a tokenizer.json of Hugging Face tokenizers (it is no JSON object)"},
      {"tokenizer_without_model", json_edit(tokenizer, [](json& j) { j.erase("model"); }),
       "DIR/model/tokenizer.json: not a tokenizer.json of Hugging Face tokenizers (key 'model' not found)"},
      {"tokenizer_without_vocab", json_edit(tokenizer, [](json& j) { j["model"].erase("vocab"); }),
       "DIR/model/tokenizer.json: not a tokenizer.json of Hugging Face tokenizers (key 'vocab' not found)"},
      {"tokenizer_wordpiece", json_edit(tokenizer, [](json& j) { j["model"]["type"] = "WordPiece"; }),
       "model type 'WordPiece' is not supported (BPE is)"},
      {"tokenizer_merge_of_three", json_edit(tokenizer, [](json& j) { j["model"]["merges"] = {"a b c"}; }),
       "merge 0 is \"a b c\" (it must be two tokens"},
      {"tokenizer_merge_unknown", json_edit(tokenizer, [](json& j) { j["model"]["merges"] = {"a b"}; }),
       "merge 0 needs 'a', 'b' and 'ab', which are not all in vocab"},
      {"tokenizer_negative_id", json_edit(tokenizer, [](json& j) { j["model"]["vocab"]["a"] = -1; }),
       "the id of token 'a' is -1"},
      {"tokenizer_of_another_model",
       json_edit(tokenizer, [](json& j) { j["model"]["vocab"]["W"] = 200; }),
       "token id 200 (the model's vocabulary has 96). Use the tokenizer that belongs to the model.",
       {},
       2},
      {"tokenizer_without_end",
       [](fs::path const& d) {
         for (int i = 0; i < 2; ++i) text_edit("model/tokenizer.json", "</s>", "<E>")(d);
         json_edit("model/config.json", [](json& j) { j.erase("eos_token_id"); })(d);
       },
       "the tokenizer has no end-of-text token"},
      {"tokenizer_absent", [](fs::path const& d) { fs::remove(d / "model/tokenizer.json"); },
       "tokenizer.json or tokenizer.model"},
      {"sentencepiece_garbage", sentencepiece("this is no model\n"),
       "DIR/model/tokenizer.model: not a SentencePiece model (17 bytes that do not parse)"},
      {"sentencepiece_empty", sentencepiece(""),
       "DIR/model/tokenizer.model: not a SentencePiece model (it is empty)"},
      {"sentencepiece_lfs_pointer",
       sentencepiece("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
       "DIR/model/tokenizer.model: not a SentencePiece model (a Git LFS pointer stands in its place; run git "
       "lfs pull)"},
      // Models.
      {"weights_lfs_pointer",
       content(weights, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
       "DIR/model/model.safetensors is not a valid safetensors file (a Git LFS pointer stands in its place; "
       "run git lfs pull)"},
      {"weights_missing_tensor",
       text_edit(weights, "model.norm.weight", "model.nrom.weight"),
       "missing: model.norm.weight; unexpected: model.nrom.weight",
       {},
       2},
      {"weights_of_other_type", text_edit(weights, "\"F32\"", "\"I32\""),
       "has type I32 (weights must be F32, BF16 or F16)"},
      {"weights_of_unknown_type", text_edit(weights, "\"F32\"", "\"Q42\""),
       "'lm_head.weight' has the unknown dtype Q42"},
      {"index_names_missing_shard",
       [](fs::path const& d) {
         fs::remove(d / "model/model.safetensors");
         write(d / "model/model.safetensors.index.json",
               R"({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})");
       },
       "model-00001-of-00002.safetensors"},
      {"index_without_map",
       [](fs::path const& d) {
         fs::remove(d / "model/model.safetensors");
         write(d / "model/model.safetensors.index.json", "{}");
       },
       "model.safetensors.index.json"},
      {"pickle_only",
       [](fs::path const& d) { fs::rename(d / "model/model.safetensors", d / "model/pytorch_model.bin"); },
       "pytorch_model.bin"},
      {"config_list", content(config, "[]"), "DIR/model/config.json"},
      {"config_heads", json_edit(config, [](json& j) { j["num_key_value_heads"] = 3; }),
       "4 attention heads (not a multiple of 3 key/value heads)"},
      {"config_text_for_number", json_edit(config, [](json& j) { j["hidden_size"] = "big"; }),
       "'hidden_size' = \"big\""},
      {"config_huge", json_edit(config, [](json& j) { j["num_hidden_layers"] = 1000000000; }),
       "'num_hidden_layers' = 1000000000 (must be in 1 .. 10000)"},
      {"config_without_type", json_edit(config, [](json& j) { j.erase("model_type"); }),
       "DIR/model/config.json: model_type = '' (not a model family of this version). Known: llama"},
      {"folder_empty",
       [](fs::path const& d) {
         fs::remove_all(d / "model");
         fs::create_directory(d / "model");
       },
       "no config.json in DIR/model"},
      // Data.
      {"data_empty", content(data, ""), "DIR/data/alpaca_data.json has no rows"},
      {"data_empty_list", content(data, "[]"), "DIR/data/alpaca_data.json has no rows"},
      {"data_field_missing",
       content(data, "[{\"instruction\": \"a\"}]"),
       "alpaca_data.json:1: field 'output' is missing (the row has: instruction)",
       {},
       2},
      {"data_wrong_type", content(data, "[{\"instruction\": 5, \"output\": \"a\"}]"),
       "alpaca_data.json:1: field 'instruction' is not a text but a JSON number"},
      {"data_row_is_text", content(data, "[\"a\", \"b\"]"),
       "alpaca_data.json:1: expected a JSON object, found string. Correct the row, or set data.on_bad_row: "
       "skip."},
      {"data_cut", content(data, "[{\"instruction\": \"a\", \"output\": \"b\"},\n {\"instr"),
       "alpaca_data.json:2: syntax error while parsing object key - invalid string: missing closing quote"},
      {"data_nul", content(data, std::string("[{\"instruction\": \"a\0b\", \"output\": \"b\"}]", 38)),
       "alpaca_data.json:1: syntax error while parsing value - invalid string: control character U+0000"},
      {"data_bad_utf8", content(data, "[{\"instruction\": \"\xff\xfe\", \"output\": \"b\"}]"),
       "alpaca_data.json:1: syntax error while parsing value - invalid string: ill-formed UTF-8 byte"},
      {"data_html", content(data, "<!DOCTYPE html>\n<html>404</html>\n"),
       "alpaca_data.json:1: syntax error while parsing value - invalid literal"},
      {"data_gzip_cut",
       [](fs::path const& d) {
         fs::remove(d / "data/alpaca_data.json");
         write(d / "data/alpaca_data.json.gz",
               std::string("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x8b", 11));
       },
       "unexpected end of file). Copy the file again."},
      {"data_gzip_garbage",
       [](fs::path const& d) {
         fs::remove(d / "data/alpaca_data.json");
         write(d / "data/alpaca_data.json.gz", "no gzip");
       },
       "alpaca_data.json.gz:1: syntax error"},
      {"rows_beyond_the_positions",
       keep,
       "llm.tok_len = 100 (the model takes 64 tokens, and a row has 100). Set it to 64.",
       {"--check", "llm.tok_len", "100"}},
      {"data_is_folder",
       [](fs::path const& d) {
         fs::remove(d / "data/alpaca_data.json");
         fs::create_directory(d / "data/alpaca_data.json");
       },
       "alpaca_data.json"},
      {"data_root_absent",
       [](fs::path const& d) { fs::remove_all(d / "data"); },
       "Put it there under this name",
       {},
       2},
      // Adapters.
      {"adapter_other_rank",
       keep,
       "llm.adapter.args[0].r = 8 (the adapter of llm.adapter.init_from, DIR/adapter, has 4)",
       {"llm.adapter", "{use: True, init_from: DIR/adapter, args: [{r: 8}]}"}},
      {"adapter_other_targets",
       keep,
       "target_modules = [k_proj] (the adapter of",
       {"llm.adapter", "{use: True, init_from: DIR/adapter, args: [{target_modules: [k_proj]}]}"},
       2},
      {"adapter_other_shape", json_edit(adapter, [](json& j) { j["r"] = 2; }), "(this model and rank need [",
       kInitArgs},
      {"adapter_missing_tensor",
       json_edit(adapter,
                 [](json& j) {
                   j["target_modules"] = {"q_proj", "v_proj", "k_proj"};
                 }),
       "DIR/adapter lacks the tensor base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight (its "
       "adapter_config.json asks for it)",
       kInitArgs},
      {"adapter_config_missing", [](fs::path const& d) { fs::remove(d / "adapter/adapter_config.json"); },
       "no adapter_config.json in DIR/adapter", kInitFrom},
      {"adapter_config_cut", content(adapter, "{\"r\": 4,"), "DIR/adapter/adapter_config.json:1", kInitFrom},
      {"adapter_weights_cut",
       [](fs::path const& d) { fs::resize_file(d / "adapter/adapter_model.safetensors", 300); },
       "DIR/adapter/adapter_model.safetensors", kInitArgs, 2},
      {"adapter_weights_missing",
       [](fs::path const& d) { fs::remove(d / "adapter/adapter_model.safetensors"); },
       "DIR/adapter holds neither adapter_model.safetensors nor adapter_model.safetensors.index.json (no "
       "weights)",
       kInitArgs},
      {"adapter_of_prefix", json_edit(adapter, [](json& j) { j["peft_type"] = "PREFIX_TUNING"; }),
       "peft_type = 'PREFIX_TUNING' (not available in this version)", kInitArgs},
  };
}

INSTANTIATE_TEST_SUITE_P(Damaged, BadFile, testing::ValuesIn(damages()),
                         [](auto const& instance) { return instance.param.name; });

/// Shards made once by fsllm_shard; each case damages a copy.
class BadShard : public testing::TestWithParam<Damage> {
 protected:
  static void SetUpTestSuite() {
    made_ = std::make_unique<TempDir>();
    prepare(made_->path());
    auto const config = write_config(made_->path(), yaml(made_->path())).string();
    auto const outcome =
        run(made_->path(), 0, {"fsllm_shard", "--cfg", config, "--out", (*made_ / "shards").string()});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  static void TearDownTestSuite() { made_.reset(); }
  static inline std::unique_ptr<TempDir> made_;
};

TEST_P(BadShard, IsNamed) {
  TempDir dir;
  fs::copy(made_->path(), dir.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  ASSERT_NO_FATAL_FAILURE(GetParam().work(dir.path()));
  auto damage = GetParam();
  damage.overrides = {"data.shards", "DIR/shards"};
  expect_refused(damage, dir.path());
}

/// Puts a shard with other fields in the place of client 2's, and its checksum into the index.
std::function<void(fs::path const&)> other_shard(std::function<void(ClientShard&)> const& change) {
  return [=](fs::path const& dir) {
    auto shard = read_shard(shard_path(dir / "shards", 2));
    change(shard);
    auto const sha256 = write_shard(shard_path(dir / "shards", 2), shard);
    auto index = read_shard_index(dir / "shards");
    for (auto& client : index.clients)
      if (client.client_id == 2) {
        client = summarize(shard, sha256);
        client.client_id = 2;
      }
    write_shard_index(dir / "shards", index);
  };
}

std::vector<Damage> shard_damages() {
  auto const index = std::string("shards/index.json"), second = std::string("shards/client_00002.h5");
  return {
      {"truncated",
       [=](fs::path const& d) { fs::resize_file(d / second, 900); },
       "client_00002.h5 (truncated file",
       {},
       2},
      {"absent", [=](fs::path const& d) { fs::remove(d / second); },
       "client_00002.h5 (No such file or directory)"},
      {"no_hdf5", content(second, "no shard"), "client_00002.h5 (file signature not found)"},
      {"bytes_changed",
       text_edit(second, "client_shard", "clientXshard"),
       "client_00002.h5 is not a client shard (its attribute fsllm_format is not 'client_shard')",
       {},
       2},
      {"other_version",
       [=](fs::path const& d) {
         h5::File file(d / second, h5::Mode::create);
         file.set_attribute("/", "fsllm_format", "client_shard");
         file.set_attribute("/", "version", int64_t{99});
         file.close();
       },
       "client_00002.h5 has shard version 99 (this program reads version 1). Make the shards again"},
      {"other_tokenizer",
       text_edit("model/tokenizer.json", "\"version\":\"1.0\"", "\"version\":\"2.0\""),
       "was made with another tokenizer (SHA-256 ",
       {},
       2},
      {"token_beyond_vocabulary", other_shard([](ClientShard& s) {
         s.vocab_size = 500;
         s.train.tokens[0] = 400;
       }),
       "token id 400 (the model has 96 tokens)"},
      {"other_client", other_shard([](ClientShard& s) { s.client_id = 7; }),
       "client_00002.h5 is not the shard that index.json lists (it holds client 7;"},
      {"index_missing",
       [=](fs::path const& d) { fs::remove(d / index); },
       "DIR/shards holds no index.json (no folder of shards). Give the folder that fsllm_shard wrote.",
       {},
       2},
      {"index_cut", content(index, "{\"fsllm_format\": \"shard_ind"), "index.json:1"},
      {"index_of_other_version", json_edit(index, [](json& j) { j["version"] = 2; }),
       "is not a shard index of version 1"},
      {"index_without_clients", json_edit(index, [](json& j) { j["clients"] = json::array(); }),
       "lists no client"},
      {"index_checksum", json_edit(index, [](json& j) { j["clients"][1]["sha256"] = std::string(64, '0'); }),
       "client_00002.h5 is not the shard that index.json lists (it holds client 2; its checksum differs). "
       "Make the shards again"},
      {"fewer_clients", json_edit(index, [](json& j) { j["clients"].erase(2); }),
       "federate.client_num = 3 (only 2 client shards"},
  };
}

INSTANTIATE_TEST_SUITE_P(Damaged, BadShard, testing::ValuesIn(shard_damages()),
                         [](auto const& instance) { return instance.param.name; });

/// A run of two rounds made once; each case damages a copy and continues it for two more.
class BadCheckpoint : public testing::TestWithParam<Damage> {
 protected:
  static void SetUpTestSuite() {
    made_ = std::make_unique<TempDir>();
    prepare(made_->path());
    auto const config = write_config(made_->path(), yaml(made_->path())).string();
    auto const outcome =
        run(made_->path(), 0, {"fsllm_hpc", "--cfg", config, "federate.total_round_num", "2"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  static void TearDownTestSuite() { made_.reset(); }
  static inline std::unique_ptr<TempDir> made_;
};

TEST_P(BadCheckpoint, IsNamed) {
  TempDir dir;
  fs::copy(made_->path(), dir.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  ASSERT_NO_FATAL_FAILURE(GetParam().work(dir.path()));
  // The copy's own paths stand for the original's, as on a machine where the run was moved.
  auto const config = write_config(dir.path(), yaml(made_->path())).string();
  std::vector<std::string> words{"fsllm_hpc", "--cfg", config, "outdir", dir.path().string()};
  words.insert(words.end(), GetParam().overrides.begin(), GetParam().overrides.end());
  words.insert(words.end(), {"federate.total_round_num", "4", "--resume"});
  expect_message(run(dir.path(), GetParam().np, words), GetParam().message);
}

std::vector<Damage> checkpoint_damages() {
  auto const each = [](auto const& work) {
    return [=](fs::path const& d) {
      for (auto const& round : fs::directory_iterator(d / "run/checkpoints")) work(round.path());
    };
  };
  return {
      {"all_truncated",
       each([](fs::path const& p) { fs::resize_file(p / "state.h5", 600); }),
       "run/checkpoints can be read (the warnings above name the damage)",
       {},
       2},
      {"manifests_missing", each([](fs::path const& p) { fs::remove(p / "manifest.json"); }),
       "run/checkpoints can be read (the warnings above name the damage)"},
      {"manifests_broken", each([](fs::path const& p) { write(p / "manifest.json", "{"); }),
       "run/checkpoints can be read (the warnings above name the damage)"},
      {"folders_empty", each([](fs::path const& p) {
         fs::remove_all(p);
         fs::create_directory(p);
       }),
       "run/checkpoints can be read (the warnings above name the damage)"},

      {"no_run", [](fs::path const& d) { fs::remove_all(d / "run"); }, "holds no run to continue"},
      {"other_layout",
       keep,
       "--resume with another configuration: llm.adapter.args[0].r (4 before, 8 now)",
       {"llm.adapter.args", "[{r: 8, lora_alpha: 8}]"},
       2},
      {"other_seed", keep, "seed (0 before, 5 now)", {"seed", "5"}},
      {"config_damaged", content("run/config.yaml", "seed: [1\n"),
       "config.yaml of the run directory:2 is not valid YAML"},
  };
}

INSTANTIATE_TEST_SUITE_P(Damaged, BadCheckpoint, testing::ValuesIn(checkpoint_damages()),
                         [](auto const& instance) { return instance.param.name; });

}  // namespace
}  // namespace fsllm::test
