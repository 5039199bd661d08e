// SPDX-License-Identifier: Apache-2.0
#include "fsllm/serve/http_server.hpp"

#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "answer.hpp"
#include "connection.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"

namespace fsllm {
namespace {

using detail::Connection;
using std::chrono::milliseconds;

/// One request of a connection. cpp-httplib gives its handlers no way back to the connection but the thread.
struct Turn {
  Connection* connection;
  std::string method, path;
  bool head_is_read = false;
};
thread_local Turn* turn = nullptr;

class Exchange final : public HttpExchange {
 public:
  Exchange(std::string body, httplib::Response& response) : body_(std::move(body)), response_(response) {}
  std::string const& body() const override { return body_; }
  bool client_gone() const override { return turn->connection->gone(); }

  void answer(int status, std::string json) override {
    response_.status = status;
    if (status == 503) response_.set_header("Retry-After", "1");
    response_.set_content(json, "application/json");
  }

  void stream(Stream next) override {
    response_.status = 200;
    response_.set_header("Cache-Control", "no-cache");
    response_.set_chunked_content_provider("text/event-stream",
                                           [next = std::move(next)](size_t, httplib::DataSink& sink) {
                                             auto const send = [&](std::string const& events) {
                                               sink.write(events.data(), events.size());
                                               return !turn->connection->closes();
                                             };
                                             if (!next(send, turn->connection->gone())) sink.done();
                                             return true;
                                           });
  }

 private:
  std::string body_;
  httplib::Response& response_;
};

bool same_key(std::string const& given, std::string const& key) {
  unsigned difference = given.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i)  // as long for a wrong key as for a nearly right one
    difference |= static_cast<unsigned>(given[i] ^ key[i % key.size()]);
  return difference == 0;
}

int bound_socket(std::string const& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  int const error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  FSLLM_CHECK(error == 0, "--host {} ({}). Give an address of this machine.", host, gai_strerror(error));
  std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> const owner(found, freeaddrinfo);
  int const socket = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  FSLLM_CHECK(socket >= 0, "no socket ({}). Check the limits of the system.", std::strerror(errno));
  int const on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(socket, found->ai_addr, found->ai_addrlen) == 0) return socket;
  auto const why = std::string(std::strerror(errno));
  ::close(socket);
  fail(fmt::format("--port {} on {} ({}). Choose another port, or 0 for a free one.", port, host, why));
}

}  // namespace

struct HttpServer::Impl final : httplib::Server {
  Impl(int listening, std::string key, HttpLimits limits_)
      : limits(limits_), api_key(std::move(key)), listening_(listening) {
    svr_sock_ = listening;  // cpp-httplib ends streams where it has none
    set_keep_alive_timeout(limits.idle_time.count() / 1000);
    set_keep_alive_max_count(1'000'000);
    set_payload_max_length(limits.body_bytes);
    // All answers come from two handlers; what cpp-httplib refuses by itself gets a body.
    set_pre_routing_handler([this](httplib::Request const& request, httplib::Response& response) {
      return before_body(request, response) ? HandlerResponse::Unhandled : HandlerResponse::Handled;
    });
    Post("/", [this](httplib::Request const&, httplib::Response& response,
                     httplib::ContentReader const& reader) { with_body(response, reader); });
    set_error_handler([](httplib::Request const&, httplib::Response& response) {
      if (!response.body.empty()) return;
      response.set_content(detail::error_body({response.status, "The request cannot be read as HTTP."}),
                           "application/json");
    });
  }

  void accept_all();
  void serve(int socket);
  bool serve_request(Connection& connection);
  bool wait_for_request(Connection& connection);
  bool before_body(httplib::Request const& request, httplib::Response& response);
  void check_head(httplib::Request const& request) const;
  void with_body(httplib::Response& response, httplib::ContentReader const& reader);
  void dispatch(Exchange& exchange) const;

  /// The signature differs from version to version of cpp-httplib.
  template <class AnyStream>
  bool process(AnyStream& stream, bool close, bool& closed,
               std::function<void(httplib::Request&)> const& setup) {
    if constexpr (requires { this->process_request(stream, close, closed, setup); })
      return this->process_request(stream, close, closed, setup);
    else
      return this->process_request(stream, "", 0, "", 0, close, closed, setup);
  }

