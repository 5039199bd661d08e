// SPDX-License-Identifier: Apache-2.0
// Parquet through the programs: the same shards and adapters as from JSON lines, and one message for a bad
// file.
#include "damage.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "parquet_writer.hpp"

namespace fsllm::test {
namespace {

class ParquetFiles : public testing::Test {
 protected:
  /// The same rows in lines/NAME.jsonl and table/NAME.parquet.
  void write_both(std::string const& name, std::vector<json> const& rows) const {
    std::string lines;
    for (auto const& row : rows) lines += row.dump() + "\n";
    for (auto const* folder : {"lines", "table"}) fs::create_directories(dir_ / folder);
    write(dir_ / "lines" / (name + ".jsonl"), lines);
    write(dir_ / "table" / (name + ".parquet"), parquet(rows));
  }
  /// Shards `root` by fsllm_shard; name and SHA-256 of each file.
  std::map<std::string, std::string> shards(std::string const& root, int ranks, std::string const& data) {
    auto const out = dir_ / ("shards" + std::to_string(++calls_));
    auto const config = write_config(
        dir_.path(),
        fmt::format(
            "outdir: {0}\nmodel: {{type: {1}}}\ndata: {{root: {0}/{2}, splits: [0.8, 0.1, 0.1], {3}}}\n"
            "federate: {{client_num: 5}}\nllm: {{tok_len: 400}}\n",
            dir_.path().string(), test_data("models/stories260K").string(), root, data));
    auto const made =
        run(dir_.path(), ranks, {"fsllm_shard", "--cfg", config.string(), "--out", out.string()});
    EXPECT_EQ(made.exit_code, 0) << made.err << made.out;
    return file_checksums(out);
  }
  TempDir dir_;
  int calls_ = 0;
};

std::vector<json> rows_of(fs::path const& file) {
  std::vector<json> rows;
  for_each_json_record(file, [&](json const& row, RecordPlace const&) { rows.push_back(row); });
  return rows;
}

TEST_F(ParquetFiles, GiveGsm8kTheShardsOfItsJsonLines) {
  FSLLM_NEED_TEST_DATA("datasets/gsm8k/train.jsonl");
  write_both("gsm8k_train", rows_of(test_data("datasets/gsm8k/train.jsonl")));
  std::string const data = "type: gsm8k@llm, splitter: iid, subsample: 0.3";
  auto const expected = shards("lines", 0, data);
  EXPECT_EQ(expected.size(), 9U);
  for (int const ranks : {0, 2}) EXPECT_EQ(shards("table", ranks, data), expected) << ranks;
}

TEST_F(ParquetFiles, GiveDollyTheShardsOfItsJsonLines) {
  FSLLM_NEED_TEST_DATA("datasets/dolly15k-fed10/local_training_0.json.gz");
  write_both("databricks-dolly-15k", rows_of(test_data("datasets/dolly15k-fed10/local_training_0.json.gz")));
  std::string const data = "type: dolly-15k@llm, splitter: lda";
  auto const expected = shards("lines", 0, data);
  for (int const ranks : {0, 2, 3}) EXPECT_EQ(shards("table", ranks, data), expected) << ranks;
}

TEST_F(ParquetFiles, TrainTheSameAdapter) {
  prepare(dir_.path());
  write_both("alpaca_data", rows_of(dir_ / "data/alpaca_data.json"));
  auto const config = write_config(dir_.path(), yaml(dir_.path())).string();
  auto const adapter = [&](std::string const& root, int ranks) {
    auto const name = root + std::to_string(ranks);
    auto const trained =
        run(dir_.path(), ranks,
            {"fsllm_hpc", "--cfg", config, "expname", name, "data.root", (dir_ / root).string()});
    EXPECT_EQ(trained.exit_code, 0) << trained.err << trained.out;
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  };
  auto const expected = adapter("data", 0);
  for (int const ranks : {0, 2}) EXPECT_EQ(adapter("table", ranks), expected) << ranks;
}

std::string fixture(std::string const& name) {
  return read_text(source_file("tests/fuzz/corpus/parquet/" + name + ".parquet"));
}

/// Three row groups of ten rows; `damaged` spoils a length in the second.
std::string thirty_rows(bool damaged) {
  std::vector<json> rows;
  for (int i = 0; i < 30; ++i) rows.push_back({{"text", "row " + std::to_string(i) + "."}});
  auto bytes = parquet(rows, {10, false});
  if (damaged) bytes[bytes.find("row 15.") - 1] = '\x7f';
  return bytes;
}

class BadParquet : public testing::TestWithParam<Damage> {};

TEST_P(BadParquet, IsNamed) {
  TempDir dir;
  prepare(dir.path());
  auto damage = GetParam();
  damage.work(dir.path());
  if (damage.overrides.empty()) damage.overrides = {"data.type", "x.parquet"};
  expect_refused(damage, dir.path());
}

std::vector<Damage> damages() {
  std::string const file = "data/x.parquet", whole = thirty_rows(false);
  return {
      {"cut",
       content(file, whole.substr(0, whole.size() / 2)),
       "DIR/data/x.parquet: not a whole Parquet file (Parquet magic bytes not found in footer",
       {},
       2},
      {"end_cut", content(file, whole.substr(0, whole.size() - 1)),
       "DIR/data/x.parquet: not a whole Parquet file ("},
      {"footer_spoiled",
       content(file,
               whole.substr(0, whole.size() - 20) + std::string(12, '\xff') + whole.substr(whole.size() - 8)),
       "DIR/data/x.parquet: not a whole Parquet file ("},
      {"garbage", content(file, std::string(3000, 'g')),
       "DIR/data/x.parquet: not a whole Parquet file (Parquet magic bytes"},
      {"json", content(file, "{\"text\":\"t\"}\n{\"text\":\"t\"}\n"),
       "DIR/data/x.parquet: not a whole Parquet file ("},
      {"empty", content(file, ""),
       "DIR/data/x.parquet: not a whole Parquet file (it is empty). Copy the file again."},
      {"lfs_pointer", content(file, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
       "(a Git LFS pointer stands in its place; run git lfs pull)"},
      {"no_rows",
       content(file, fixture("no_rows")),
       "DIR/data/x.parquet has no rows (it is empty). Check the file.",
       {},
       2},
      {"columns_missing",
       content(file, parquet({{{"title", "a"}, {"body", "b"}}})),
       "DIR/data/x.parquet:row 1: field 'instruction' is missing (the row has: body, title). Correct the "
       "row, or set "
       "data.on_bad_row: skip.",
       {},
       2},
      {"wrong_type", content(file, parquet({{{"text", 1.5}}})),
       "DIR/data/x.parquet:row 1: field 'text' is not a text but a JSON number."},
      {"unsupported_type",
       [](fs::path const& dir) { write(dir / "data/x.parquet", fixture("map")); },
       "DIR/data/x.parquet: column 'm' is of type map<string, int64",
       {"data.type", "x.parquet", "data.splitter", "natural", "data.splitter_args", "[{field: m}]"}},
      {"bytes",
       [](fs::path const& dir) { write(dir / "data/x.parquet", fixture("others")); },
       "DIR/data/x.parquet:row 1: column 'bytes': ill-formed UTF-8. Correct the row, or set data.on_bad_row: "
       "skip.",
       {"data.type", "x.parquet", "data.splitter", "natural", "data.splitter_args", "[{field: bytes}]"}},
      {"page",
       content(file, thirty_rows(true)),
       "x.parquet:row 11: the Parquet rows 11 to 20 cannot be read (",
       {},
       2},
      {"gzip",
       content("data/x.parquet.gz", "any"),
       "(Parquet is packed by itself, and not read inside gzip)",
       {"data.type", "x.parquet.gz"}},
  };
}

INSTANTIATE_TEST_SUITE_P(Damaged, BadParquet, testing::ValuesIn(damages()),
                         [](auto const& instance) { return instance.param.name; });

TEST_F(ParquetFiles, ADamagedPageCanBeSkipped) {
  prepare(dir_.path());
  write(dir_ / "data/x.parquet", thirty_rows(true));
  auto const config = write_config(dir_.path(), yaml(dir_.path())).string();
  for (int const ranks : {0, 2}) {
    auto const trained = run(dir_.path(), ranks,
                             {"fsllm_hpc", "--cfg", config, "expname", std::to_string(ranks), "data.type",
                              "x.parquet", "data.on_bad_row", "skip"});
    EXPECT_EQ(trained.exit_code, 0) << trained.err << trained.out;
    EXPECT_THAT(trained.err + trained.out, testing::HasSubstr("x.parquet: 10 bad rows skipped, 20 read."));
  }
  EXPECT_EQ(read_text(dir_ / "0/adapter/adapter_model.safetensors"),
            read_text(dir_ / "2/adapter/adapter_model.safetensors"));
}

/// Bytes flipped anywhere: a message of ours, or rows.
TEST_F(ParquetFiles, FlippedBytesNeverCrash) {
  FSLLM_NEED_TEST_DATA("datasets/gsm8k/train.jsonl");
  auto rows = rows_of(test_data("datasets/gsm8k/train.jsonl"));
  rows.resize(300);
  auto const whole = parquet(rows, {100});
  prepare(dir_.path());
  auto const config = write_config(dir_.path(), yaml(dir_.path())).string();
  for (size_t part = 1; part < 12; ++part) {
    auto bytes = whole;
    auto const at = whole.size() * part / 12;
    for (size_t i = 0; i < 3; ++i) bytes[at + i * 5] = static_cast<char>(bytes[at + i * 5] ^ 0x5a);
    write(dir_ / "data/gsm8k_train.parquet", bytes);
    fs::remove(dir_ / "data/gsm8k_train.jsonl");
    for (std::string const bad : {"error", "skip"}) {
      auto const outcome = run(dir_.path(), 0,
                               {"fsllm_shard", "--cfg", config, "--preview", "300", "--set",
                                "data.type=gsm8k@llm", "--set", "data.on_bad_row=" + bad});
      if (outcome.exit_code != 0) expect_message(outcome, "gsm8k_train.parquet");
    }
  }
}

}  // namespace
}  // namespace fsllm::test
