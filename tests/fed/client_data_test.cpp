// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/client_data.hpp"

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

/// Shards of clients 1..n; client k has k rows of length k + 1, but no more than ten.
void write_shards(std::filesystem::path const& dir, int clients) {
  ShardIndex index;
  index.tokenizer_sha256 = "abc";
  for (int k = 1; k <= clients; ++k) {
    ClientShard shard;
    shard.client_id = k;
    shard.tokenizer_sha256 = "abc";
    shard.vocab_size = 50;
    auto const rows = static_cast<size_t>(std::min(k, 10));
    for (size_t row = 0; row < rows; ++row)
      shard.train.append(std::vector<int32_t>(rows + 1, k % 50), std::vector<uint8_t>(rows + 1, 1), -1);
    index.clients.push_back(summarize(shard, write_shard(shard_path(dir, k), shard)));
  }
  write_shard_index(dir, index);
}

TEST(ClientData, ReadsShardsOfClients) {
  test::TempDir dir;
  write_shards(dir.path(), 3);
  ClientData data(sources_in(dir.path()), "abc", 50, 0, false);
  EXPECT_EQ(data.clients(), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(data.summary(2).train.tokens, 6);
  EXPECT_EQ(data.shard(3)->train.rows(), 3);
}

TEST(ClientData, MergesAllIntoOne) {
  test::TempDir dir;
  write_shards(dir.path(), 3);
  ClientData data(sources_in(dir.path()), "abc", 50, 0, true);
  EXPECT_EQ(data.clients(), std::vector<int64_t>{1});
  EXPECT_EQ(data.summary(1).train.rows, 6);
  auto const shard = data.shard(1);
  auto const& train = shard->train;
  EXPECT_EQ(train.rows(), 6);
  EXPECT_EQ(train.offsets, (std::vector<int64_t>{0, 2, 5, 8, 12, 16, 20}));
  EXPECT_EQ(train.tokens.size(), 20U);
}

TEST(ClientData, RejectsWhatTheModelCannotTake) {
  test::TempDir dir;
  write_shards(dir.path(), 3);
  EXPECT_ERROR(ClientData(sources_in(dir.path()), "abc", 3, 0, false).shard(3),
               "holds token id 3 (the model has 3 tokens)");
  EXPECT_ERROR(ClientData(sources_in(dir.path()), "abc", 50, 3, false).shard(3),
               "has a row of 4 tokens (the model takes 3)");
  EXPECT_ERROR(ClientData(sources_in(dir.path()), "other", 50, 0, false).shard(1), "tokenizer");
  EXPECT_ERROR(ClientData(sources_in(dir.path()), "abc", 50, 0, false).summary(9), "client 9 has no shard");
  EXPECT_ERROR(ClientData(sources_in(dir / "nowhere"), "abc", 50, 0, false), "nowhere");
}

TEST(ClientData, ComparesManyShardsWhenTheyAreRead) {
  test::TempDir dir;
  write_shards(dir.path(), 1001);
  std::filesystem::copy_file(shard_path(dir.path(), 5), shard_path(dir.path(), 6),
                             std::filesystem::copy_options::overwrite_existing);
  ClientData data(sources_in(dir.path()), "abc", 1002, 0, false);
  data.check(0, 1);
  EXPECT_EQ(data.shard(5)->train.rows(), 5);
  EXPECT_ERROR(data.shard(6), "is not the shard that index.json lists");
  std::filesystem::remove(shard_path(dir.path(), 7));
  EXPECT_ERROR(data.check(0, 1), "client_00007.h5 is missing");
}

}  // namespace
}  // namespace fsllm
