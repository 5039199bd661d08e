// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdio>
#include <memory>
#include <span>

#include "fsllm/io/shard.hpp"

namespace fsllm {

/// The three splits of a client, in the order in which a shard holds them.
enum class SplitName { train, val, test };

/// Values that grow beyond memory: what exceeds `limit` lies in an unnamed file of `folder`.
template <class T>
class Spool {
 public:
  Spool(std::filesystem::path folder, size_t limit) : folder_(std::move(folder)), limit_(limit) {}
  void append(std::span<T const> values);
  int64_t size() const { return spilled_ + static_cast<int64_t>(held_.size()); }
  /// Calls `block` with all values in order, a few megabytes at a time. Nothing may be appended afterwards.
  template <class Block>
  void drain(Block const& block);

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void spill();
  std::filesystem::path folder_;
  size_t limit_;
  std::vector<T> held_;
  int64_t spilled_ = 0;
  std::unique_ptr<std::FILE, Closer> file_;
};

/// Writes one shard, which only its owner may read, row by row in bounded memory (12 bytes a row beside the
/// buffers). The bytes are those of write_shard, whatever the buffers' size. Without finish() no file
/// appears.
class ShardWriter {
 public:
  /// `header` has everything but rows; `limit` is how many tokens a split keeps in memory; `scratch`: see
  /// AtomicFile.
  ShardWriter(std::filesystem::path path, ClientShard header, size_t limit,
              std::filesystem::path scratch = {});
  /// A token or group that read_shard would refuse is an Error.
  void append(SplitName split, std::span<int32_t const> ids, std::span<uint8_t const> is_target,
              int32_t group);
  /// The summary has the file's SHA-256.
  ShardSummary finish();
  std::vector<std::string> const& group_names() const { return header_.group_names; }

 private:
  struct Split {
    Split(std::filesystem::path const& folder, size_t limit) : tokens(folder, limit), target(folder, limit) {}
    Spool<int32_t> tokens;
    Spool<uint8_t> target;
    std::vector<int64_t> offsets{0};
    std::vector<int32_t> group;
    SplitSummary summary;
  };
  std::filesystem::path path_, scratch_;
  ClientShard header_;
  std::vector<Split> splits_;
};

}  // namespace fsllm
