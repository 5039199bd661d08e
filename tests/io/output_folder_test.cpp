// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/output_folder.hpp"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/output_file.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::TempDir;

mode_t mode_of(fs::path const& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_mode & 0777;
}

TEST(OutputFolder, LeavesNothingWhereNothingCameOfIt) {
  TempDir dir;
  { OutputFolder const folder(dir / "a/b"); }
  EXPECT_FALSE(fs::exists(dir / "a"));
}

TEST(OutputFolder, RemovesWhatItListedAndNothingElse) {
  TempDir dir;
  auto const root = dir / "out";
  {
    OutputFolder folder(root);
    folder.write("a.txt", "1");
    folder.write("a.txt", "2");
    auto const made = folder.fresh_folder();
    write_file_atomic(made / "x", "x");
    write_file_atomic(made / "mark", "m");
    folder.move_in(made, "sub", {"mark"});
  }
  write_file_atomic(root / "sub/mine", "mine");
  write_file_atomic(root / "embeddings.h5", "mine");
  OutputFolder folder(root);
  EXPECT_TRUE(folder.owns("sub/x"));
  EXPECT_ERROR(folder.own({"embeddings.h5"}), "already holds embeddings.h5 (this program did not write it");
  EXPECT_ERROR(folder.check_free({"sub"}), "already holds sub/mine");
  folder.remove_all();
  EXPECT_FALSE(fs::exists(root / "a.txt"));
  EXPECT_FALSE(fs::exists(root / "sub/x"));
  EXPECT_EQ(read_file(root / "sub/mine") + read_file(root / "embeddings.h5"), "minemine");
}

TEST(OutputFolder, LinksAreNotFollowed) {
  TempDir dir;
  make_folder(dir / "elsewhere");
  write_file_atomic(dir / "elsewhere/x", "mine");
  {
    OutputFolder folder(dir / "out");
    auto const made = folder.fresh_folder();
    write_file_atomic(made / "x", "x");
    folder.move_in(made, "sub", {});
  }
  fs::remove_all(dir / "out/sub");
  fs::create_symlink(dir / "elsewhere", dir / "out/sub");
  OutputFolder folder(dir / "out");
  EXPECT_ERROR(folder.own({"sub/y"}), "is a file or a link");
  folder.remove_all();
  EXPECT_EQ(read_file(dir / "elsewhere/x"), "mine");
  fs::create_symlink(dir / "elsewhere/x", dir / "out/b");
  EXPECT_ERROR(folder.write("b", "b"), "already holds b");
  EXPECT_EQ(read_file(dir / "elsewhere/x"), "mine");
}

TEST(OutputFolder, ListsThatLeaveTheFolderAreRefused) {
  for (auto const* name : {"../x", "/etc/passwd", "a/../../x", ""}) {
    TempDir dir;
    { OutputFolder(dir / "out").write("a", "a"); }
    write_file_atomic(dir / "x", "mine");
    write_file_atomic(dir / "out/.fsllm/files.json",
                      json{{"fsllm_format", "output_files"}, {"files", {name}}}.dump());
    EXPECT_ERROR(OutputFolder(dir / "out"), "files.json is damaged");
    EXPECT_TRUE(fs::exists(dir / "x"));
  }
}

TEST(OutputFolder, OneJobAtATime) {
  TempDir dir;
  OutputFolder folder(dir / "out");
  EXPECT_ERROR(OutputFolder(dir / "out"), fmt::format("out is in use by process {} on ", ::getpid()));
  folder.write("a", "1");
  EXPECT_EQ(read_file(dir / "out/a"), "1");
}

/// The lock of this process with some fields changed.
void leave_lock(fs::path const& root, json const& change) {
  auto const file = root / ".fsllm/lock";
  json lock;
  {
    OutputFolder folder(root);
    folder.write("a", "a");
    lock = read_json(file);
  }
  lock.update(change);
  write_file_atomic(file, lock.dump() + "\n");
}

TEST(OutputFolder, LocksOfOwnersThatAreGoneAreTakenOver) {
  pid_t const child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  for (auto const& change : {json{{"pid", child}}, json{{"start_ticks", "1"}}, json{{"boot", "other"}}}) {
    TempDir dir;
    leave_lock(dir.path(), change);
    OutputFolder folder(dir.path());
    folder.check();
  }
  // A process that ended and that nobody has waited for.
  TempDir dir;
  pid_t const zombie = ::fork();
  if (zombie == 0) ::_exit(0);
  siginfo_t info;
  ::waitid(P_PID, static_cast<id_t>(zombie), &info, WEXITED | WNOWAIT);
  leave_lock(dir.path(), {{"pid", zombie}});
  OutputFolder(dir.path()).check();
  ::waitpid(zombie, nullptr, 0);
}

