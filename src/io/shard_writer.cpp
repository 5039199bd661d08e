// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/shard_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/h5.hpp"
#include "shard_format.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
constexpr size_t kDrainedAtOnce = size_t{1} << 20;  ///< values that drain() hands over at once
constexpr char const* kSplitGroups[] = {"/train", "/val", "/test"};

void check_io(bool good, fs::path const& folder) {
  FSLLM_CHECK(good, "cannot write in {} ({}). Free some space or choose another folder.", folder.string(),
              std::strerror(errno));
}

/// A file without a name, gone with the process.
std::FILE* unnamed_file(fs::path const& folder) {
  auto name = (folder / ".spool_XXXXXX").string();
  int const descriptor = ::mkstemp(name.data());
  check_io(descriptor >= 0, folder);
  ::unlink(name.c_str());
  return ::fdopen(descriptor, "w+b");
}

template <class Stored>
void copy_tokens(h5::File& file, std::string const& dataset, Spool<int32_t>& tokens) {
  file.allocate<Stored>(dataset, tokens.size());
  std::vector<Stored> converted;
  int64_t at = 0;
  tokens.drain([&](std::span<int32_t const> block) {
    converted.assign(block.begin(), block.end());
    file.write_at<Stored>(dataset, at, converted);
    at += static_cast<int64_t>(block.size());
  });
}

}  // namespace

template <class T>
void Spool<T>::append(std::span<T const> values) {
  held_.insert(held_.end(), values.begin(), values.end());
  if (held_.size() > limit_) spill();
}

template <class T>
void Spool<T>::spill() {
  if (!file_) file_.reset(unnamed_file(folder_));
  check_io(std::fwrite(held_.data(), sizeof(T), held_.size(), file_.get()) == held_.size(), folder_);
  spilled_ += static_cast<int64_t>(held_.size());
  held_.clear();
}

template <class T>
template <class Block>
void Spool<T>::drain(Block const& block) {
  if (file_) {
    spill();
    check_io(std::fflush(file_.get()) == 0, folder_);
    std::rewind(file_.get());
    std::vector<T> values(kDrainedAtOnce);
    for (int64_t left = spilled_; left > 0;) {
      auto const count = static_cast<size_t>(std::min<int64_t>(left, kDrainedAtOnce));
      check_io(std::fread(values.data(), sizeof(T), count, file_.get()) == count, folder_);
      block(std::span<T const>(values.data(), count));
      left -= static_cast<int64_t>(count);
    }
    file_.reset();
  } else {
    block(std::span<T const>(held_));
  }
}

template class Spool<int32_t>;
template class Spool<uint8_t>;

ShardWriter::ShardWriter(fs::path path, ClientShard header, size_t limit, fs::path scratch)
    : path_(std::move(path)), scratch_(std::move(scratch)), header_(std::move(header)) {
  auto const beside = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  auto const& folder = scratch_.empty() ? beside : scratch_;
  for (size_t i = 0; i < std::size(kSplitGroups); ++i) splits_.emplace_back(folder, limit);
}

void ShardWriter::append(SplitName split, std::span<int32_t const> ids, std::span<uint8_t const> is_target,
                         int32_t group) {
  FSLLM_ASSERT(ids.size() == is_target.size());
  auto& into = splits_[static_cast<size_t>(split)];
  for (int32_t const id : ids)
    FSLLM_CHECK(id >= 0 && id < header_.vocab_size, "{}: token {} (the vocabulary has {}). {}",
                path_.string(), id, header_.vocab_size, kRemakeShard);
  for (uint8_t const target : is_target)
    FSLLM_CHECK(target <= 1, "{}: target {} (0 or 1 expected). {}", path_.string(), target, kRemakeShard);
  FSLLM_CHECK(group >= -1 && group < static_cast<int32_t>(header_.group_names.size()),
              "{}: group {} ({} groups are named). {}", path_.string(), group, header_.group_names.size(),
              kRemakeShard);
  into.tokens.append(ids);
  into.target.append(is_target);
  into.offsets.push_back(into.tokens.size());
  into.group.push_back(group);
  into.summary.tokens += static_cast<int64_t>(ids.size());
  into.summary.targets += std::count(is_target.begin(), is_target.end(), 1);
  bool const opens_pair = header_.pairs && into.group.size() % 2 == 1;
  if (opens_pair) return;
  ++into.summary.rows;
  if (group >= 0) ++into.summary.groups[header_.group_names[static_cast<size_t>(group)]];
}

ShardSummary ShardWriter::finish() {
  AtomicFile target(path_, scratch_, FileAccess::owner_only);
  h5::File file(target.temporary(), h5::Mode::create);
  write_shard_attributes(file, header_);
  file.write_text("/group_names", nlohmann::json(header_.group_names).dump());
  for (size_t i = 0; i < splits_.size(); ++i) {
    std::string const name = kSplitGroups[i];
    auto& split = splits_[i];
    FSLLM_CHECK(!header_.pairs || split.group.size() % 2 == 0, "{}: {} rows (an odd number is no pairs). {}",
                path_.string(), split.group.size(), kRemakeShard);
    if (header_.vocab_size <= kSmallVocabulary)
      copy_tokens<uint16_t>(file, name + "/tokens", split.tokens);
    else
      copy_tokens<uint32_t>(file, name + "/tokens", split.tokens);
    file.allocate<uint8_t>(name + "/target", split.target.size());
    int64_t at = 0;
    split.target.drain([&](std::span<uint8_t const> block) {
      file.write_at<uint8_t>(name + "/target", at, block);
      at += static_cast<int64_t>(block.size());
    });
    file.write(name + "/offsets", split.offsets);
    file.write(name + "/group", split.group);
  }
  file.close();
  ShardSummary summary{header_.client_id, splits_[0].summary, splits_[1].summary, splits_[2].summary,
                       sha256_file(target.temporary())};
  target.commit();
  return summary;
}

std::string write_shard(fs::path const& path, ClientShard const& shard) {
  ClientShard header = shard;
  header.train = header.val = header.test = {};
  ShardWriter writer(path, std::move(header),
                     shard.train.tokens.size() + shard.val.tokens.size() + shard.test.tokens.size());
  TokenSplit const* const splits[] = {&shard.train, &shard.val, &shard.test};
  for (size_t s = 0; s < std::size(splits); ++s) {
    auto const& split = *splits[s];
    for (int64_t row = 0; row < split.rows(); ++row) {
      auto const begin = static_cast<size_t>(split.offsets[static_cast<size_t>(row)]);
      auto const count = static_cast<size_t>(split.offsets[static_cast<size_t>(row) + 1]) - begin;
      writer.append(static_cast<SplitName>(s), std::span(split.tokens).subspan(begin, count),
                    std::span(split.target).subspan(begin, count), split.group[static_cast<size_t>(row)]);
    }
  }
  return writer.finish().sha256;
}

}  // namespace fsllm
