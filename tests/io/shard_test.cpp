// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/shard.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/h5.hpp"
#include "full_disk.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using test::FullDisk;
using test::TempDir;
using testing::ElementsAre;

ClientShard example(int64_t vocabulary = 50000) {
  ClientShard shard;
  shard.client_id = 17;
  shard.dataset = "gsm8k";
  shard.splitter = "lda";
  shard.tokenizer_sha256 = std::string(64, 'a');
  shard.prompt_template = "alpaca";
  shard.seed = -3;
  shard.tok_len = 128;
  shard.vocab_size = vocabulary;
  shard.group_names = {"qa", "summe \"é\""};
  auto const last = static_cast<int32_t>(vocabulary - 1);
  shard.train.append({1, 2, last}, {0, 1, 1}, 1);
  shard.train.append({}, {}, -1);
  shard.train.append({5}, {0}, 0);
  shard.val.append({7, 8}, {0, 1}, 1);
  return shard;
}

void expect_equal(TokenSplit const& a, TokenSplit const& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.target, b.target);
  EXPECT_EQ(a.offsets, b.offsets);
  EXPECT_EQ(a.group, b.group);
}

void expect_equal(ClientShard const& a, ClientShard const& b) {
  EXPECT_EQ(std::tie(a.client_id, a.dataset, a.splitter, a.tokenizer_sha256, a.prompt_template),
            std::tie(b.client_id, b.dataset, b.splitter, b.tokenizer_sha256, b.prompt_template));
  EXPECT_EQ(std::tie(a.seed, a.tok_len, a.vocab_size, a.group_names),
            std::tie(b.seed, b.tok_len, b.vocab_size, b.group_names));
  expect_equal(a.train, b.train);
  expect_equal(a.val, b.val);
  expect_equal(a.test, b.test);
}

TEST(Shard, RoundTripInBothWidths) {
  TempDir dir;
  struct Case {
    int64_t vocabulary;
    char const* type;
  };
  for (auto const& [vocabulary, type] :
       {Case{65536, "uint16"}, Case{65537, "uint32"}, Case{int64_t{1} << 31, "uint32"}}) {
    auto const shard = example(vocabulary);
    auto const path = shard_path(dir.path(), shard.client_id);
    EXPECT_EQ(path.filename(), "client_00017.h5");
    auto const checksum = write_shard(path, shard);
    EXPECT_EQ(checksum, sha256_file(path));
    expect_equal(read_shard(path, shard.tokenizer_sha256), shard);
    EXPECT_EQ(h5::File(path, h5::Mode::read).type_of("/train/tokens"), type);
  }
  EXPECT_EQ(shard_path("d", 0), "d/server.h5");
}

TEST(Shard, OtherTokenizerIsRefusedWithTheRemedy) {
  TempDir dir;
  write_shard(dir / "s.h5", example());
  EXPECT_ERROR(read_shard(dir / "s.h5", std::string(64, 'b')),
               "s.h5 was made with another tokenizer (SHA-256 aaaaaaaaaaaa");
  EXPECT_ERROR(read_shard(dir / "s.h5", std::string(64, 'b')), "fsllm_shard --cfg");
}

/// Writes the example, lets `damage` rewrite it through HDF5, and reads it.
template <class Damage>
void read_damaged(Damage&& damage) {
  TempDir dir;
  auto const shard = example(100);
  h5::File file(dir / "s.h5", h5::Mode::create);
  file.set_attribute("/", "fsllm_format", std::string("client_shard"));
  for (std::string name : {"dataset", "splitter", "tokenizer_sha256", "prompt_template"})
    file.set_attribute("/", name, name);
  for (std::string name : {"client_id", "seed", "tok_len", "vocab_size"})
    file.set_attribute("/", name, int64_t{100});
  file.set_attribute("/", "version", int64_t{1});
  damage(file);
  auto const ensure = [&](std::string const& name, auto const& values) {
    if (!file.exists(name)) file.write(name, values);
  };
  for (std::string split : {"/train", "/val", "/test"}) {
    ensure(split + "/tokens", std::vector<uint16_t>{1, 2});
    ensure(split + "/target", std::vector<uint8_t>{0, 1});
    ensure(split + "/offsets", std::vector<int64_t>{0, 2});
    ensure(split + "/group", std::vector<int32_t>{0});
  }
  if (!file.exists("/group_names")) file.write_text("/group_names", "[\"g\"]");
  file.close();
  read_shard(dir / "s.h5");
}

