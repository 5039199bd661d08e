// SPDX-License-Identifier: Apache-2.0
#include "server.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "text_fixture.hpp"

namespace fsllm::test {

using nlohmann::json;

namespace {

std::vector<std::string> command(std::vector<std::string> const& options) {
  std::vector<std::string> words{"fsllm_serve", "--port", "0"};
  words.insert(words.end(), options.begin(), options.end());
  return words;
}

json checked(httplib::Result const& result, int status) {
  if (!result) throw std::runtime_error("no answer: " + httplib::to_string(result.error()));
  EXPECT_EQ(result->status, status) << result->body;
  return json::parse(result->body);
}

}  // namespace

Server::Server(std::filesystem::path const& dir, std::vector<std::string> const& options)
    : process_(dir, 0, command(options)) {
  std::string const mark = "http://";
  for (int poll = 0; poll < 1200 && port_ == 0; ++poll) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    auto const said = read_text(dir / "stdout.txt") + read_text(dir / "stderr.txt");
    auto const begin = said.find(mark), end = said.find("/v1", begin);
    if (begin != std::string::npos && end != std::string::npos)
      port_ = std::stoi(said.substr(said.rfind(':', end) + 1));
    else if (!process_.running())
      throw std::runtime_error("fsllm_serve has ended: " + said);
  }
  if (port_ == 0) throw std::runtime_error("fsllm_serve does not serve");
}

std::unique_ptr<httplib::Client> Server::client() const {
  auto client = std::make_unique<httplib::Client>("127.0.0.1", port_);
  client->set_read_timeout(120);
  client->set_connection_timeout(60);
  return client;
}

json Server::get(std::string const& path, int status) const {
  return checked(client()->Get(path.c_str()), status);
}

json Server::post(std::string const& path, json const& body, int status) const {
  return checked(client()->Post(path.c_str(), body.dump(), "application/json"), status);
}

std::vector<json> Server::stream(std::string const& path, json body) const {
  body["stream"] = true;
  auto const result = client()->Post(path.c_str(), body.dump(), "application/json");
  if (!result || result->status != 200) throw std::runtime_error("no stream");
  EXPECT_EQ(result->get_header_value("Content-Type"), "text/event-stream");
  std::vector<json> objects;
  bool done = false;
  std::istringstream lines(result->body);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    EXPECT_EQ(line.substr(0, 6), "data: ");
    EXPECT_FALSE(done) << "nothing stands behind [DONE]";
    done = line == "data: [DONE]";
    if (!done) objects.push_back(json::parse(line.substr(6)));
  }
  EXPECT_TRUE(done);
  return objects;
}

int Server::connect() const {
  int const socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port_));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  timeval const patience{40, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("cannot connect");
  return socket;
}

std::string Server::raw(std::string const& bytes, bool half_close) const {
  int const socket = connect();
  for (size_t sent = 0; sent < bytes.size();) {
    auto const count = ::send(socket, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) break;  // the server has seen enough
    sent += static_cast<size_t>(count);
  }
  if (half_close) ::shutdown(socket, SHUT_WR);
  std::string answer;
  char buffer[4096];
  for (ssize_t count = 0; (count = ::recv(socket, buffer, sizeof buffer, 0)) > 0;)
    answer.append(buffer, static_cast<size_t>(count));
  ::close(socket);
  return answer;
}

std::optional<int> Server::ends_within(int seconds) {
  return process_.ends_within(std::chrono::seconds(seconds));
}

int status_of(std::string const& answer) {
  return answer.rfind("HTTP/1.1 ", 0) == 0 ? std::atoi(answer.c_str() + 9) : 0;
}

void write_chat_model(std::filesystem::path const& dir) {
  write_text_model(dir, 256);
  json const config{{"bos_token", "<s>"},
                    {"eos_token", "</s>"},
                    {"chat_template",
                     "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
                     "{{ raise_exception('system comes first') }}{% endif %}{{ m.role }}: {{ m.content }}\n"
                     "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"}};
  std::ofstream(dir / "tokenizer_config.json") << config.dump();
}

std::vector<json> evaluated(std::filesystem::path const& dir, std::filesystem::path const& model,
                            std::vector<json> const& requests, std::vector<std::string> const& options) {
  std::ofstream file(dir / "requests.jsonl");
  for (size_t i = 0; i < requests.size(); ++i) {
    auto request = requests[i];
    request["id"] = i;
    file << request.dump() << "\n";
  }
  file.close();
  std::filesystem::create_directories(dir / "eval");
  std::vector<std::string> words{"fsllm_eval",
                                 "--model",
                                 model.string(),
                                 "--requests",
                                 (dir / "requests.jsonl").string(),
                                 "--responses",
                                 (dir / "responses.jsonl").string()};
  words.insert(words.end(), options.begin(), options.end());
  auto const outcome = run(dir / "eval", 0, words);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return read_events(dir / "responses.jsonl");
}

}  // namespace fsllm::test
