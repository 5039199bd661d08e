// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/checkpoint.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/h5.hpp"
#include "full_disk.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using test::FullDisk;
using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;

Checkpoint example(int64_t round) {
  Checkpoint checkpoint;
  checkpoint.round = round;
  auto const values = at::arange(10, at::kFloat).sub(4.3);
  auto& global = checkpoint.tensors["global"];
  for (auto type :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kByte, at::kBool})
    global.emplace(c10::toString(type), values.to(type));
  global.emplace("layers.0/q proj.größe", at::scalar_tensor(0.1 + static_cast<double>(round), at::kDouble));
  global.emplace("empty", at::empty({3, 0}, at::kFloat));
  global.emplace("transposed", at::arange(6, at::kFloat).view({2, 3}).t());
  auto const nan = at::full({1}, 0, at::kInt);
  nan.fill_(0x7fc12345);
  global.emplace("nan payload", nan.view(at::kFloat));
  checkpoint.tensors["client_17"] = {{"w", values}};
  checkpoint.tensors["nothing"] = {};
  checkpoint.texts = {{"config", "a: 1\n"}, {"empty", ""}, {"bytes", std::string("\0\xff", 2)}};
  return checkpoint;
}

void expect_equal(Checkpoint const& a, Checkpoint const& b) {
  EXPECT_EQ(a.round, b.round);
  EXPECT_EQ(a.texts, b.texts);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (auto const& [section, map] : a.tensors) {
    ASSERT_NO_THROW(check_same_layout(map, b.tensors.at(section), section));
    for (auto const& [name, tensor] : map) {
      auto const x = tensor.contiguous(), y = b.tensors.at(section).at(name).contiguous();
      bool const same =
          x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
      EXPECT_TRUE(same) << section << " " << name;
    }
  }
}

std::vector<std::string> entries(fs::path const& dir) {
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(dir))
    if (entry.path().filename() != ".fsllm") names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// Into `dir` itself.
void save_checkpoint(fs::path const& dir, Checkpoint const& checkpoint, int keep_last) {
  OutputFolder folder(dir);
  fsllm::save_checkpoint(folder, "", checkpoint, keep_last);
}

void flip_byte(fs::path const& path, size_t at) {
  auto bytes = read_file(path);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_file_atomic(path, bytes);
}

TEST(Checkpoint, RoundTripIsBitwise) {
  TempDir dir;
  save_checkpoint(dir / "checkpoints", example(10), 2);
  expect_equal(*load_newest_checkpoint(dir / "checkpoints"), example(10));
  expect_equal(load_checkpoint(dir / "checkpoints" / "round_000010"), example(10));
  EXPECT_THAT(entries(dir / "checkpoints" / "round_000010"), ElementsAre("manifest.json", "state.h5"));
  auto const manifest =
      nlohmann::json::parse(read_file(dir / "checkpoints" / "round_000010" / "manifest.json"));
  EXPECT_EQ(manifest["state.h5"]["sha256"], sha256_file(dir / "checkpoints" / "round_000010" / "state.h5"));
  save_checkpoint(dir / "empty", Checkpoint{}, 1);
  expect_equal(*load_newest_checkpoint(dir / "empty"), Checkpoint{});
}

TEST(Checkpoint, NothingToLoad) {
  TempDir dir;
  EXPECT_FALSE(load_newest_checkpoint(dir / "none").has_value());
  EXPECT_FALSE(load_newest_checkpoint(dir.path()).has_value());
  EXPECT_ERROR(load_checkpoint(dir / "round_000001"),
               "cannot read " + (dir / "round_000001" / "manifest.json").string());
}

TEST(Checkpoint, KeepsTheLast) {
  TempDir dir;
  for (int64_t round : {8, 9, 10, 1000000}) save_checkpoint(dir.path(), example(round), 2);
  EXPECT_THAT(entries(dir.path()), ElementsAre("round_000010", "round_1000000"));
  EXPECT_EQ(load_newest_checkpoint(dir.path())->round, 1000000);
  // A run that was resumed from round 10 goes on: later rounds belong to the past.
  save_checkpoint(dir.path(), example(11), 2);
  EXPECT_THAT(entries(dir.path()), ElementsAre("round_000010", "round_000011"));
  EXPECT_ERROR(save_checkpoint(dir.path(), example(12), 0), "checkpoint.keep_last = 0");
}

TEST(Checkpoint, SameRoundAgainReplaces) {
  TempDir dir;
  save_checkpoint(dir.path(), example(3), 1);
  auto other = example(3);
  other.texts["config"] = "a: 2\n";
  save_checkpoint(dir.path(), other, 1);
  expect_equal(*load_newest_checkpoint(dir.path()), other);
  EXPECT_THAT(entries(dir.path()), ElementsAre("round_000003"));
}

TEST(Checkpoint, LeftoversOfAKilledRunAreRemovedAndFoldersOfOthersStay) {
  TempDir dir;
  save_checkpoint(dir.path(), example(1), 1);
  fs::create_directory(OutputFolder::scratch_of(dir.path()));
  write_file_atomic(OutputFolder::scratch_of(dir.path()) / "state.h5", "half");
  for (auto const* name : {"round_000002.tmp", "round_000000.old.tmp", "round_7", "mine.tmp"})
    fs::create_directory(dir / name);
  write_file_atomic(dir / "round_000001" / "notes.txt", "mine");
  EXPECT_EQ(load_newest_checkpoint(dir.path())->round, 1);
  save_checkpoint(dir.path(), example(2), 1);
  EXPECT_THAT(entries(dir.path()), ElementsAre("mine.tmp", "round_000000.old.tmp", "round_000001",
                                               "round_000002", "round_000002.tmp", "round_7"));
  EXPECT_THAT(entries(dir / "round_000001"), ElementsAre("notes.txt"));
  EXPECT_FALSE(fs::exists(OutputFolder::scratch_of(dir.path())));
  fs::create_directory(dir / "round_000003");
  write_file_atomic(dir / "round_000003" / "state.h5", "somebody else's");
  EXPECT_ERROR(save_checkpoint(dir.path(), example(3), 1), "already holds round_000003/state.h5");
  EXPECT_EQ(read_file(dir / "round_000003" / "state.h5"), "somebody else's");
}