TEST(OutputFolder, LocksOfOtherHostsAreNot) {
  TempDir dir;
  leave_lock(dir.path(),
             {{"host", "node17"}, {"pid", 4711}, {"start", "2026-01-02 03:04:05 +0100"}, {"job", "99"}});
  EXPECT_ERROR(
      OutputFolder(dir.path()),
      "is in use by process 4711 on node17 since 2026-01-02 03:04:05 +0100 (job 99). Wait for its end");
  using Names = std::pair<char const*, char const*>;
  for (auto const& [job, restarts] :
       {Names{"SLURM_JOB_ID", "SLURM_RESTART_COUNT"}, Names{"PBS_JOBID", "FSLLM_RESTART_COUNT"}}) {
    TempDir other;
    leave_lock(other.path(), {{"host", "node17"}, {"pid", 4711}, {"job", "99"}});
    ::setenv(job, "99", 1);
    EXPECT_ERROR(OutputFolder(other.path()), "is in use by");
    ::setenv(restarts, "1", 1);
    OutputFolder(other.path()).check();  // the same job, started again
    ::unsetenv(job);
    ::unsetenv(restarts);
  }
}

TEST(OutputFolder, RemovalAndTakeoverAreNoticed) {
  TempDir dir;
  OutputFolder folder(dir / "out");
  folder.check();
  auto const lock = read_file(dir / "out/.fsllm/lock");
  write_file_atomic(dir / "out/.fsllm/lock", json{{"host", "node17"}, {"pid", 1}, {"start", "now"}}.dump());
  EXPECT_ERROR(folder.check(), "was taken over by process 1 on node17");
  TempDir other;
  {
    OutputFolder lost(other / "out");
    write_file_atomic(other / "out/.fsllm/lock", "another job's");
    write_file_atomic(OutputFolder::scratch_of(other / "out") / "x", "its file");
  }
  EXPECT_TRUE(fs::exists(OutputFolder::scratch_of(other / "out") / "x"));
  fs::remove_all(dir / "out");
  EXPECT_ERROR(folder.check(), "out was removed, or can no longer be read");
}

TEST(OutputFolder, DataOfClientsIsForTheirOwner) {
  TempDir dir;
  OutputFolder folder(dir / "out", FileAccess::owner_only);
  EXPECT_EQ(mode_of(dir / "out"), 0700U);
  EXPECT_EQ(mode_of(dir / "out/.fsllm"), 0700U);
  write_file_atomic(dir / "state", "x", {}, FileAccess::owner_only);
  EXPECT_EQ(mode_of(dir / "state"), 0600U);
}

TEST(AtomicFile, LinksUnderItsOldNameAreNotFollowed) {
  TempDir dir;
  write_file_atomic(dir / "victim", "mine");
  fs::create_symlink(dir / "victim", dir / "a.tmp");
  write_file_atomic(dir / "a", "new");
  EXPECT_EQ(read_file(dir / "victim") + read_file(dir / "a"), "minenew");
}

TEST(OutputFile, ReplacesFilesAlsoBehindLinks) {
  TempDir dir;
  write_file_atomic(dir / "a", "old");
  fs::create_symlink("a", dir / "link");
  fs::create_symlink("yet_to_be_made", dir / "dangling");
  OutputFile(dir / "link", "--responses").finish("new");
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(read_file(dir / "a"), "new");
  OutputFile(dir / "dangling", "--responses").finish("made");
  EXPECT_EQ(read_file(dir / "yet_to_be_made"), "made");
  { OutputFile const file(dir / "a", "--responses"); }
  EXPECT_EQ(read_file(dir / "a"), "new") << "without finish() nothing changes";
}

TEST(OutputFile, PipesAndDevicesStayWhatTheyAre) {
  TempDir dir;
  OutputFile("/dev/null", "--responses").finish("x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  auto const pipe = dir / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_ERROR(OutputFile(pipe, "--responses"), "(nobody reads this pipe)");
  pid_t const reader = ::fork();
  if (reader == 0)
    ::_exit(std::system(("test \"$(cat '" + pipe.string() + "')\" = text").c_str()) == 0 ? 0 : 1);
  for (int attempt = 0;; ++attempt) try {
      OutputFile(pipe, "--responses").finish("text");
      break;
    } catch (Error const&) {
      ASSERT_LT(attempt, 500);
      ::usleep(10000);
    }
  int status = 1;
  ::waitpid(reader, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(fs::is_fifo(pipe));
}

TEST(OutputFile, PlacesThatCannotBeWrittenAreRefusedAtOnce) {
  TempDir dir;
  EXPECT_ERROR(OutputFile(dir.path(), "--responses"), "(it is a folder)");
  EXPECT_ERROR(OutputFile(dir / "absent/a", "--responses"), "cannot write");
}

}  // namespace
}  // namespace fsllm
