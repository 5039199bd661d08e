// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/files.hpp"

#include <sys/stat.h>

#include <fstream>

#include "fsllm/core/error.hpp"
#include "full_disk.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using test::FullDisk;
using test::TempDir;

TEST(Files, RoundTripOfBytes) {
  TempDir dir;
  std::string bytes(300000, 'x');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  write_file_atomic(dir / "a", bytes);
  EXPECT_EQ(read_file(dir / "a"), bytes);
  write_file_atomic(dir / "a", "");
  EXPECT_EQ(read_file(dir / "a"), "");
  EXPECT_FALSE(fs::exists(dir / "a.tmp"));
}

TEST(Files, ErrorsNameTheFile) {
  TempDir dir;
  EXPECT_ERROR(read_file(dir / "absent"), "absent (No such file or directory)");
  EXPECT_ERROR(read_file(dir.path()), "it is a folder");
  EXPECT_ERROR(read_file("/dev/null"), "it is not a regular file");
  EXPECT_ERROR(MappedFile(dir / "absent"), "absent (No such file or directory)");
  EXPECT_ERROR(sha256_file(dir / "absent"), "absent (No such file or directory)");
  EXPECT_ERROR(sync_path(dir / "absent"), "absent to disk (No such file or directory)");
  EXPECT_ERROR(write_file_atomic(dir / "no_folder" / "a", "x"), "Check that the folder exists");
  write_file_atomic(dir / "a", "x");
  EXPECT_ERROR(make_folder(dir / "a" / "b"), "cannot make folder");
}

TEST(Files, FullDiskLeavesTheOldFile) {
  TempDir dir;
  FullDisk disk(dir.path(), 100000);
  auto const path = disk.path() / "a";
  write_file_atomic(path, "old");
  EXPECT_ERROR(write_file_atomic(path, std::string(400000, 'x')), "cannot write " + path.string());
  EXPECT_EQ(read_file(path), "old");
  EXPECT_FALSE(fs::exists(path.string() + ".tmp"));
}

TEST(Files, UncommittedAtomicFileDisappears) {
  TempDir dir;
  {
    AtomicFile file(dir / "a");
    file.write("half");
    EXPECT_TRUE(fs::exists(file.temporary()));
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Files, Sha256OfTheStandardVectors) {
  // FIPS 180-2, appendix B.
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  TempDir dir;
  write_file_atomic(dir / "million", std::string(1000000, 'a'));
  EXPECT_EQ(sha256_file(dir / "million"), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Files, PipesAndDevicesAreRefusedAtOnce) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  for (auto const& path : {dir / "pipe", std::filesystem::path("/dev/null")}) {
    EXPECT_ERROR(read_file(path), "(it is not a regular file). Give the path of a file");
    EXPECT_ERROR(MappedFile{path}, "(it is not a regular file)");
    EXPECT_ERROR(sha256_file(path), "(it is not a regular file)");
  }
}

/// SIGBUS becomes an error of ours.
TEST(Files, AMappedFileThatIsCutEndsTheProcessWithItsName) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  TempDir dir;
  write_file_atomic(dir / "weights", std::string(size_t{1} << 16, 'x'));
  EXPECT_EXIT(
      {
        MappedFile const mapped(dir / "weights");
        std::filesystem::resize_file(dir / "weights", 10);
        volatile auto const byte = mapped.bytes()[40000];
        static_cast<void>(byte);
      },
      testing::ExitedWithCode(2), "weights was cut while it was in use");
}

TEST(Files, MappingShowsTheBytes) {
  TempDir dir;
  write_file_atomic(dir / "a", "hello");
  EXPECT_EQ(MappedFile(dir / "a").text(), "hello");
  write_file_atomic(dir / "empty", "");
  EXPECT_TRUE(MappedFile(dir / "empty").bytes().empty());
}

}  // namespace
}  // namespace fsllm
