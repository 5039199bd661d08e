// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <httplib.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "process.hpp"

namespace fsllm::test {

/// fsllm_serve in the background on a free port, with an HTTP client of its own.
class Server {
 public:
  /// Waits until it serves; its end before that is a failure that shows what it said.
  Server(std::filesystem::path const& dir, std::vector<std::string> const& options);

  int port() const { return port_; }
  std::unique_ptr<httplib::Client> client() const;
  /// The JSON answer to a request, which must have this status.
  nlohmann::json get(std::string const& path, int status = 200) const;
  nlohmann::json post(std::string const& path, nlohmann::json const& body, int status = 200) const;
  nlohmann::json complete(nlohmann::json const& body) const { return post("/v1/completions", body); }
  /// The objects of a stream, which must end with "[DONE]".
  std::vector<nlohmann::json> stream(std::string const& path, nlohmann::json body) const;
  /// What the server answers to these bytes until it hangs up; with `half_close` nothing more can follow
  /// them.
  std::string raw(std::string const& bytes, bool half_close = false) const;
  int connect() const;

  void signal(int number) { process_.signal(number); }
  /// The exit code, where it ends within so many seconds.
  std::optional<int> ends_within(int seconds);

 private:
  Background process_;
  int port_ = 0;
};

/// The status of an HTTP answer as bytes; 0: it is none.
int status_of(std::string const& answer);

/// A model of random weights with a tokenizer for ASCII and a chat template, in `dir`.
void write_chat_model(std::filesystem::path const& dir);

/// The answers of fsllm_eval to requests, in their order.
std::vector<nlohmann::json> evaluated(std::filesystem::path const& dir, std::filesystem::path const& model,
                                      std::vector<nlohmann::json> const& requests,
                                      std::vector<std::string> const& options = {});

}  // namespace fsllm::test
