// SPDX-License-Identifier: Apache-2.0
// Converted weights: made once, shared, checked, made again.
#include <ATen/ATen.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

fs::path gguf(std::string const& name) {
  return source_file("tests/reference/gguf/" + name + ".gguf");
}

/// The one folder of converted weights in a cache.
fs::path copy_in(fs::path const& cache) {
  std::vector<fs::path> folders;
  for (auto const& entry : fs::directory_iterator(cache))
    if (entry.is_directory()) folders.push_back(entry.path());
  EXPECT_EQ(folders.size(), 1U);
  return folders.empty() ? cache : folders.front();
}

ino_t inode(fs::path const& file) {
  struct stat info {};
  return ::stat(file.c_str(), &info) == 0 ? info.st_ino : 0;
}

TEST(WeightCache, IsReadByTheNextRun) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  load_model(gguf("llama"), options);
  auto const file = copy_in(dir / "cache") / "model.safetensors";
  auto const first = inode(file);
  auto const model = load_model(gguf("llama"), options);
  EXPECT_EQ(inode(file), first);
  EXPECT_EQ(model->parameters().size(), 21U);
}

TEST(WeightCache, BeginsItsDataOnAPage) {
  TempDir dir;
  load_model(gguf("llama"), {.cache_dir = dir / "cache"});
  auto const bytes = read_file(copy_in(dir / "cache") / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ((length + sizeof length) % 4096, 0U);
}

TEST(WeightCache, IsMadeAgainWhenDamaged) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  load_model(gguf("llama"), options);
  auto const expected = load_model(gguf("llama"))->parameters();
  auto const folder = copy_in(dir / "cache");
  auto const good = read_file(folder / "model.safetensors");
  for (auto const& [name, damage] : std::vector<std::pair<std::string, std::string>>{
           {"model.safetensors", good.substr(0, good.size() - 1) + '\x7F'},
           {"model.safetensors", good.substr(0, 5000)},
           {"model.safetensors", ""},
           {"stamp.json", "{"},
           {"stamp.json", "[]"},
           {"stamp.json", R"({"checksum": 5, "identity": 3})"}}) {
    std::ofstream(folder / name) << damage;
    auto const read = load_model(gguf("llama"), options)->parameters();
    for (auto const& [key, values] : expected) EXPECT_TRUE(at::equal(read.at(key), values)) << name << key;
    EXPECT_EQ(read_file(folder / "model.safetensors"), good) << name;
  }
  fs::remove(folder / "model.safetensors");
  EXPECT_NO_THROW(load_model(gguf("llama"), options));
}

TEST(WeightCache, IsMadeAgainForAnotherSource) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  fs::copy_file(gguf("llama"), dir / "model.gguf");
  load_model(dir / "model.gguf", options);
  fs::copy_file(gguf("mistral"), dir / "model.gguf", fs::copy_options::overwrite_existing);
  auto const read = load_model(dir / "model.gguf", options)->parameters();
  EXPECT_TRUE(
      at::equal(read.at("lm_head.weight"), load_model(gguf("mistral"))->parameters().at("lm_head.weight")));
  EXPECT_NO_THROW(copy_in(dir / "cache"));
}

/// The name, size, header and time of a source say nothing about its values.
TEST(WeightCache, IsMadeAgainForOtherValues) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  auto const file = dir / "model.gguf";
  fs::copy_file(gguf("llama"), file);
  load_model(file, options);
  auto const time = fs::last_write_time(file);
  auto bytes = read_file(file);
  bytes[bytes.size() - 2] = static_cast<char>(bytes[bytes.size() - 2] ^ 1);
  std::ofstream(file, std::ios::binary) << bytes;
  fs::last_write_time(file, time);
  auto const read = load_model(file, options)->parameters();
  for (auto const& [name, values] : load_model(file)->parameters())
    EXPECT_TRUE(at::equal(read.at(name), values)) << name;
}