TEST(Shard, EveryDamageHasItsMessage) {
  using File = h5::File;
  EXPECT_NO_THROW(read_damaged([](File&) {}));
  EXPECT_ERROR(read_damaged([](File& f) { f.set_attribute("/", "fsllm_format", std::string("x")); }),
               "s.h5 is not a client shard");
  EXPECT_ERROR(read_damaged([](File& f) { f.set_attribute("/", "version", int64_t{3}); }),
               "has shard version 3 (this program reads versions 1 and 2)");
  auto const pairs = [](File& f) { f.set_attribute("/", "version", int64_t{2}); };
  EXPECT_ERROR(read_damaged(pairs), "(split train): 1 rows (an odd number is no pairs)");
  EXPECT_ERROR(read_damaged([&](File& f) {
                 pairs(f);
                 f.write("/train/offsets", std::vector<int64_t>{0, 2, 2});
                 f.write("/train/group", std::vector<int32_t>{0, 0});
               }),
               "(split train): row 1 has no scored token");
  EXPECT_ERROR(read_damaged([](File& f) { f.set_attribute("/", "seed", std::string("x")); }),
               "attribute seed of / of");
  EXPECT_ERROR(read_damaged([](File& f) { f.write("/train/target", std::vector<uint8_t>{1}); }),
               "(split train): 1 targets for 2 tokens");
  EXPECT_ERROR(read_damaged([](File& f) {
                 f.write("/val/offsets", std::vector<int64_t>{0, 1});
               }),
               "(split val): offsets do not rise");
  EXPECT_ERROR(read_damaged([](File& f) {
                 f.write("/val/offsets", std::vector<int64_t>{0, 3, 2});
               }),
               "offsets do not rise");
  EXPECT_ERROR(read_damaged([](File& f) {
                 f.write("/val/offsets", std::vector<int64_t>{1, 2});
               }),
               "offsets do not rise");
  EXPECT_ERROR(read_damaged([](File& f) { f.write("/val/offsets", std::vector<int64_t>{}); }),
               "offsets do not rise");
  EXPECT_ERROR(read_damaged([](File& f) { f.write("/test/group", std::vector<int32_t>{}); }),
               "(split test): 0 group numbers for 1 rows");
  EXPECT_ERROR(read_damaged([](File& f) { f.write("/test/group", std::vector<int32_t>{1}); }),
               "group 1 (1 groups are named)");
  EXPECT_ERROR(read_damaged([](File& f) { f.write("/test/group", std::vector<int32_t>{-2}); }), "group -2");
  EXPECT_ERROR(read_damaged([](File& f) {
                 f.write("/train/tokens", std::vector<uint16_t>{1, 100});
               }),
               "token 100 (the vocabulary has 100)");
  EXPECT_ERROR(read_damaged([](File& f) {
                 f.write("/train/tokens", std::vector<uint32_t>{1, 0x80000000u});
               }),
               "token 2147483648 (above 2^31)");
  EXPECT_ERROR(read_damaged([](File& f) {
                 f.write("/train/tokens", std::vector<float>{1, 2});
               }),
               "holds float32 (uint32 expected)");
  EXPECT_ERROR(read_damaged([](File& f) {
                 f.write("/train/target", std::vector<uint8_t>{0, 2});
               }),
               "target 2 (0 or 1 expected)");
  EXPECT_ERROR(read_damaged([](File& f) { f.write_text("/group_names", "[1]"); }),
               "/group_names is not a JSON array of texts");
  EXPECT_ERROR(read_damaged([](File& f) { f.make_group("/train/tokens"); }),
               "cannot read data set /train/tokens");
}

TEST(Shard, WriterRefusesWhatReaderWouldRefuse) {
  TempDir dir;
  auto shard = example(50);
  shard.train.tokens[0] = 50;
  EXPECT_ERROR(write_shard(dir / "s.h5", shard), "token 50 (the vocabulary has 50)");
  EXPECT_FALSE(std::filesystem::exists(dir / "s.h5"));
}

