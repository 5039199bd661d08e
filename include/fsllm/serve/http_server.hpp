// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace fsllm {

struct HttpLimits {
  size_t head_bytes = size_t{64} << 10;
  size_t body_bytes = size_t{8} << 20;
  size_t connections = 1024;
  std::chrono::milliseconds head_time{10'000};   ///< for a head to arrive
  std::chrono::milliseconds body_time{60'000};   ///< for a body to arrive
  std::chrono::milliseconds idle_time{30'000};   ///< between two requests of a client
  std::chrono::milliseconds write_time{30'000};  ///< without a byte that the client takes
  std::chrono::milliseconds linger_time{2'000};
};

/// One HTTP request for a service to answer.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual std::string const& body() const = 0;
  virtual void answer(int status, std::string json) = 0;
  /// Answers 200 with server-sent events: `next` is called again and again, told whether the client has gone,
  /// and sends what it has, until it returns false. What it sends is not taken where Send returns false.
  using Send = std::function<bool(std::string const& events)>;
  using Stream = std::function<bool(Send const&, bool gone)>;
  virtual void stream(Stream next) = 0;
  virtual bool client_gone() const = 0;  ///< nobody waits for the answer
};

/// What answers a path, by method: GET or POST.
struct HttpRoute {
  std::string method, path;  ///< a path that ends with '/' takes all below it
  std::function<void(HttpExchange&, std::string const& rest)> answer;
};

/// An HTTP/1.1 server on one address: a thread a connection, keep-alive. Paths without a route are 404, other
/// methods of one that has 405, bodies and heads that are too large 413 and 431, without the right key 401,
/// all with {"error": ...}.
class HttpServer {
 public:
  /// Binds the port (0: a free one); a port in use and an unknown host are Errors. With an `api_key` every
  /// request needs "Authorization: Bearer KEY".
  HttpServer(std::string const& host, int port, std::string api_key, HttpLimits limits = {});
  /// Waits for the answers that are under way.
  ~HttpServer();

  int port() const;
  /// Answers from now on, on threads of its own.
  void start(std::vector<HttpRoute> routes);
  /// No new connections from now on, and no further requests on old ones.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fsllm
