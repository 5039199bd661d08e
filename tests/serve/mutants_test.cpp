// SPDX-License-Identifier: Apache-2.0
// Damaged requests from several clients at a time: FSLLM_SERVE_SECONDS long, 5 s without it.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "mutation.hpp"
#include "server.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kClients = 8;

std::string posted(std::string const& path, std::string const& body, std::string const& more = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: a\r\n" + more +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

/// Bodies: they are damaged, and their length is right.
std::vector<std::pair<std::string, std::string>> const kBodies{
    {"/v1/completions", R"({"prompt": "Tom and", "max_tokens": 4, "temperature": 0, "stop": ["\n", "a"]})"},
    {"/v1/completions", R"({"prompt": [[1, 2, 3], [4, 5]], "max_tokens": 0, "echo": true, "logprobs": 1})"},
    {"/v1/completions",
     R"({"prompt": "a", "max_tokens": 9, "n": 3, "top_p": 0.5, "top_k": 7, "seed": 1, "stream": true})"},
    {"/v1/chat/completions",
     R"({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hi \u00e9"}],
         "max_tokens": 5, "logprobs": true, "top_logprobs": 2, "stream": true})"}};

/// Whole requests: their heads are damaged too.
std::vector<std::string> whole_requests() {
  std::vector<std::string> requests{"GET /v1/models HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
                                    "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                                    "1c\r\n{\"prompt\":\"a\",\"max_tokens\":2}\r\n0\r\n\r\n"};
  for (auto const& [path, body] : kBodies)
    requests.push_back(posted(path, body, "Content-Type: application/json\r\nAuthorization: Bearer k\r\n"));
  return requests;
}

struct Counts {
  std::atomic<long> requests{0}, answered{0}, good{0}, refused{0}, vanished{0};
};

/// Sends the bytes in a few pieces; reads the answer, or vanishes before or in the middle of it.
void send_request(Server const& server, std::string const& bytes, std::mt19937_64& random, Counts& counts) {
  int const socket = server.connect();
  size_t const pieces = 1 + random() % 3;
  for (size_t sent = 0; sent < bytes.size();) {
    auto const piece = std::min(bytes.size() - sent, bytes.size() / pieces + 1);
    auto const count = ::send(socket, bytes.data() + sent, piece, MSG_NOSIGNAL);
    if (count <= 0) break;
    sent += static_cast<size_t>(count);
  }
  ++counts.requests;
  auto const manner = random() % 8;
  if (manner < 2) {
    ++counts.vanished;
    linger const reset{1, 0};
    if (manner == 0) ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  } else {
    ::shutdown(socket, SHUT_WR);
    std::string answer;
    char buffer[4096];
    for (ssize_t count = 0; (count = ::recv(socket, buffer, sizeof buffer, 0)) > 0;) {
      answer.append(buffer, static_cast<size_t>(count));
      if (manner == 2) break;
    }
    int const status = status_of(answer);
    if (status != 0) ++counts.answered;
    if (status == 200) ++counts.good;
    if (status >= 400 && status < 500) ++counts.refused;
    EXPECT_NE(status, 500) << answer << "\nto\n" << bytes;
  }
  ::close(socket);
}

TEST(Mutants, DamagedRequestsHarmNobody) {
  TempDir dir;
  write_chat_model(dir / "model");
  Server server(dir.path(), {"--model", (dir / "model").string()});
  json const body{{"prompt", "Tom and"}, {"max_tokens", 4}, {"temperature", 0}};
  auto const expected = server.complete(body)["choices"];
  char const* const asked = std::getenv("FSLLM_SERVE_SECONDS");
  auto const end = Clock::now() + std::chrono::seconds(asked != nullptr ? std::atoi(asked) : 5);
  auto const whole = whole_requests();
  Counts counts;
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client)
    clients.emplace_back([&, client] {
      std::mt19937_64 random(static_cast<uint64_t>(client));
      while (Clock::now() < end) {
        auto const& [path, text] = kBodies[random() % kBodies.size()];
        auto const bytes = random() % 2 == 0 ? posted(path, mutated(text, random))
                                             : mutated(whole[random() % whole.size()], random);
        send_request(server, bytes, random, counts);
      }
    });
  for (auto& client : clients) client.join();
  fmt::print("{} requests: {} answered ({} with 200, {} with 4xx), {} clients vanished\n",
             counts.requests.load(), counts.answered.load(), counts.good.load(), counts.refused.load(),
             counts.vanished.load());
  EXPECT_GT(counts.good, 0);
  EXPECT_GT(counts.refused, counts.requests / 10);
  EXPECT_EQ(server.complete(body)["choices"], expected);
  server.signal(SIGTERM);
  EXPECT_EQ(server.ends_within(30), 0) << read_text(dir / "stderr.txt");
  auto const said = read_text(dir / "stderr.txt");
  EXPECT_EQ(said.find("Sanitizer"), std::string::npos) << said;
  EXPECT_EQ(said.find("runtime error"), std::string::npos) << said;
}

}  // namespace
}  // namespace fsllm::test