TEST(Shard, TruncatedFilesAreErrors) {
  TempDir dir;
  write_shard(dir / "s.h5", example());
  auto const bytes = read_file(dir / "s.h5");
  for (size_t keep : {size_t{0}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    write_file_atomic(dir / "t.h5", bytes.substr(0, keep));
    EXPECT_ERROR(read_shard(dir / "t.h5"), "t.h5");
  }
}

TEST(Shard, FullDiskLeavesNothingBehind) {
  TempDir dir;
  FullDisk disk(dir.path(), 100000);
  auto shard = example();
  for (int i = 0; i < 200; ++i)
    shard.train.append(std::vector<int32_t>(300, 9), std::vector<uint8_t>(300, 1), 0);
  EXPECT_ERROR(write_shard(disk.path() / "s.h5", shard), "cannot write data set /train/t");
  EXPECT_TRUE(std::filesystem::is_empty(disk.path()));
}

TEST(ShardIndex, RoundTripOrderedById) {
  TempDir dir;
  auto shard = example();
  ShardIndex index{"gsm8k", "lda", shard.tokenizer_sha256, "alpaca", 12, 128, {}};
  for (int64_t id : {3, 1, 0}) {
    shard.client_id = id;
    index.clients.push_back(summarize(shard, "abc" + std::to_string(id)));
  }
  write_shard_index(dir.path(), index);
  auto const back = read_shard_index(dir.path());
  EXPECT_EQ(std::tie(back.dataset, back.splitter, back.tokenizer_sha256, back.prompt_template, back.seed,
                     back.tok_len),
            std::tie(index.dataset, index.splitter, index.tokenizer_sha256, index.prompt_template, index.seed,
                     index.tok_len));
  ASSERT_EQ(back.clients.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(back.clients[i].client_id, index.clients[2 - i].client_id);
    EXPECT_EQ(back.clients[i].sha256, index.clients[2 - i].sha256);
  }
  auto const& train = back.clients[0].train;
  EXPECT_EQ(train.rows, 3);
  EXPECT_EQ(train.tokens, 4);
  EXPECT_EQ(train.targets, 2);
  EXPECT_EQ(train.groups, (std::map<std::string, int64_t>{{"qa", 1}, {"summe \"é\"", 1}}));
  EXPECT_EQ(back.clients[0].val.rows, 1);
  EXPECT_EQ(back.clients[0].test.rows, 0);
}

/// Pairs are two rows that count once, in a version of the format that older readers refuse.
TEST(Shard, OfPairs) {
  TempDir dir;
  auto shard = example();
  shard.pairs = true;
  shard.train = shard.val = {};
  for (int pair = 0; pair < 3; ++pair) {
    shard.train.append({1, 2, pair}, {0, 1, 1}, pair - 1);
    shard.train.append({1, 7}, {0, 1}, pair - 1);
  }
  auto const path = dir / "client_00017.h5";
  auto const sha256 = write_shard(path, shard);
  auto const back = read_shard(path);
  EXPECT_TRUE(back.pairs && back.train.pairs && back.test.pairs);
  EXPECT_EQ(back.train.rows(), 6);
  EXPECT_EQ(back.train.samples(), 3);
  EXPECT_EQ(back.train.tokens, shard.train.tokens);
  EXPECT_EQ(h5::File(path, h5::Mode::read).int_attribute("/", "version"), 2);
  auto const summary = summarize(back, sha256);
  EXPECT_EQ(summary.train.rows, 3);
  EXPECT_EQ(summary.train.tokens, 15);
  EXPECT_EQ(summary.train.groups, (std::map<std::string, int64_t>{{"qa", 1}, {"summe \"é\"", 1}}));
  ShardIndex index{"p.jsonl", "iid", "", "plain", 0, 128, {summary}};
  index.pairs = true;
  write_shard_index(dir.path(), index);
  EXPECT_TRUE(read_shard_index(dir.path()).pairs);
  EXPECT_EQ(read_shard_index(dir.path()).clients[0].train.rows, 3);
  shard.train.append({1, 7}, {0, 1}, 0);
  EXPECT_ERROR(write_shard(dir / "odd.h5", shard), "7 rows (an odd number is no pairs)");
}

TEST(ShardIndex, DamageIsNamed) {
  TempDir dir;
  EXPECT_ERROR(read_shard_index(dir.path()), dir.path().string() + " holds no index.json");
  write_file_atomic(dir / "index.json", "{}");
  EXPECT_ERROR(read_shard_index(dir.path()), "is not a shard index of version 1");
  write_file_atomic(dir / "index.json", "{\"fsllm_format\":\"shard_index\",\"version\":1,\"dataset\":5}");
  EXPECT_ERROR(read_shard_index(dir.path()), "index.json is damaged (");
  write_file_atomic(dir / "index.json", "{\"fsllm_format\":5,\"version\":1}");
  EXPECT_ERROR(read_shard_index(dir.path()), "index.json is damaged (");
  ShardIndex twice;
  twice.clients.resize(2);
  EXPECT_ERROR(write_shard_index(dir.path(), twice), "client 0 stands there twice");
}

}  // namespace
}  // namespace fsllm
