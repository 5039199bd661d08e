// SPDX-License-Identifier: Apache-2.0
// Requests that are wrong, too large, too slow or abandoned, and the server's end.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include "server.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

class Hostile : public testing::Test {
 protected:
  Hostile() { write_chat_model(dir_ / "model"); }

  Server& start(std::vector<std::string> const& more = {}) {
    std::vector<std::string> options{"--model", (dir_ / "model").string()};
    options.insert(options.end(), more.begin(), more.end());
    server_ = std::make_unique<Server>(dir_.path(), options);
    return *server_;
  }
  void expect_alive() const {
    auto const answer = server_->complete({{"prompt", "Tom"}, {"max_tokens", 3}, {"temperature", 0}});
    EXPECT_EQ(answer["usage"]["completion_tokens"], 3);
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
};

TEST_F(Hostile, MistakesInABodyAreNamed) {
  auto const& server = start();
  std::vector<std::pair<std::string, std::string>> const wrong{
      {"", "JSON object"},
      {"{", "JSON object"},
      {"[]", "JSON object"},
      {"\"prompt\"", "JSON object"},
      {"{\"prompt\": \"\xff\"}", "JSON object"},
      {std::string(300, '[') + std::string(300, ']'), "brackets"},
      {R"({})", "'prompt' is missing"},
      {R"({"prompt": null})", "'prompt' is missing"},
      {R"({"prompt": ""})", "is empty"},
      {R"({"prompt": []})", "is empty"},
      {R"({"prompt": [[]]})", "is empty"},
      {R"({"prompt": ["a", ""]})", "is empty"},
      {R"({"prompt": 7})", "'prompt' = 7"},
      {R"({"prompt": {"a": 1}})", "'prompt' ="},
      {R"({"prompt": ["a", 1]})", "'prompt' ="},
      {R"({"prompt": [1, 1.5]})", "holds 1.5"},
      {R"({"prompt": [-1]})", "holds -1"},
      {R"({"prompt": [100000000]})", "holds 100000000"},
      {R"({"prompt": [18446744073709551615]})", "holds 18446744073709551615"},
      {R"({"prompt": [[1], [true]]})", "holds true"},
      {R"({"prompt": "a", "max_tokens": -1})", "'max_tokens' = -1"},
      {R"({"prompt": "a", "max_tokens": 1.5})", "'max_tokens' = 1.5"},
      {R"({"prompt": "a", "max_tokens": "7"})", "'max_tokens' = \"7\""},
      {R"({"prompt": "a", "max_tokens": 1000000})", "'max_tokens' = 1000000"},
      {R"({"prompt": "a", "max_tokens": 9223372036854775808})", "'max_tokens' ="},
      {R"({"prompt": "a", "temperature": -0.1})", "'temperature' = -0.1"},
      {R"({"prompt": "a", "temperature": "hot"})", "'temperature' ="},
      {R"({"prompt": "a", "temperature": 1e999})", "JSON object"},
      {R"({"prompt": "a", "top_p": 1.1})", "'top_p' = 1.1"},
      {R"({"prompt": "a", "top_p": 0})", "'top_p' = 0"},
      {R"({"prompt": "a", "top_k": -2})", "'top_k' = -2"},
      {R"({"prompt": "a", "n": 0})", "'n' = 0"},
      {R"({"prompt": "a", "n": 100000})", "'n' = 100000"},
      {R"({"prompt": "a", "n": 2, "best_of": 3})", "'best_of'"},
      {R"({"prompt": "a", "logprobs": -1})", "'logprobs' = -1"},
      {R"({"prompt": "a", "logprobs": 1000})", "'logprobs' = 1000"},
      {R"({"prompt": "a", "logprobs": true})", "'logprobs' = true"},
      {R"({"prompt": "a", "echo": 1})", "'echo' = 1"},
      {R"({"prompt": "a", "stream": "yes"})", "'stream' ="},
      {R"({"prompt": "a", "stream_options": {"include_usage": true}})", "'stream_options'"},
      {R"({"prompt": "a", "stop": 5})", "'stop' holds 5"},
      {R"({"prompt": "a", "stop": ["a", 5]})", "'stop' holds 5"},
      {R"({"prompt": "a", "seed": 0.5})", "'seed' = 0.5"},
      {R"({"prompt": "a", "model": 3})", "'model' = 3"},
      {R"({"prompt": "a", "presence_penalty": 0.5})", "'presence_penalty' = 0.5"},
      {R"({"prompt": "a", "tempreature": 0.5})", "Did you mean 'temperature'?"}};
  for (auto const& [body, text] : wrong) {
    auto const result = server.client()->Post("/v1/completions", body, "application/json");
    ASSERT_TRUE(result) << body;
    EXPECT_EQ(result->status, 400) << body;
    auto const message = json::parse(result->body).at("error").at("message").get<std::string>();
    EXPECT_NE(message.find(text), std::string::npos) << body << "\n" << message;
  }
  json const unknown{{"model", "modle"}, {"prompt", "a"}};
  EXPECT_NE(server.post("/v1/completions", unknown, 404)["error"]["message"].get<std::string>().find(
                "Did you mean 'model'?"),
            std::string::npos);
  for (auto const* body :
       {R"({})", R"({"messages": []})", R"({"messages": "hi"})", R"({"messages": [{"role": "user"}]})",
        R"({"messages": [{"role": "king", "content": "hi"}]})", R"({"messages": [7]})",
        R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
        R"({"messages": [{"role": "user", "content": "hi"}], "top_logprobs": 2})",
        R"({"messages": [{"role": "user", "content": "hi"}], "tools": [{}]})",
        R"({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "max_completion_tokens": 2})"})
    server.post("/v1/chat/completions", json::parse(body), 400);
  expect_alive();
}

TEST_F(Hostile, PathsAndMethods) {
  auto const& server = start();
  EXPECT_EQ(server.get("/v1/models")["data"][0]["id"], "model");
  server.get("/health");
  for (auto const* path :
       {"/", "/v1", "/v2/models", "/v1/models/other", "/v1/completions/x", "/../etc/passwd"})
    EXPECT_TRUE(server.get(path, 404).contains("error")) << path;
  server.post("/v1/embeddings", json::object(), 404);
  server.get("/v1/completions", 405);
  server.post("/v1/models", json::object(), 405);
  auto const client = server.client();
  EXPECT_EQ(client->Delete("/v1/models")->status, 405);
  EXPECT_EQ(client->Put("/v1/completions", "{}", "application/json")->status, 405);
  EXPECT_EQ(client->Head("/v1/models")->status, 200);
  // curl's default type, behind 8 KB of which cpp-httplib alone would refuse the form
  json const body{{"prompt", "Tom"}, {"max_tokens", 1}, {"user", std::string(20000, 'u')}};
  EXPECT_EQ(client->Post("/v1/completions", body.dump(), "application/x-www-form-urlencoded")->status, 200);
}

TEST_F(Hostile, HttpThatIsNone) {
  auto const& server = start();
  std::string const post = "POST /v1/completions HTTP/1.1\r\nHost: a\r\n";
  std::string const body = R"({"prompt":"a","max_tokens":1})";
  auto const length = "Content-Length: " + std::to_string(body.size()) + "\r\n";
  std::vector<std::pair<std::string, int>> const requests{
      {"\r\n\r\n", 400},
      {"nonsense\r\n\r\n", 400},
      {std::string(5000, '\0') + "\r\n\r\n", 400},
      {"GET /v1/models HTTP/9.9\r\n\r\n", 400},
      {"GET /" + std::string(20000, 'a') + " HTTP/1.1\r\n\r\n", 414},
      {"GET /v1/models HTTP/1.1\r\nX: " + std::string(200000, 'a') + "\r\n\r\n", 431},
      {post + "\r\n" + body, 411},
      {post + "Content-Length: x\r\n\r\n" + body, 400},
      {post + "Content-Length: -5\r\n\r\n" + body, 400},
      {post + length + "Content-Length: 3\r\n\r\n" + body, 400},
      {post + length + "Transfer-Encoding: chunked\r\n\r\n" + body, 400},
      {post + "Content-Length: 99999999999999999999999\r\n\r\n" + body, 413},
      {post + "Content-Length: 9000000\r\n\r\n" + std::string(9000000, ' '), 413},
      {post + "Content-Length: 100\r\n\r\n" + body, 400},  // and hangs up
      {post + "Transfer-Encoding: chunked\r\n\r\nzzz\r\n" + body, 400},
      {post + length + "Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body, 415}};
  for (auto const& [bytes, status] : requests)
    EXPECT_EQ(status_of(server.raw(bytes, true)), status) << bytes.substr(0, 200);
  std::string many = "GET /v1/models HTTP/1.1\r\n";
  for (int i = 0; i < 20000; ++i) many += "X-" + std::to_string(i) + ": a\r\n";
  EXPECT_EQ(status_of(server.raw(many + "\r\n")), 431);
  std::string ranges = "GET /v1/models HTTP/1.1\r\nConnection: close\r\nRange: bytes=0-0";
  while (ranges.size() < 8000) ranges += ",0-0";
  EXPECT_NE(server.raw(ranges + "\r\n\r\n"), "") << "a range is no reason to fail";
  auto chunked = post + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (char const c : body) chunked += std::string("1\r\n") + c + "\r\n";
  EXPECT_EQ(status_of(server.raw(chunked + "0\r\n\r\n")), 200);
  std::string endless = post + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 20; ++i) endless += "80000\r\n" + std::string(0x80000, ' ') + "\r\n";
  EXPECT_EQ(status_of(server.raw(endless)), 413);
  expect_alive();
}

TEST_F(Hostile, SlowClientsAreLeft) {
  auto const& server = start();
  std::vector<int> sockets;  // that say nothing, or half of it
  for (int i = 0; i < 100; ++i) {
    sockets.push_back(server.connect());
    std::string const half = "POST /v1/completions HTTP/1.1\r\nContent-Length: 50\r\n";
    if (i % 2 == 0) {
      ASSERT_GT(::send(sockets.back(), half.data(), half.size(), MSG_NOSIGNAL), 0);
    }
  }
  expect_alive();
  EXPECT_EQ(status_of(server.raw("GET /v1/models HTTP/1.1\r\nX: ")), 408);  // in its time
  for (int const socket : sockets) ::close(socket);
  expect_alive();
}

TEST_F(Hostile, ClientsThatVanishHarmNobody) {
  auto const& server = start();
  for (bool const stream : {true, false})
    for (int i = 0; i < 30; ++i) {
      json const body{{"prompt", "Tom and"}, {"max_tokens", 50}, {"n", 8}, {"stream", stream}};
      auto const text = body.dump();
      auto const bytes = "POST /v1/completions HTTP/1.1\r\nContent-Length: " + std::to_string(text.size()) +
                         "\r\n\r\n" + text;
      int const socket = server.connect();
      ASSERT_EQ(::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
      char byte = 0;
      if (i % 3 == 0) {
        ASSERT_GE(::recv(socket, &byte, 1, 0), 0);
      }
      linger const reset{1, 0};
      if (i % 2 == 0) ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      ::close(socket);
    }
  expect_alive();
}

TEST_F(Hostile, FiveHundredAtOnce) {
  auto const& server = start();
  json const body{{"prompt", "Tom and"}, {"max_tokens", 4}, {"temperature", 0}};
  auto const expected = server.complete(body)["choices"][0]["text"];
  std::atomic<int> right{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 500; ++i)
    clients.emplace_back([&] {
      auto const result = server.client()->Post("/v1/completions", body.dump(), "application/json");
      if (result && result->status == 200 && json::parse(result->body)["choices"][0]["text"] == expected)
        ++right;
    });
  for (auto& client : clients) client.join();
  EXPECT_EQ(right, 500);
}

TEST_F(Hostile, AFullQueueSaysSo) {
  auto const& server = start({"--queue", "4", "--batch_rows", "1"});
  json const five{{"prompt", "Tom"}, {"n", 5}};
  EXPECT_EQ(server.post("/v1/completions", five, 503)["error"]["code"], "overloaded");
  auto const result = server.client()->Post("/v1/completions", five.dump(), "application/json");
  EXPECT_EQ(result->get_header_value("Retry-After"), "1");
  expect_alive();
}

TEST_F(Hostile, AKeyIsAsked) {
  std::ofstream(dir_ / "key") << "correct horse\n";
  auto const& server = start({"--api_key_file", (dir_ / "key").string()});
  server.get("/v1/models", 401);
  server.post("/v1/completions", {{"prompt", "a"}}, 401);
  for (auto const* wrong :
       {"Bearer", "Bearer ", "Bearer correct hors", "Bearer correct horses", "Basic correct horse"})
    EXPECT_EQ(server.client()->Get("/v1/models", {{"Authorization", wrong}})->status, 401) << wrong;
  EXPECT_EQ(server.client()->Get("/v1/models", {{"Authorization", "Bearer correct horse"}})->status, 200);
}

TEST_F(Hostile, TermEndsItWhileItWorks) {
  auto& server = start();
  std::atomic<bool> ending{false};
  std::vector<std::thread> clients;
  std::atomic<int> broken{0};
  for (int i = 0; i < 16; ++i)
    clients.emplace_back([&] {
      json const body{{"prompt", "Tom"}, {"max_tokens", 40}, {"n", 16}};
      while (!ending) {
        auto const result = server.client()->Post("/v1/completions", body.dump(), "application/json");
        if (result && result->status != 200 && result->status != 503) ++broken;
      }
    });
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  server.signal(SIGTERM);
  EXPECT_EQ(server.ends_within(10), 0);
  ending = true;
  for (auto& client : clients) client.join();
  EXPECT_EQ(broken, 0);
}

TEST_F(Hostile, TermEndsAnIdleServerAtOnce) {
  auto& server = start();
  auto const client = server.client();
  client->set_keep_alive(true);
  EXPECT_EQ(client->Get("/v1/models")->status, 200);
  server.signal(SIGTERM);
  EXPECT_EQ(server.ends_within(10), 0);
}

TEST_F(Hostile, StartsAreRefusedInWords) {
  auto const model = (dir_ / "model").string();
  auto const& server = start();
  auto const refuse = [&](std::vector<std::string> more, std::string const& text) {
    more.insert(more.begin(), "fsllm_serve");
    std::filesystem::create_directories(dir_ / "other");
    auto const outcome = run(dir_ / "other", 0, more);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_NE(outcome.err.find(text), std::string::npos) << outcome.err;
  };
  refuse({"--model", model, "--port", std::to_string(server.port())}, "in use");
  refuse({"--model", model}, "--port");
  refuse({"--model", model, "--port", "70000"}, "--port 70000");
  refuse({"--port", "0"}, "--model");
  refuse({"--model", model + "x", "--port", "0"}, "modelx");
  refuse({"--model", model, "--port", "0", "--adapter", model}, "NAME=DIR");
  refuse({"--model", model, "--port", "0", "--adapter",
          "model=" + source_file("tests/reference/llama/adapter").string()},
         "two models are called 'model'");
  refuse({"--model", model, "--port", "0", "--host", "no.such.host.invalid"}, "--host no.such.host.invalid");
}

}  // namespace
}  // namespace fsllm::test