TEST(WeightCache, HoldsSafetensorsInAnotherType) {
  TempDir dir;
  auto const reference = load_reference("llama");
  auto const converted = all_logits(*load_model(reference.dir, {.storage_dtype = "bf16"}), reference.rows);
  LoadOptions options{.storage_dtype = "bf16", .cache_dir = dir / "cache"};
  EXPECT_TRUE(at::equal(all_logits(*load_model(reference.dir, options), reference.rows), converted));
  EXPECT_EQ(SafetensorsReader(copy_in(dir / "cache")).dtype("model.norm.weight"), "BF16");
  options.storage_dtype = "auto";
  options.cache_dir = dir / "none";
  load_model(reference.dir, options);
  EXPECT_FALSE(fs::exists(dir / "none")) << "a file that fits is mapped as it is";
}

TEST(WeightCache, ProcessesAtOnceMakeOneCopy) {
  TempDir dir;
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    pid_t const child = ::fork();
    if (child == 0) {
      bool good = false;
      try {
        auto const model = load_model(gguf("llama"), {.cache_dir = dir / "cache"});
        good = model->parameters().size() == 21;
      } catch (std::exception const&) {
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (pid_t const child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  int entries = 0;
  for (auto const& entry : fs::directory_iterator(dir / "cache")) entries += entry.exists() ? 1 : 0;
  EXPECT_EQ(entries, 2) << "the copy and its lock";
}

TEST(WeightCache, AFolderThatCannotBeWrittenIsNamed) {
  TempDir dir;
  std::ofstream(dir / "file") << "x";
  EXPECT_ERROR(load_model(gguf("llama"), {.cache_dir = dir / "file" / "cache"}), "file/cache");
}

TEST(WeightCache, ProgramsWithoutARunUseTheCacheOfTheUser) {
  TempDir dir;
  auto const set = [](char const* name, fs::path const& value) { ::setenv(name, value.c_str(), 1); };
  std::string const home = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
  set("XDG_CACHE_HOME", dir / "xdg");
  EXPECT_EQ(user_cache_dir(), dir.path() / "xdg" / "fsllm");
  EXPECT_TRUE(fs::is_directory(dir.path() / "xdg" / "fsllm"));
  ::unsetenv("XDG_CACHE_HOME");
  set("HOME", dir / "home");
  EXPECT_EQ(user_cache_dir(), dir.path() / "home/.cache/fsllm");
  std::ofstream(dir / "file") << "x";
  set("HOME", dir / "file");
  set("TMPDIR", dir.path());
  EXPECT_EQ(user_cache_dir(), dir / fmt::format("fsllm-{}", ::geteuid()));
  ::unsetenv("TMPDIR");
  set("HOME", home);
}

TEST(WeightCache, WhatOthersMayHaveWrittenIsMadeAgain) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  load_model(gguf("llama"), options);
  auto const folder = copy_in(dir / "cache");
  EXPECT_EQ(fs::status(folder).permissions(), fs::perms::owner_all);
  for (auto const& path : {folder, folder / "model.safetensors", folder / "stamp.json"}) {
    fs::permissions(path, fs::perms::others_write, fs::perm_options::add);
    auto const before = inode(folder / "model.safetensors");
    load_model(gguf("llama"), options);
    EXPECT_NE(inode(folder / "model.safetensors"), before) << path;
  }
  fs::rename(folder / "model.safetensors", dir / "elsewhere");
  fs::create_symlink(dir / "elsewhere", folder / "model.safetensors");
  load_model(gguf("llama"), options);
  EXPECT_FALSE(fs::is_symlink(folder / "model.safetensors"));
}

TEST(WeightCache, LeftoversOfKilledProcessesAreRemoved) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  load_model(gguf("llama"), options);
  auto const folder = copy_in(dir / "cache");
  fs::create_directories(folder.string() + ".partial.host.1");
  fs::remove(folder / "stamp.json");
  load_model(gguf("llama"), options);
  EXPECT_FALSE(fs::exists(folder.string() + ".partial.host.1"));
}

}  // namespace
}  // namespace fsllm::test
