// SPDX-License-Identifier: Apache-2.0
// Programs that mean harm, in the real sandbox: each fails, and what it aims at is as it was.
#include "fsllm/eval/sandbox.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/io/jsonl.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class Sandbox : public testing::Test {
 protected:
  void SetUp() override {
    if (!sandbox_problem().empty()) GTEST_SKIP() << "no sandbox: " << sandbox_problem();
  }
};

TEST_F(Sandbox, OnlyTheEndOfTheProgramCounts) {
  EXPECT_TRUE(passes_in_sandbox("import math\nassert math.sqrt(4) == 2\n"));
  EXPECT_TRUE(passes_in_sandbox("print('x' * 100000)\n"));
  EXPECT_TRUE(
      passes_in_sandbox("import threading, time\n"
                        "threading.Thread(target=lambda: time.sleep(60)).start()\n"));
  EXPECT_FALSE(passes_in_sandbox("assert 1 == 2\n"));
  EXPECT_FALSE(passes_in_sandbox("def f(:\n"));
  EXPECT_FALSE(passes_in_sandbox("import sys\nsys.exit(0)\n"));
  EXPECT_FALSE(passes_in_sandbox("import os\nos._exit(0)\n"));
  EXPECT_FALSE(passes_in_sandbox("import os\nos.kill(os.getpid(), 9)\n"));
  EXPECT_FALSE(passes_in_sandbox("input('a number')\n"));
}

TEST_F(Sandbox, EndlessLoopsAndSleepEnd) {
  EXPECT_FALSE(passes_in_sandbox("while True: pass\n", {.cpu_seconds = 1}));
  EXPECT_FALSE(passes_in_sandbox("import time\ntime.sleep(1000)\n", {.wall_seconds = 2}));
  EXPECT_FALSE(passes_in_sandbox("import os\nos.fork()\nwhile True: pass\n", {.cpu_seconds = 1}));
  EXPECT_FALSE(passes_in_sandbox("while True: print('x' * 1000)\n", {.cpu_seconds = 1}));
}

TEST_F(Sandbox, AForkBombStaysSmall) {
  // The number of processes that it may have is reached, and said by the program itself.
  EXPECT_TRUE(
      passes_in_sandbox("import os, time\n"
                        "n = 0\n"
                        "try:\n"
                        "  while n < 100:\n"
                        "    if os.fork() == 0:\n"
                        "      time.sleep(60)\n"
                        "    n += 1\n"
                        "except OSError:\n"
                        "  pass\n"
                        "assert 0 < n < 8, n\n"));
  EXPECT_FALSE(
      passes_in_sandbox("import os\nwhile True: os.fork()\n", {.cpu_seconds = 1, .wall_seconds = 4}));
  EXPECT_FALSE(
      passes_in_sandbox("import threading\nwhile True: threading.Thread(target=lambda: __import__("
                        "'time').sleep(60)).start()\n",
                        {.cpu_seconds = 1, .wall_seconds = 4}));
}

TEST_F(Sandbox, MemoryIsLimited) {
  EXPECT_FALSE(passes_in_sandbox("x = bytearray(10 * 2**30)\n"));
  EXPECT_FALSE(passes_in_sandbox("x = []\nwhile True: x.append(bytearray(2**24))\n"));
  EXPECT_TRUE(passes_in_sandbox("x = bytearray(2**28)\n"));
}

TEST_F(Sandbox, FilesOfTheMachineAreOutOfReach) {
  TempDir dir;
  fs::permissions(dir.path(), fs::perms::all);
  std::ofstream(dir / "keep.txt") << "mine";
  fs::permissions(dir / "keep.txt", fs::perms::all);
  auto const path = (dir / "keep.txt").string();
  EXPECT_FALSE(passes_in_sandbox("import os\nos.remove('" + path + "')\n"));
  EXPECT_FALSE(passes_in_sandbox("open('" + path + "').read()\n"));
  EXPECT_FALSE(passes_in_sandbox("import shutil\nshutil.rmtree('/usr')\nassert False\n"));
  EXPECT_FALSE(passes_in_sandbox("import subprocess\nsubprocess.run('rm -rf /', shell=True, check=True)\n"));
  for (std::string const place : {"/x", "/tmp/x", "/dev/shm/x", "/dev/x", "/usr/x", "/var/tmp/x", "x"})
    EXPECT_FALSE(passes_in_sandbox("open('" + place + "', 'w').write('x')\n")) << place;
  EXPECT_TRUE(fs::exists(path));
  EXPECT_TRUE(fs::exists("/usr/bin/python3"));
  EXPECT_FALSE(passes_in_sandbox("import os\nassert os.path.exists('/home') or os.path.exists('/etc')\n"));
  EXPECT_TRUE(passes_in_sandbox("import os\nassert os.getuid() != 0 and len(os.environ) < 4\n"));
}

/// A server of this machine hears nothing.
TEST_F(Sandbox, NothingIsHeardFromIt) {
  int const server = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(server, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(server, 1), 0);
  ASSERT_EQ(::getsockname(server, reinterpret_cast<sockaddr*>(&address), &size), 0);
  auto const port = std::to_string(ntohs(address.sin_port));
  EXPECT_FALSE(
      passes_in_sandbox("import socket\nsocket.create_connection(('127.0.0.1', " + port + "), 2)\n"));
  pollfd heard{server, POLLIN, 0};
  EXPECT_EQ(::poll(&heard, 1, 0), 0);
  ::close(server);
}

TEST_F(Sandbox, SolutionsOfHumanEvalPass) {
  FSLLM_NEED_TEST_DATA("datasets/humaneval/HumanEval.jsonl.gz");
  int number = 0;
  for_each_json_record(
      test_data("datasets/humaneval/HumanEval.jsonl.gz"), [&](nlohmann::json const& row, RecordPlace const&) {
        if (number++ % 8 != 0) return;
        auto const text = [&](char const* key) { return row.at(key).get<std::string>(); };
        auto const check = "\n" + text("test") + "\ncheck(" + text("entry_point") + ")\n";
        EXPECT_TRUE(passes_in_sandbox(text("prompt") + text("canonical_solution") + check)) << row;
        EXPECT_FALSE(passes_in_sandbox(text("prompt") + "    return None\n" + check)) << row;
      });
}

}  // namespace
}  // namespace fsllm::test