  HttpLimits limits;
  std::string api_key;
  std::vector<HttpRoute> routes;
  int listening_;
  std::atomic<bool> closing{false};
  std::mutex mutex;
  std::condition_variable ended;
  std::vector<int> sockets;  ///< of all connections
  std::thread accepting;
};

void HttpServer::Impl::accept_all() {
  while (!closing) {
    pollfd each{listening_, POLLIN, 0};
    size_t open = 0;
    {
      std::lock_guard const lock(mutex);
      open = sockets.size();
    }
    if (open >= limits.connections || ::poll(&each, 1, 100) <= 0) {
      if (open >= limits.connections) std::this_thread::sleep_for(milliseconds(10));
      continue;
    }
    int const socket = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) {  // the client has gone, or there are no descriptors left for now
      std::this_thread::sleep_for(milliseconds(10));
      continue;
    }
    int const on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    std::lock_guard const lock(mutex);
    try {
      std::thread([this, socket] { serve(socket); }).detach();
      sockets.push_back(socket);
    } catch (std::system_error const& error) {
      log_warning("a connection is closed: {}", error.what());
      ::close(socket);
    }
  }
}

void HttpServer::Impl::serve(int socket) {
  std::optional<Connection> connection(std::in_place, socket, limits);
  try {
    while (wait_for_request(*connection) && serve_request(*connection)) {
    }
  } catch (std::exception const& error) {
    log_warning("a connection failed: {}", error.what());
  }
  std::lock_guard const lock(mutex);  // nothing of this object is touched behind it
  connection.reset();
  std::erase(sockets, socket);
  ended.notify_all();
}

/// Where all places are taken, those who are silent make room.
bool HttpServer::Impl::wait_for_request(Connection& connection) {
  constexpr milliseconds kSlice(200);
  for (auto waited = milliseconds(0); waited < limits.idle_time; waited += kSlice) {
    if (connection.wait_for_request(kSlice)) return true;
    if (closing || connection.gone()) return false;
    std::lock_guard const lock(mutex);
    if (sockets.size() >= limits.connections) return false;
  }
  return false;
}

/// One request; false: the connection ends with it.
bool HttpServer::Impl::serve_request(Connection& connection) {
  Turn mine{&connection, {}, {}};
  turn = &mine;
  connection.begin_head();
  bool closed = false;
  bool const close = closing;
  bool const answered = process(connection, close, closed, [&](httplib::Request& request) {
    mine.head_is_read = true;
    connection.begin_body();
    mine.method = request.method;
    mine.path =
        std::exchange(request.path, std::string("/"));  // routes are found here, not by regular expressions
    request.ranges.clear();
  });
  turn = nullptr;
  if (int const status = connection.refused(); status != 0) {
    auto const body = detail::error_body({status, status == 408 ? "The request did not arrive in time."
                                                                : "The head of the request is too large."});
    connection.write_all(fmt::format(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: "
        "close\r\n\r\n{}",
        status, status == 408 ? "Request Timeout" : "Request Header Fields Too Large", body.size(), body));
  }
  bool const goes_on =
      answered && connection.refused() == 0 && mine.head_is_read && !closed && !close && !connection.closes();
  if (!goes_on && !closing) connection.linger();
  return goes_on;
}

/// What can be said without the body; true: it is to be read.
bool HttpServer::Impl::before_body(httplib::Request const& request, httplib::Response& response) {
  Exchange exchange("", response);
  bool const has_body = request.has_header("Content-Length") || request.has_header("Transfer-Encoding");
  try {
    check_head(request);
    if (turn->method == "POST") return true;
    if (has_body) turn->connection->close_after_answer();  // a body that nobody reads
    dispatch(exchange);
  } catch (HttpError const& error) {
    turn->connection->close_after_answer();
    response.set_header("Connection", "close");
    if (error.status == 401) response.set_header("WWW-Authenticate", "Bearer");
    exchange.answer(error.status, detail::error_body(error));
  }
  return false;
}