TEST(Checkpoint, DamagedOnesAreSkippedWithAWarning) {
  TempDir dir;
  for (int64_t round = 1; round <= 5; ++round) save_checkpoint(dir.path(), example(round), 9);
  auto const size = fs::file_size(dir / "round_000005" / "state.h5");
  flip_byte(dir / "round_000005" / "state.h5", size / 2);
  fs::resize_file(dir / "round_000004" / "state.h5", size - 1);
  write_file_atomic(dir / "round_000003" / "manifest.json", "{\"state.h5\":");
  fs::remove(dir / "round_000002" / "state.h5");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  auto const loaded = load_newest_checkpoint(dir.path());
  auto const printed = testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
  ASSERT_TRUE(loaded.has_value());
  expect_equal(*loaded, example(1));
  for (int64_t round = 2; round <= 5; ++round)
    EXPECT_THAT(printed,
                HasSubstr("skipping checkpoint " + (dir / fmt::format("round_{:06}", round)).string()));
  EXPECT_ERROR(load_checkpoint(dir / "round_000005"),
               "state.h5 is damaged (its SHA-256 is not the manifest's)");
  EXPECT_ERROR(load_checkpoint(dir / "round_000003"), "manifest.json:1:13: syntax error");
  write_file_atomic(dir / "round_000003" / "manifest.json", "{\"state.h5\":[]}");
  EXPECT_ERROR(load_checkpoint(dir / "round_000003"), "manifest.json is damaged (");
}

/// Gives round 1 this state file, with a manifest that agrees.
template <class Write>
void load_with_state(Write&& write) {
  TempDir dir;
  save_checkpoint(dir.path(), example(1), 1);
  auto const state = dir / "round_000001" / "state.h5";
  {
    h5::File file(state, h5::Mode::create);
    write(file);
    file.close();
  }
  write_file_atomic(dir / "round_000001" / "manifest.json",
                    "{\"state.h5\":{\"sha256\":\"" + sha256_file(state) + "\"}}");
  load_checkpoint(dir / "round_000001");
}

TEST(Checkpoint, StatesOfOtherProgramsAreErrors) {
  auto const load_layout = [](std::string const& layout) {
    load_with_state([&](h5::File& file) {
      file.set_attribute("/", "fsllm_format", std::string("checkpoint"));
      file.set_attribute("/", "version", int64_t{1});
      file.write("/tensors/0", std::vector<uint8_t>(8));
      file.write_text("/layout", layout);
    });
  };
  auto const tensor = [](std::string const& entry) {
    return R"({"round":1,"texts":[],"sections":[{"name":"s","tensors":[{"name":"w",)" + entry + "}]}]}";
  };
  EXPECT_NO_THROW(load_layout(tensor(R"("dtype":"F32","shape":[2],"offset":0)")));
  EXPECT_ERROR(load_layout(tensor(R"("dtype":"X7","shape":[2],"offset":0)")),
               "tensor w of /tensors/0 has the unknown type X7");
  EXPECT_ERROR(load_layout(tensor(R"("dtype":"F32","shape":[-2],"offset":0)")), "has an impossible shape");
  EXPECT_ERROR(load_layout(tensor(R"("dtype":"F32","shape":[3],"offset":0)")), "has an impossible shape");
  EXPECT_ERROR(load_layout(tensor(R"("dtype":"F32","shape":[2],"offset":4)")),
               "has 8 elements (8 from 4 on are wanted)");
  EXPECT_ERROR(load_layout(tensor(R"("dtype":"F32","shape":"x","offset":0)")), "state.h5 is damaged (");
  EXPECT_ERROR(load_layout("{\"round\":1}"), "state.h5 is damaged (");
  EXPECT_ERROR(load_layout("{"), "state.h5/layout:1:2: syntax error");
  EXPECT_ERROR(load_with_state([](h5::File&) {}), "is not a checkpoint");
  EXPECT_ERROR(load_with_state([](h5::File& file) {
                 file.set_attribute("/", "fsllm_format", std::string("checkpoint"));
                 file.set_attribute("/", "version", int64_t{9});
               }),
               "has checkpoint version 9 (this program reads version 1)");
}

TEST(Checkpoint, FullDiskLeavesTheOldOnesUsable) {
  TempDir dir;
  FullDisk disk(dir.path(), 100000);
  save_checkpoint(disk.path(), example(1), 1);
  auto large = example(2);
  large.tensors["best"] = {{"w", at::zeros({50000}, at::kFloat)}};
  EXPECT_ERROR(save_checkpoint(disk.path(), large, 1), "cannot write data set /tensors/0 of");
  EXPECT_THAT(entries(disk.path()), ElementsAre("round_000001"));
  expect_equal(*load_newest_checkpoint(disk.path()), example(1));
  save_checkpoint(disk.path(), example(2), 1);
  EXPECT_THAT(entries(disk.path()), ElementsAre("round_000002"));
}

}  // namespace
}  // namespace fsllm
