// SPDX-License-Identifier: Apache-2.0
// Models, tokenizers, data, adapters and shards as they arrive damaged: each ends with one message that names
// the file and what to do.
#include "damage.hpp"

namespace fsllm::test {
namespace {

class BadFile : public testing::TestWithParam<Damage> {};

TEST_P(BadFile, IsNamed) {
  TempDir dir;
  prepare(dir.path());
  ASSERT_NO_FATAL_FAILURE(GetParam().work(dir.path()));
  expect_refused(GetParam(), dir.path());
}

std::vector<std::string> const kInitFrom{"llm.adapter.init_from", "DIR/adapter"};
std::vector<std::string> const kInitArgs{"llm.adapter", "{use: True, init_from: DIR/adapter}"};
// Virtual tokens take some of the model's positions.
std::vector<std::string> const kInitWithShortRows{"llm.adapter", "{use: True, init_from: DIR/adapter}",
                                                  "llm.tok_len", "40"};

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
       "model type 'WordPiece' is not supported (BPE and Unigram are)"},
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
       "alpaca_data.json.gz:1: the gzip stream ends too early. Copy the file again, or"},
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
      {"adapter_of_another_method", json_edit(adapter, [](json& j) { j["peft_type"] = "PREFIX_TUNING"; }),
       "unexpected tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
       kInitWithShortRows},
      {"adapter_of_loha", json_edit(adapter, [](json& j) { j["peft_type"] = "LOHA"; }),
       "peft_type = 'LOHA' (not available in this version)", kInitArgs},
  };
}

INSTANTIATE_TEST_SUITE_P(Damaged, BadFile, testing::ValuesIn(damages()),
                         [](auto const& instance) { return instance.param.name; });

/// Shards made once by fsllm_shard; each case damages a copy.

}  // namespace
}  // namespace fsllm::test