void HttpServer::Impl::check_head(httplib::Request const& request) const {
  if (!api_key.empty() &&
      !same_key(request.get_header_value("Authorization"), fmt::format("Bearer {}", api_key)))
    throw HttpError(401, "The API key is missing or wrong. Send it as \"Authorization: Bearer KEY\".", "",
                    "invalid_api_key");
  if (turn->method != "POST") return;
  auto const length = request.get_header_value("Content-Length");
  bool const chunked = request.has_header("Transfer-Encoding");
  if (request.get_header_value_count("Content-Length") > 1 || (chunked && !length.empty()) ||
      length.find_first_not_of("0123456789") != std::string::npos)
    throw HttpError(400, "The length of the body is not clear. Send one Content-Length.");
  if (length.empty() && !chunked) throw HttpError(411, "A POST needs a body with a Content-Length.");
  if (length.size() > 18 || (!length.empty() && std::stoull(length) > limits.body_bytes))
    throw HttpError(413, fmt::format("The body has {:.20} bytes ({} at most). Send several requests.", length,
                                     limits.body_bytes));
  if (request.get_header_value("Content-Type").starts_with("multipart/"))
    throw HttpError(415, "The body is multipart. Send JSON.");
}

void HttpServer::Impl::with_body(httplib::Response& response, httplib::ContentReader const& reader) {
  std::string body;
  bool too_large = false;
  bool const whole = reader([&](char const* data, size_t size) {
    too_large = body.size() + size > limits.body_bytes;
    if (!too_large) body.append(data, size);
    return !too_large;
  });
  Exchange exchange(std::move(body), response);
  if (!whole) turn->connection->close_after_answer();
  if (too_large)
    exchange.answer(413, detail::error_body({413, fmt::format("The body is too large ({} bytes at most).",
                                                              limits.body_bytes)}));
  else if (!whole)
    exchange.answer(400,
                    detail::error_body({400, "The body ends before its length, or is encoded wrongly."}));
  else
    dispatch(exchange);
}

void HttpServer::Impl::dispatch(Exchange& exchange) const {
  auto const method = turn->method == "HEAD" ? "GET" : turn->method;
  bool known = false;
  try {
    for (auto const& route : routes) {
      bool const below = route.path.ends_with('/') && turn->path.starts_with(route.path);
      if (turn->path != route.path && !below) continue;
      known = true;
      if (route.method == method) return route.answer(exchange, turn->path.substr(route.path.size()));
    }
    if (known)
      throw HttpError(405, fmt::format("{:.200} does not know the method {:.20}.", turn->path, turn->method));
    throw HttpError(404, fmt::format("{:.200} is no path of this server.", turn->path));
  } catch (HttpError const& error) {
    exchange.answer(error.status, detail::error_body(error));
  } catch (std::exception const& error) {
    log_warning("{}: {}", turn->path, error.what());
    exchange.answer(500, detail::error_body({500, fmt::format("The request failed ({}).", error.what())}));
  }
}

HttpServer::HttpServer(std::string const& host, int port, std::string api_key, HttpLimits limits)
    : impl_(std::make_unique<Impl>(bound_socket(host, port), std::move(api_key), limits)) {}

int HttpServer::port() const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getsockname(impl_->listening_, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

void HttpServer::start(std::vector<HttpRoute> routes) {
  constexpr int kWaiting = 1024;
  impl_->routes = std::move(routes);
  FSLLM_CHECK(::listen(impl_->listening_, kWaiting) == 0, "port {} ({}). Choose another.", port(),
              std::strerror(errno));
  impl_->accepting = std::thread([this] { impl_->accept_all(); });
}

void HttpServer::close() {
  impl_->closing = true;
  if (impl_->accepting.joinable()) impl_->accepting.join();
}

HttpServer::~HttpServer() {
  close();
  std::unique_lock lock(impl_->mutex);
  for (int const socket : impl_->sockets) ::shutdown(socket, SHUT_RD);
  impl_->ended.wait(lock, [&] { return impl_->sockets.empty(); });
  ::close(impl_->listening_);
}

}  // namespace fsllm
